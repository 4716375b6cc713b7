"""The handler's side of the ledger: every run is a line in a file, written before anything is answered."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from typing import Any

from restpipe import Context, EventHandler, streamed
from tests.faults.content import content, digest

PIECE = 20_000


class Recording(EventHandler):
    """Events are numbered by their caller, who also says how long the answer takes and how large it is."""

    def __init__(self) -> None:
        path = os.environ["LEDGER_FILE"]
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _record(self, what: str, number: str, detail: str = "") -> None:
        # One write of one line: whole, whoever else writes, and there even if this process is killed next.
        os.write(self._file, f"{what} {number} {detail}\n".encode())

    async def _run(
        self, ctx: Context, post_data: tuple[str, Any], number: str, size: str = "0", seconds: str = "0"
    ) -> tuple[str, int, bytes]:
        data = post_data[1]
        self._record("run", number)
        self._record("body", number, digest(data if isinstance(data, bytes) else data.encode()))
        await asyncio.sleep(float(seconds))
        return "application/octet-stream", 0, content(number, int(size))

    get_item = put_item = post_item = delete_item = _run

    @streamed
    def post_stream(self, ctx: Context, post_data: tuple[str, Any], number: str) -> str:
        """A body of any length; what is answered is its digest."""
        self._record("run", number)
        received = hashlib.sha256()
        for piece in post_data[1]:
            received.update(piece)
        self._record("body", number, received.hexdigest()[:16])
        return received.hexdigest()[:16]

    def get_stream(
        self, ctx: Context, post_data: tuple[str, Any], number: str, size: str, seconds: str = "0"
    ) -> Iterator[bytes]:
        """Pieces, with a pause between each two."""
        self._record("run", number)
        data = content(number, int(size))

        def pieces() -> Iterator[bytes]:
            for at in range(0, len(data), PIECE):
                yield data[at : at + PIECE]
                time.sleep(float(seconds))

        return pieces()

    def get_work(self, ctx: Context, post_data: tuple[str, Any], seconds: str) -> str:
        """Holds a thread."""
        time.sleep(float(seconds))
        return "done"

    post_work = get_work

    def get_ticks(self, ctx: Context, post_data: tuple[str, Any]) -> Iterator[str]:
        """A line now and then, for ever."""
        while True:
            yield "tick\n"
            time.sleep(0.5)

    def get_fail(self, ctx: Context, post_data: tuple[str, Any]) -> None:
        raise ValueError("as it was asked")

    async def get_pid(self, ctx: Context, post_data: tuple[str, Any]) -> int:
        return os.getpid()
