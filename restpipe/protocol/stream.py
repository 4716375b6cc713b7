"""One stream, as either of its ends sees it: credit, the end of each side, reset. No I/O, no clock.

Rules of the file: `now` is a monotonic time in seconds, passed in. The opening side sends the request's body
and receives the reply; the answering side does the opposite. A stream is over (`closed`) when the reply has
ended or either side has reset it: what comes for it later is dropped, and what is here already can still be
read. A frame that breaks the rules resets its stream, never the link. Frames go to the session's queue at
once; a subclass does the waiting: `_readable`, `_writable`, `_over` and `_lost` tell it of changes.
"""

from __future__ import annotations

from collections import deque

from restpipe.errors import Code, Delivered, ProtocolError, Reset, StreamReset
from restpipe.protocol import frames
from restpipe.protocol.frames import DATA, END, HEADER_SIZE, MAX_BODY, REPLY, RESET, WINDOW, Frame
from restpipe.protocol.messages import encode_reset, read_message, read_reset
from restpipe.protocol.native import mypyc_attr
from restpipe.protocol.schema_pb2 import Event, Origin, Reply
from restpipe.protocol.session import Session
from restpipe.protocol.streams import INITIAL_CREDIT, MAX_CREDIT, ReceiveCredit


@mypyc_attr(allow_interpreted_subclasses=True)
class Stream:
    """An event and its reply in one link's session."""

    __slots__ = (
        "_credit",
        "_number",
        "_pieces",
        "_receive_credit",
        "_session",
        "_uncounted",
        "answers",
        "closed",
        "event",
        "failure",
        "moved_at",
        "origin",
        "reply",
        "whole",
    )

    def __init__(self, session: Session, number: int, event: Event, origin: Origin | None = None) -> None:
        self.event = event
        self.origin = origin
        """Answering side: who sent the event. None on the opening side."""
        self.answers = origin is not None
        """This is the answering side."""
        self.reply: Reply | None = None
        """Opening side: the head of the reply, once it is in."""
        self.failure: Reset | None = None
        """Why the stream came to nothing, if it did."""
        self.whole = False
        """All of the other side's body is in."""
        self.closed = False
        self.moved_at = 0.0
        """When the request's body last moved, as far as this side knows: more of it came, or the other side
        granted credit for more. 0 while it has not.
        """
        self._session = session
        self._number = number
        self._credit = INITIAL_CREDIT
        """Body bytes that this side may still send."""
        self._receive_credit: ReceiveCredit | None = None
        """Made when more comes than the first piece: most bodies are one."""
        self._uncounted = 0
        """Credit that the first piece took, if it is not counted in `_receive_credit` yet."""
        self._pieces: bytes | deque[tuple[bytes, int]] = b""
        """The body that is here and not taken: its first piece alone, or pieces and what credit each took."""

    # For a subclass.

    def _readable(self) -> None:
        """The reply's head or more of the body is in."""

    def _writable(self) -> None:
        """There is more credit."""

    def _over(self) -> None:
        """The stream is closed: there is nothing more to wait for. Called once."""

    def _lost(self, reset: Reset) -> None:
        """The other side has reset the stream, or the link is gone."""

    # Sending.

    @property
    def room(self) -> int:
        """Body bytes that one DATA frame may carry now; 0 or less if it has to wait for credit."""
        return min(self._credit - HEADER_SIZE, MAX_BODY)

    def send_data(self, piece: bytes | memoryview, *, end: bool) -> None:
        """Send more of this side's body, at most `room` bytes; `end` says that it is the last."""
        frame = frames.encode(DATA, self._number, body=piece, flags=END if end else 0)
        self._credit -= HEADER_SIZE + len(piece)
        self._session.send(self._number, frame)
        if end and self.answers:
            self._close()

    def start_reply(self, head: bytes, body: bytes = b"", *, end: bool) -> None:
        """Send the head of the reply, a serialized `Reply`, with the first of its body (at most 64 KiB).

        Raises `StreamReset` if the stream is over, or if the head is too large for a frame.
        """
        if self.failure is not None:
            raise StreamReset(self.failure)
        try:
            frame = frames.encode(REPLY, self._number, head, body, flags=END if end else 0)
        except ValueError as error:
            self.reset(Code.BAD_MESSAGE, f"the reply's head does not fit: {error}", Delivered.YES)
            raise StreamReset(Reset(Code.BAD_MESSAGE, str(error), Delivered.YES)) from None
        self._credit -= len(body)
        self._session.send(self._number, frame)
        if end:
            self._close()

    def sent_with_opening(self, size: int) -> None:
        """Opening side: count body bytes that left with the event itself."""
        self._credit -= size

    # Receiving.

    def receive(self, frame: Frame, now: float) -> None:
        """Take one frame of this stream, in order."""
        try:
            self._receive(frame, now)
        except ProtocolError as fault:
            self.reset(fault.code, fault.detail)

    def _receive(self, frame: Frame, now: float) -> None:
        kind = frame.kind
        if kind == REPLY and not self.answers and self.reply is None:
            self.reply = read_message(Reply(), frame)
            self.receive_body(frame.payload[frame.head_size :], now, end=frame.flags & END != 0)
        elif kind == DATA:
            if self.answers:
                self.moved_at = now
            elif self.reply is None:
                raise ProtocolError(Code.BAD_MESSAGE, "the reply's body came without its head")
            self.receive_body(frame.body, now, end=frame.flags & END != 0, overhead=HEADER_SIZE)
        elif kind == WINDOW:
            granted = frames.decode_credit(frame)
            if granted and not self.answers:
                self.moved_at = now
            self._credit += granted
            if self._credit > MAX_CREDIT:
                raise ProtocolError(Code.FLOW_CONTROL, f"more than {MAX_CREDIT} bytes of credit")
            self._writable()
        elif kind == RESET:
            self._fail(read_reset(frame))

    def receive_body(self, body: bytes, now: float, *, end: bool, overhead: int = 0) -> None:
        """Take body bytes that came with a frame. Raises `ProtocolError` if they break the rules."""
        if self.whole:
            raise ProtocolError(Code.BAD_MESSAGE, "more came after the end of the body")
        if end and not self.answers and self.reply is None:
            raise ProtocolError(Code.BAD_MESSAGE, "the stream ended without a reply")
        cost = len(body) + overhead
        if self._receive_credit is None and not self._pieces and not self._uncounted and not overhead:
            # No frame can carry more than the first credit covers.
            self._pieces = body
            self._uncounted = cost
        elif cost:
            self._keep(body, cost, now)
        if end:
            self.whole = True
            if not self.answers:
                self._close()
                return
        self._readable()

    def _keep(self, body: bytes, cost: int, now: float) -> None:
        credit = self._credit_in(now)
        credit.receive(cost, now)
        if not body:
            self._consumed(credit, cost, now)
        elif isinstance(self._pieces, bytes):
            first = self._pieces
            self._pieces = deque(((first, len(first)), (body, cost)) if first else ((body, cost),))
        else:
            self._pieces.append((body, cost))

    def _credit_in(self, now: float) -> ReceiveCredit:
        if self._receive_credit is None:
            self._receive_credit = ReceiveCredit()
            self._receive_credit.receive(self._uncounted, now)
        return self._receive_credit

    def take_all(self, now: float) -> bytes:
        """Return all body bytes that are here, and grant the other side as much credit as they took."""
        pieces = self._pieces
        if not pieces:
            return b""
        self._pieces = b""
        if isinstance(pieces, bytes):
            body, cost = pieces, len(pieces)
        else:
            body = b"".join([piece for piece, _ in pieces])
            cost = sum([cost for _, cost in pieces])
        self._took(cost, now)
        return body

    def take_piece(self, now: float) -> bytes:
        """Return the next piece of the body as it came, at most 64 KiB; empty if none is here."""
        pieces = self._pieces
        if not pieces or isinstance(pieces, bytes):
            return self.take_all(now)
        piece, cost = pieces.popleft()
        self._took(cost, now)
        return piece

    def _took(self, cost: int, now: float) -> None:
        if not self.whole and not self.closed:
            self._consumed(self._credit_in(now), cost, now)

    def _consumed(self, credit: ReceiveCredit, cost: int, now: float) -> None:
        due = credit.consume(cost, now)
        if due:
            self._session.send(self._number, frames.encode_credit(WINDOW, self._number, due))

    # Ending.

    def reset(self, code: Code, detail: str = "", delivered: Delivered = Delivered.UNKNOWN) -> bool:
        """Give the stream up and tell the other side why. Does nothing if it is over.

        True if there is nothing to tell: the other side has never heard of it.
        """
        if self.closed:
            return False
        reset = Reset(code, detail, delivered)
        never_left = self._session.queue.drop(self._number)
        if not never_left:
            self._session.send(self._number, encode_reset(self._number, reset))
        self.failure = reset
        self._close()
        return never_left

    def lose(self) -> None:
        """The link is gone, and with it this stream, unless it was complete."""
        if self.closed:
            return
        never_left = self._session.queue.drop(self._number)
        delivered = Delivered.NO if never_left else Delivered.UNKNOWN
        self._fail(Reset(Code.OUTCOME_UNKNOWN, "the link to the pipe daemon broke", delivered))

    def _fail(self, failure: Reset) -> None:
        self.failure = failure
        self._close()
        self._lost(failure)

    def _close(self) -> None:
        self.closed = True
        self._over()
