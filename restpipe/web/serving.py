"""What all HTTP connections of one process share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Serving:
    """The application, the loop, and the time as of the last sweep. To be made in the loop."""

    def __init__(self, app: Asgi) -> None:
        self.app = app
        self.loop = asyncio.get_running_loop()
        self.leaving = False
        """The worker stops: no connection is kept alive."""
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.done.set_result(None)
        """What waits for nothing."""
        self.now = 0.0
        """By the loop's clock; up to a second old."""
        self.fields = b""
        """The headers that begin each response."""
        self.set_time(self.loop.time())
        self._no_body: asyncio.Future[dict[str, Any]] = self.loop.create_future()
        self._no_body.set_result({"type": "http.request", "body": b"", "more_body": False})

    def set_time(self, now: float) -> None:
        """Take over `now`, of the loop's clock. To be called about once a second."""
        self.now = now
        self.fields = f"date: {formatdate(usegmt=True)}\r\nserver: restpipe\r\n".encode()

    def receive(self) -> asyncio.Future[dict[str, Any]]:
        """ASGI's `receive`: no body, for the application reads it from the connection, once it wants it."""
        return self._no_body
