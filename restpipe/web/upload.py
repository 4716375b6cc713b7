"""The body of a request as it comes in from the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from restpipe.host.limits import Budget
from restpipe.protocol.frames import MAX_BODY
from restpipe.web.framing import Framing

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class TooLarge(Exception):
    """The body is larger than allowed."""


class HungUp(Exception):
    """The caller is gone, and the rest of the body with it."""


class Upload:
    """Reads the body piece by piece and keeps its start, so that it can be sent again.

    `receive` is ASGI's. One reader at a time.
    """

    def __init__(self, receive: Receive, framing: Framing, *, most: int, keep: int, room: Budget) -> None:
        """At most `most` bytes are read, and at most `keep` kept, as long as all together find `room`.

        `forget` must be called in the end.
        """
        self.length = framing.length
        """Bytes in all; None when the caller did not say."""
        self.complete = framing.length == 0
        """All of it has been read."""
        self.asked = False
        """The caller has been asked for the body (it may have waited for `100 Continue`)."""
        self.kept: bytearray | None = bytearray()
        """All that has been read so far; None once that is no longer at hand."""
        self._receive = receive
        self._most = most
        self._keep = keep
        self._room = room
        self._size = 0

    async def read(self) -> bytes:
        """The next piece; sets `complete` with the last one. Raises `TooLarge` or `HungUp`."""
        self.asked = True
        message = await self._receive()
        if message["type"] != "http.request":
            raise HungUp
        piece: bytes = message.get("body", b"")
        self._size += len(piece)
        if self._size > self._most:
            raise TooLarge
        self._keep_piece(piece)
        self.complete = not message.get("more_body", False)
        return piece

    def _keep_piece(self, piece: bytes) -> None:
        if self.kept is None:
            return
        if self._size > self._keep or not self._room.take(len(piece)):
            self.forget()
        else:
            self.kept += piece

    async def begin(self) -> bytes:
        """What the event should start with: the whole body where it fits the first frame, else what is here.

        When the event is sent again: all that has been read so far.
        """
        if self.asked:
            return bytes(self.kept or b"")
        start = b""
        fits_one_frame = self.length is not None and self.length <= MAX_BODY
        while not self.complete and (fits_one_frame or not self.asked):
            start += await self.read()
        return start

    def forget(self) -> None:
        """The event will not be sent again. Idempotent."""
        if self.kept is not None:
            self._room.give_back(len(self.kept))
            self.kept = None
