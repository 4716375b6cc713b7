"""One event in flight over a worker's link, as either of its ends sees it: a stream to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from restpipe.errors import Code, Delivered, Reset, StreamReset
from restpipe.protocol.native import mypyc_attr
from restpipe.protocol.schema_pb2 import Event, Origin
from restpipe.protocol.session import Session
from restpipe.protocol.stream import Stream


@mypyc_attr(allow_interpreted_subclasses=True)
class Exchange(Stream):
    """An event and its reply. Belongs to the thread of its loop.

    At most one task may wait for what comes in (`answered`, `read`) and one may `write` at a time.
    """

    __slots__ = ("_forget", "_loop", "_reader", "_writer", "on_reset")

    def __init__(
        self,
        session: Session,
        number: int,
        event: Event,
        *,
        loop: asyncio.AbstractEventLoop,
        forget: Callable[[int], None],
        origin: Origin | None = None,
    ) -> None:
        super().__init__(session, number, event, origin)
        self.on_reset: Callable[[Reset], None] | None = None
        """Called once when the other side resets the exchange or the link is lost."""
        self._loop = loop
        self._forget = forget
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    # Reading.

    def answered(self) -> asyncio.Future[None]:
        """Opening side: return a future that is done once `reply` is there, or `failure`. It never fails."""
        answered = self._reader = self._loop.create_future()
        if self.reply is not None or self.closed:
            answered.set_result(None)
        return answered

    def take(self) -> bytes:
        """Return all of the body that is here, without waiting; the other side is granted as much credit."""
        return self.take_all(self._loop.time())

    async def read(self) -> bytes:
        """Return the next piece of the other side's body, at most 64 KiB; empty at its end.

        Reading grants the other side further credit. Raises `StreamReset` if the body broke off, or if the
        reply is whole before the request is: what comes of it then is dropped.
        """
        while not self._pieces:
            if self.whole:
                return b""
            if self.failure is not None:
                raise StreamReset(self.failure)
            if self.closed:
                raise StreamReset(Reset(Code.CANCELLED, "the reply has ended", Delivered.YES))
            self._reader = self._loop.create_future()
            await self._reader
        return self.take_piece(self._loop.time())

    # Writing.

    async def write(self, data: bytes, *, end: bool = False) -> None:
        """Send more of this side's body, as fast as the other side grants credit.

        Raises `StreamReset` if the exchange failed. Returns silently if the reply is already whole: the
        answering side does not want the rest of the request.
        """
        rest = memoryview(data)
        while rest or end:
            if self.failure is not None:
                raise StreamReset(self.failure)
            if self.closed:
                return
            room = self.room
            if room < (1 if rest else 0):
                self._writer = self._loop.create_future()
                await self._writer
                continue
            piece, rest = rest[:room], rest[room:]
            last = end and not rest
            self.send_data(piece, end=last)
            if last:
                return

    # What the stream tells.

    def _readable(self) -> None:
        reader = self._reader
        if reader is not None:
            self._reader = None
            # A task that waits may have been cancelled in this very moment.
            if not reader.done():
                reader.set_result(None)

    def _writable(self) -> None:
        writer = self._writer
        if writer is not None:
            self._writer = None
            if not writer.done():
                writer.set_result(None)

    def _over(self) -> None:
        self._forget(self._number)
        if self._reader is not None:
            self._readable()
        if self._writer is not None:
            self._writable()

    def _lost(self, reset: Reset) -> None:
        callback, self.on_reset = self.on_reset, None
        if callback is not None:
            callback(reset)
