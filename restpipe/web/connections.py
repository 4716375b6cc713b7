"""The HTTP connections of one process: how many there may be, and their end."""

from __future__ import annotations

import asyncio
import logging

from restpipe.errors import Code, Delivered, Reset
from restpipe.web import responses
from restpipe.web.http1 import HttpConnection
from restpipe.web.responses import Document
from restpipe.web.serving import Asgi, Serving

_log = logging.getLogger(__name__)


class Connections:
    """All connections that are open. To be made in its loop; `sweep` is to be called about once a second.

    At most `most` are open. Beyond that, the one without a request in flight that would be closed next anyway
    makes room for a new one; if there is none, the new one is refused.
    """

    def __init__(self, app: Asgi, *, most: int) -> None:
        self.serving = Serving(app)
        self._most = most
        self._open: dict[HttpConnection, None] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._on_made = self._admit
        self._on_lost = self._discard

    def make(self) -> HttpConnection:
        """Make the protocol of a connection that comes in. It counts once its transport is there."""
        return HttpConnection(self.serving, self._on_made, self._on_lost)

    def _admit(self, connection: HttpConnection) -> Document | None:
        """Count a connection in, or return why it is refused."""
        if len(self._open) >= self._most and not self._make_room():
            detail = f"{len(self._open)} connections are open in this web worker"
            return responses.of_failure(Reset(Code.OVERLOADED, detail, Delivered.NO))
        self._open[connection] = None
        self._empty.clear()
        return None

    def _make_room(self) -> bool:
        idle = [connection for connection in self._open if connection.idle]
        if not idle:
            return False
        oldest = min(idle, key=lambda connection: connection.until)
        # At once: its caller may not read what it was sent last.
        oldest.abort()
        self._discard(oldest)
        return True

    def _discard(self, connection: HttpConnection) -> None:
        self._open.pop(connection, None)
        if not self._open:
            self._empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def sweep(self, now: float) -> None:
        """Give up callers that are too slow, at `now` of the loop's clock."""
        self.serving.set_time(now)
        for connection in list(self._open):
            connection.check(now)

    async def drain(self, timeout_s: float) -> None:
        """Answer the requests in flight and those about to arrive, at most `timeout_s`, then close all."""
        self.serving.leaving = True
        for connection in list(self._open):
            connection.leave()
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            _log.warning("%d connections were still open after %g s", len(self._open), timeout_s)
        self.abort()

    def abort(self) -> None:
        """Close all connections at once; their requests are given up."""
        for connection in list(self._open):
            connection.abort()
