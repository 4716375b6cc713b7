"""The body of a request on its way in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from restpipe.errors import Code, Delivered, Reset
from restpipe.host.limits import Budget
from restpipe.protocol.frames import MAX_BODY

HIGH_WATER: Final = 65536
"""Bytes of a request's body that may wait to be read before its caller is not read from."""


class RequestBody:
    """The body of a request: its connection puts in what arrives, one task reads it.

    What has been read is kept, so that it can be sent again, as long as it is small. `close` must be called
    in the end.
    """

    __slots__ = (
        "_keep",
        "_most",
        "_reader",
        "_room",
        "_size",
        "_to_ask",
        "_to_read_on",
        "arrived",
        "asked",
        "buffered",
        "complete",
        "ended",
        "failure",
        "kept",
        "length",
        "moved_at",
    )

    def __init__(self, length: int | None, *, ask: Callable[[], None], read_on: Callable[[], None]) -> None:
        """`ask` is called when the body is wanted, `read_on` when there is room for more."""
        self.length = length
        """Bytes in all; None if the caller did not say."""
        self.asked = False
        """The body is wanted: the caller has been told to continue, if it waits for that."""
        self.arrived: list[bytes] = []
        """What has arrived and is not read yet."""
        self.buffered = 0
        """Bytes in `arrived`, about."""
        self.ended = False
        """All of it has arrived."""
        self.complete = False
        """All of it has been read."""
        self.failure: Reset | None = None
        """Why no more of it can be read, although it is not complete."""
        self.moved_at = 0.0
        """When some of it was last read or sent, by the loop's clock. 0 while none was."""
        self.kept: list[bytes] | None = []
        """All that has been read so far; None if that is not at hand any more."""
        self._to_ask: Callable[[], None] | None = ask
        self._to_read_on: Callable[[], None] | None = read_on
        self._most = 0
        self._keep = 0
        self._room = Budget(0)
        self._size = 0
        self._reader: asyncio.Future[None] | None = None

    def limit(self, *, most: int, keep: int, room: Budget) -> None:
        """Read at most `most` bytes, and keep at most `keep`, as long as all bodies together find `room`."""
        self._most = most
        self._keep = keep
        self._room = room

    # For the connection.

    def wake(self) -> None:
        """More has arrived, or the end of it."""
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    # For the call.

    async def read(self) -> bytes:
        """Return what is here, or wait for more. Empty at the end, or if `failure` says why none comes."""
        self._ask()
        while not self.arrived and not self.ended and self.failure is None:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if self.failure is not None:
            return b""
        return self._take()

    def _ask(self) -> None:
        if not self.asked:
            self.asked = True
            if self._to_ask is not None:
                self._to_ask()

    def _take(self) -> bytes:
        arrived = self.arrived
        piece = arrived[0] if len(arrived) == 1 else b"".join(arrived)
        arrived.clear()
        self.buffered = 0
        if self._to_read_on is not None:
            self._to_read_on()
        if piece:
            self.move()
        self._size += len(piece)
        if self._size > self._most:
            self.failure = Reset(Code.BODY_TOO_LARGE, delivered=Delivered.NO)
            return b""
        self._keep_piece(piece)
        self.complete = self.ended
        return piece

    def move(self) -> None:
        """Note that some of it has been read or sent."""
        self.moved_at = asyncio.get_running_loop().time()

    def _keep_piece(self, piece: bytes) -> None:
        if self.kept is None:
            return
        if self._size > self._keep or not self._room.take(len(piece)):
            self.forget()
        else:
            self.kept.append(piece)

    async def begin(self) -> bytes:
        """Return what the event starts with: the whole body if it fits the first frame, else what is here.

        If the event is sent again, return all that has been read so far.
        """
        if self.asked:
            return b"".join(self.kept or ())
        start = await self.read()
        if self.length is not None and self.length <= MAX_BODY:
            while not self.complete and self.failure is None:
                piece = await self.read()
                start += piece
        return start

    def fail(self, failure: Reset) -> None:
        """Let nothing more be read: the caller is gone, or the event is. Drops what arrives from now on."""
        if self.failure is None and not self.complete:
            self.failure = failure
            self._drop_arrived()
            self.wake()

    def _drop_arrived(self) -> None:
        self.arrived.clear()
        self.buffered = 0
        if self._to_read_on is not None:
            self._to_read_on()

    def forget(self) -> None:
        """The event will not be sent again: give the room back. May be called more than once."""
        if self.kept is not None:
            self._room.give_back(sum(map(len, self.kept)))
            self.kept = None

    def close(self) -> None:
        """The request is over."""
        self.fail(Reset(Code.CANCELLED, "the request is over"))
        self.forget()
        self._to_ask = self._to_read_on = None
