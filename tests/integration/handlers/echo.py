"""What the integration tests ask of a handler."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from restpipe import Context, EventHandler, Reply, streamed

PostData = tuple[str, Any]


class Echo(EventHandler):
    """Says what it was asked, and does on demand what handlers do wrong."""

    def __init__(self) -> None:
        self.cancelled: set[str] = set()
        self.runs: dict[str, int] = {}
        self.lock = threading.Lock()
        self.here = 0
        self.sleeping = 0
        self.all_here = asyncio.Event()

    # What was asked.

    def _told(self, ctx: Context, post_data: PostData, *arguments: str, **query: Any) -> dict[str, Any]:
        mime, data = post_data
        shown = data.hex() if isinstance(data, bytes) else data
        return {
            "peer": ctx.peer,
            "address": list(ctx.participant_address),
            "mime": mime,
            "data": shown,
            "kind": type(data).__name__,
            "arguments": arguments,
            "query": query,
            "headers": dict(ctx.headers),
            "event_id": ctx.event_id,
        }

    get_told = post_told = put_told = patch_told = delete_told = options_told = _told

    # What is answered.

    def get_nothing(self, ctx: Context, post_data: PostData) -> None:
        return None

    def get_tuple(self, ctx: Context, post_data: PostData) -> tuple[str, int, str]:
        return "text/plain; charset=utf-8", 7, "sieben: ü"

    def get_binary(self, ctx: Context, post_data: PostData) -> tuple[str, int, bytes]:
        return "application/octet-stream", 0, bytes(range(256))

    def get_reply(self, ctx: Context, post_data: PostData) -> Reply:
        return Reply({"made": True}, status=201, headers={"Location": "/here", "X-Own": "ä"})

    def get_pieces(self, ctx: Context, post_data: PostData, count: str, size: str) -> Iterator[bytes]:
        return (bytes([number % 256]) * int(size) for number in range(int(count)))

    async def get_async_pieces(
        self, ctx: Context, post_data: PostData, count: str, size: str
    ) -> AsyncIterator[bytes]:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(int(count)):
                await asyncio.sleep(0)
                yield bytes([number % 256]) * int(size)

        return pieces()

    @streamed
    def post_digest(self, ctx: Context, post_data: PostData) -> dict[str, Any]:
        digest, size = hashlib.sha256(), 0
        for piece in post_data[1]:
            digest.update(piece)
            size += len(piece)
        return {"sha256": digest.hexdigest(), "size": size}

    def post_length(self, ctx: Context, post_data: PostData) -> int:
        return len(post_data[1])

    # What goes wrong.

    def get_error(self, ctx: Context, post_data: PostData) -> None:
        raise KeyError("ünfortunate")

    def get_late_error(self, ctx: Context, post_data: PostData) -> Iterator[bytes]:
        def pieces() -> Iterator[bytes]:
            yield b"x" * 200_000
            raise ValueError("in mid-reply")

        return pieces()

    async def get_slow(
        self, ctx: Context, post_data: PostData, seconds: str, mark: str = ""
    ) -> dict[str, float]:
        self.sleeping += 1
        try:
            await asyncio.sleep(float(seconds))
        except asyncio.CancelledError:
            self.cancelled.add(mark)
            raise
        finally:
            self.sleeping -= 1
        return {"slept": float(seconds)}

    def get_slow_here(self, ctx: Context, post_data: PostData) -> int:
        return self.sleeping

    def get_cancelled(self, ctx: Context, post_data: PostData, mark: str) -> bool:
        return mark in self.cancelled

    def get_endless(self, ctx: Context, post_data: PostData, mark: str) -> Iterator[bytes]:
        try:
            for _ in itertools.count():
                yield b"." * 10_000
        finally:
            self.cancelled.add(mark)

    def get_stuck(self, ctx: Context, post_data: PostData) -> None:
        ctx.logger.info("hangs")
        threading.Event().wait()

    def get_spin(self, ctx: Context, post_data: PostData, seconds: str) -> None:
        ctx.logger.info("hangs")
        over_at = time.monotonic() + float(seconds)
        while time.monotonic() < over_at:
            pass

    async def get_block(self, ctx: Context, post_data: PostData, seconds: str) -> str:
        ctx.logger.info("hangs")
        time.sleep(float(seconds))  # noqa: ASYNC251 - it is there to do what must not be done
        return "blocked"

    # Not sent again: it does to one worker what it does.
    post_stuck, post_spin, post_block = get_stuck, get_spin, get_block

    def get_exit(self, ctx: Context, post_data: PostData) -> None:
        os._exit(3)

    post_exit = get_exit

    async def get_gathered(self, ctx: Context, post_data: PostData, count: str) -> int:
        """Answers none before `count` are here at once."""
        self.here += 1
        if self.here == int(count):
            self.all_here.set()
        await self.all_here.wait()
        return self.here

    def get_time(self, ctx: Context, post_data: PostData) -> float:
        return time.time()

    def get_pid(self, ctx: Context, post_data: PostData) -> int:
        return os.getpid()

    # Who ran how often.

    def _count(self, ctx: Context, post_data: PostData, mark: str) -> int:
        with self.lock:
            self.runs[mark] = self.runs.get(mark, 0) + 1
            return self.runs[mark]

    get_count = post_count = _count

    def get_counted(self, ctx: Context, post_data: PostData, mark: str) -> int:
        return self.runs.get(mark, 0)
