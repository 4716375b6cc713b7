"""One event under way over a worker's link, as either of its ends sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from restpipe.errors import Code, Delivered, ProtocolError, StreamReset
from restpipe.protocol import frames
from restpipe.protocol.frames import END, HEADER_SIZE, MAX_BODY, Frame, Kind
from restpipe.protocol.messages import encode_reset, read_message, read_reset
from restpipe.protocol.schema_pb2 import Event, Origin, Reply
from restpipe.protocol.session import Session
from restpipe.protocol.streams import ReceiveCredit, SendCredit

_DATA, _WINDOW, _REPLY, _RESET = Kind.DATA, Kind.WINDOW, Kind.REPLY, Kind.RESET
"""Looking a member of an enumeration up takes longer than all else that is done for most frames."""


class Exchange:
    """An event and its reply. Belongs to the thread of its loop.

    The opening side writes the request's body and reads the reply's, the answering side the other way
    round. At most one task may read and one may write at a time. It is over (`closed`) when the reply has
    ended or either side has reset it; a body that is already here can still be read then.
    """

    __slots__ = (
        "_all_in",
        "_failure",
        "_forget",
        "_inbox",
        "_loop",
        "_number",
        "_reader",
        "_receive_credit",
        "_reply",
        "_reset_callback",
        "_send_credit",
        "_session",
        "_writer",
        "closed",
        "event",
        "origin",
    )

    def __init__(
        self,
        session: Session,
        number: int,
        event: Event,
        *,
        loop: asyncio.AbstractEventLoop,
        origin: Origin | None = None,
        forget: Callable[[int], None],
    ) -> None:
        self.event = event
        self.origin = origin
        """Answering side: who sent the event."""
        self.closed = False
        self._loop = loop
        self._session = session
        self._number = number
        self._forget = forget
        self._send_credit = SendCredit()
        self._receive_credit = ReceiveCredit()
        self._inbox: deque[tuple[bytes, int]] = deque()
        """Pieces of body and what each costs of the credit."""
        self._all_in = False
        self._reply: Reply | None = None
        self._failure: StreamReset | None = None
        self._reset_callback: Callable[[StreamReset], None] | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    # Reading.

    async def reply(self) -> Reply:
        """Opening side: waits for the head of the reply. `StreamReset` when there will be none."""
        while self._reply is None:
            if self._failure is not None:
                raise self._failure
            await self._wait_to_read()
        return self._reply

    async def read(self) -> bytes:
        """The next piece of the other side's body, at most 64 KiB; empty at its end.

        Reading is what grants the other side further credit. `StreamReset` when the body broke off, or when
        the reply is whole before the request is: what comes of it then is dropped.
        """
        while not self._inbox:
            if self._all_in:
                return b""
            if self._failure is not None:
                raise self._failure
            if self.closed:
                raise StreamReset(Code.CANCELLED, "the reply has ended", Delivered.YES)
            await self._wait_to_read()
        piece, cost = self._inbox.popleft()
        self._consume(cost)
        return piece

    def _consume(self, cost: int) -> None:
        if self._all_in or self.closed:
            return
        due = self._receive_credit.consume(cost, self._loop.time())
        if due:
            self._session.send(self._number, frames.encode_credit(_WINDOW, self._number, due))

    async def _wait_to_read(self) -> None:
        self._reader = self._loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    # Writing.

    async def write(self, data: bytes, *, end: bool = False) -> None:
        """Sends more of this side's body, as fast as the other side grants credit.

        `StreamReset` when the exchange failed. Silent when the reply is already whole: whoever answered does
        not want the rest of the request.
        """
        rest = memoryview(data)
        while rest or end:
            if self._failure is not None:
                raise self._failure
            if self.closed:
                return
            room = self._send_credit.available - HEADER_SIZE
            if room < (1 if rest else 0):
                await self._wait_for_credit()
                continue
            piece, rest = rest[: min(room, MAX_BODY)], rest[min(room, MAX_BODY) :]
            ends = end and not rest
            frame = frames.encode(_DATA, self._number, body=piece, flags=END if ends else 0)
            self._send(frame, HEADER_SIZE + len(piece))
            if ends:
                self._sent_all()
                return

    def start_reply(self, reply: Reply, body: bytes = b"", *, end: bool) -> None:
        """Answering side: the head of the reply with the first of its body (at most 64 KiB), without waiting.

        `StreamReset` when the exchange is over, or when the head is too large for a frame.
        """
        if self._failure is not None:
            raise self._failure
        try:
            head = reply.SerializeToString()
            frame = frames.encode(_REPLY, self._number, head, body, flags=END if end else 0)
        except ValueError as error:
            self.reset(Code.BAD_MESSAGE, f"the reply's head does not fit: {error}", Delivered.YES)
            raise StreamReset(Code.BAD_MESSAGE, str(error), Delivered.YES) from error
        self._send(frame, len(body))
        if end:
            self._sent_all()

    def sent_with_opening(self, size: int) -> None:
        """Opening side: body bytes that left with the event itself."""
        self._send_credit.spend(size)

    def _send(self, frame: bytes, size: int) -> None:
        self._send_credit.spend(size)
        self._session.send(self._number, frame)

    def _sent_all(self) -> None:
        if self.answers:
            self._close()

    async def _wait_for_credit(self) -> None:
        self._writer = self._loop.create_future()
        try:
            await self._writer
        finally:
            self._writer = None

    # Ending.

    @property
    def answers(self) -> bool:
        """Whether this is the answering side."""
        return self.origin is not None

    def reset(self, code: Code, detail: str = "", delivered: Delivered = Delivered.UNKNOWN) -> bool:
        """Gives the exchange up and tells the other side why. Idempotent.

        True when there is nothing to tell: the other side has never heard of it.
        """
        if self.closed:
            return False
        reset = StreamReset(code, detail, delivered)
        never_left = self._session.queue.drop(self._number)
        if not never_left:
            self._session.send(self._number, encode_reset(self._number, reset))
        self._fail(reset, tell=False)
        return never_left

    def on_reset(self, callback: Callable[[StreamReset], None]) -> None:
        """Has `callback` called once when the other side resets or the link is lost; at once if it has."""
        if self._failure is not None:
            callback(self._failure)
        else:
            self._reset_callback = callback

    def lose(self) -> None:
        """The link is gone, and with it this exchange, unless it was complete."""
        if self.closed:
            return
        never_left = self._session.queue.drop(self._number)
        delivered = Delivered.NO if never_left else Delivered.UNKNOWN
        self._fail(StreamReset(Code.OUTCOME_UNKNOWN, "the link to the pipe daemon broke", delivered))

    def _fail(self, failure: StreamReset, *, tell: bool = True) -> None:
        self._failure = failure
        self._close()
        callback, self._reset_callback = self._reset_callback, None
        if tell and callback is not None:
            callback(failure)

    def _close(self) -> None:
        self.closed = True
        self._forget(self._number)
        self._wake_reader()
        self._wake_writer()

    # What the link brings.

    def receive(self, frame: Frame) -> None:
        """One frame of this stream, in order."""
        try:
            self._receive(frame)
        except ProtocolError as fault:
            self.reset(fault.code, fault.detail)

    def receive_body(self, body: bytes, *, end: bool, overhead: int = 0) -> None:
        """Body bytes that came with whatever kind of frame."""
        if self._all_in:
            raise ProtocolError(Code.BAD_MESSAGE, "more came after the end of the body")
        cost = len(body) + overhead
        self._receive_credit.receive(cost, self._loop.time())
        if body:
            self._inbox.append((body, cost))
        elif cost:
            self._consume(cost)
        if end:
            if not self.answers and self._reply is None:
                raise ProtocolError(Code.BAD_MESSAGE, "the stream ended without a reply")
            self._all_in = True
            if not self.answers:
                self._close()
                return
        self._wake_reader()

    def _receive(self, frame: Frame) -> None:
        kind = frame.kind
        if kind == _DATA:
            self.receive_body(frame.body, end=frame.ends, overhead=HEADER_SIZE)
        elif kind == _WINDOW:
            self._send_credit.grant(frames.decode_credit(frame))
            self._wake_writer()
        elif kind == _REPLY and not self.answers and self._reply is None:
            self._reply = read_message(Reply(), frame)
            self.receive_body(frame.body, end=frame.ends)
        elif kind == _RESET:
            self._fail(read_reset(frame))

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
