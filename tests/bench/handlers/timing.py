"""What the benchmarks ask of RestPipe: a small answer in two ways, and large bodies either way."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from restpipe import Context, EventHandler, streamed

PostData = tuple[str, Any]

PIECE = bytes(65536)
PIECES = 16384
"""A GiB in all."""


class Timing(EventHandler):
    """As little work as there can be in a method, so that the way to it is what is measured."""

    def get_time(self, ctx: Context, post_data: PostData) -> dict[str, float]:
        return {"time": time.time()}

    async def get_atime(self, ctx: Context, post_data: PostData) -> dict[str, float]:
        return {"time": time.time()}

    async def get_big(self, ctx: Context, post_data: PostData) -> tuple[str, int, AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(PIECES):
                yield PIECE

        return "application/octet-stream", 0, pieces()

    @streamed
    async def post_big(self, ctx: Context, post_data: PostData) -> dict[str, int]:
        size = 0
        async for piece in post_data[1]:
            size += len(piece)
        return {"size": size}
