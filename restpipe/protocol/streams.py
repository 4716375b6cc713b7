"""Streams of one link: who is sent next, and how much each may still send."""

from __future__ import annotations

from collections import deque

from restpipe.errors import Code, ProtocolError
from restpipe.protocol.frames import Kind

INITIAL_CREDIT = 65536
"""Body bytes that each side of a new stream may send before it is granted more."""
MAX_CREDIT = 1 << 20
"""Body bytes of one stream that may be under way, wherever they wait."""

_OPENING = frozenset((Kind.EVENT, Kind.ORIGIN))


class SendQueue:
    """Encoded frames that wait to be sent: one of each stream in turn, so that none stands before another."""

    def __init__(self) -> None:
        self._queues: dict[int, deque[bytes]] = {}
        self._turns: deque[int] = deque()
        self.size = 0
        """Bytes that wait."""

    def __bool__(self) -> bool:
        return bool(self._queues)

    def push(self, stream: int, frame: bytes) -> None:
        """Puts a frame behind the others of its stream."""
        queue = self._queues.get(stream)
        if queue is None:
            self._queues[stream] = deque((frame,))
            self._turns.append(stream)
        else:
            queue.append(frame)
        self.size += len(frame)

    def take(self, budget: int) -> list[bytes]:
        """Removes frames worth about `budget` bytes: whole frames, the last of which may pass it."""
        queues, turns = self._queues, self._turns
        taken: list[bytes] = []
        while turns and budget > 0:
            stream = turns.popleft()
            queue = queues.get(stream)
            if queue is None:  # dropped since it got its turn
                continue
            frame = queue.popleft()
            taken.append(frame)
            size = len(frame)
            budget -= size
            self.size -= size
            if queue:
                turns.append(stream)
            else:
                del queues[stream]
        return taken

    def drop(self, stream: int) -> bool:
        """Removes a stream's frames. True when the first was among them: the other side never saw it."""
        queue = self._queues.pop(stream, None)
        if queue is None:
            return False
        self.size -= sum(map(len, queue))
        return queue[0][0] in _OPENING

    def holds_opening(self, stream: int) -> bool:
        """Whether the frame that opens this stream still waits here."""
        queue = self._queues.get(stream)
        return queue is not None and queue[0][0] in _OPENING

    def waiting(self, stream: int) -> int:
        """Bytes of one stream that wait."""
        return sum(map(len, self._queues.get(stream, ())))


class SendCredit:
    """How many body bytes this side may still send on one stream."""

    __slots__ = ("available",)

    def __init__(self) -> None:
        self.available = INITIAL_CREDIT

    def spend(self, size: int) -> None:
        self.available -= size

    def grant(self, size: int) -> None:
        """Further credit from the other side.

        `ProtocolError` when it grants more than a stream can ever have, which only a broken peer does.
        """
        self.available += size
        if self.available > MAX_CREDIT:
            raise ProtocolError(Code.FLOW_CONTROL, f"more than {MAX_CREDIT} bytes of credit")


class ReceiveCredit:
    """How many body bytes the other side may still send on one stream.

    The window begins small, since most bodies are, and doubles with each grant while the reader keeps up.
    """

    __slots__ = ("_consumed", "_granted", "_received", "_window")

    def __init__(self) -> None:
        self._window = INITIAL_CREDIT
        self._granted = INITIAL_CREDIT
        self._received = 0
        self._consumed = 0

    def receive(self, size: int) -> None:
        """Body bytes that came in; `ProtocolError` when they are more than was granted."""
        self._received += size
        if self._received > self._granted:
            raise ProtocolError(Code.FLOW_CONTROL, "more body bytes than were granted")

    def consume(self, size: int) -> int:
        """Body bytes that the reader took: the credit to grant now, 0 while it is not worth a frame."""
        self._consumed += size
        due = self._consumed + self._window - self._granted
        if due * 2 < self._window:
            return 0
        self._window = min(self._window * 2, MAX_CREDIT)
        due = self._consumed + self._window - self._granted
        self._granted += due
        return due
