"""Which stream of a link sends next, and how much each may still send.

Credit is counted in body bytes, and 16 more for each DATA frame: many tiny frames cost memory too.
"""

from __future__ import annotations

from collections import deque
from typing import Final, final

from restpipe.errors import Code, ProtocolError
from restpipe.protocol.frames import EVENT, ORIGIN, RESET

INITIAL_CREDIT: Final = 65536
"""Body bytes that each side of a new stream may send before it is granted more."""
MAX_CREDIT: Final = 1 << 20
"""Most body bytes of one stream in flight, wherever they wait."""
NEAR_CREDIT: Final = 1 << 18
"""Largest window on a link with negligible latency."""
FAST: Final = 1 << 27
"""Bytes a second that a stream may reach over a link with more latency, within MAX_CREDIT."""

FRAME_COST: Final = 256
"""Bytes of memory that a queued frame costs beside its own: its object, and its places in the queue."""
MAX_DROPPED: Final = 64
"""Turns of dropped streams that are kept whatever happens."""
_DROPPED: Final = b""
"""Stands for the frames of a stream that was dropped before its turn came."""


@final
class _Backlog:
    """The frames of one stream that wait, where they are more than one."""

    __slots__ = ("frames", "size")

    def __init__(self, first: bytes, second: bytes) -> None:
        self.frames = deque((first, second))
        self.size = len(first) + len(second)


@final
class SendQueue:
    """Encoded frames that wait to be sent: each stream sends one in turn, so that none holds up another."""

    def __init__(self) -> None:
        self._waiting: dict[int, bytes | _Backlog] = {}
        """By stream. Most have one frame, which then stands here itself."""
        self._turns: deque[int] = deque()
        """Each stream of `_waiting`, once."""
        self._dropped = 0
        """Streams of `_waiting` that were dropped."""
        self.size = 0
        """Bytes of memory that the frames cost."""
        self.resets = 0
        """How many of the frames are RESETs: they are covered by no credit."""

    def __bool__(self) -> bool:
        return self.size > 0

    def push(self, stream: int, frame: bytes) -> None:
        """Put a frame behind the others of its stream."""
        self.size += len(frame) + FRAME_COST
        if frame[0] == RESET:
            self.resets += 1
        queued = self._waiting.get(stream)
        if queued is None:
            self._waiting[stream] = frame
            self._turns.append(stream)
        elif isinstance(queued, _Backlog):
            queued.frames.append(frame)
            queued.size += len(frame)
        elif queued:
            self._waiting[stream] = _Backlog(queued, frame)
        else:
            self._waiting[stream] = frame
            self._dropped -= 1

    def take(self, budget: int) -> list[bytes]:
        """Remove frames worth about `budget` bytes: whole frames, the last of which may pass it."""
        waiting, turns = self._waiting, self._turns
        taken: list[bytes] = []
        while turns and budget > 0:
            stream = turns.popleft()
            queued = waiting[stream]
            if isinstance(queued, _Backlog):
                frame = queued.frames.popleft()
                queued.size -= len(frame)
                if queued.frames:
                    turns.append(stream)
                else:
                    del waiting[stream]
            else:
                del waiting[stream]
                if not queued:
                    self._dropped -= 1
                    continue
                frame = queued
            taken.append(frame)
            size = len(frame)
            budget -= size
            self.size -= size + FRAME_COST
            if frame[0] == RESET:
                self.resets -= 1
        return taken

    def drop(self, stream: int) -> bool:
        """Remove a stream's frames. True if the first was among them: the other side never saw the stream."""
        queued = self._waiting.get(stream)
        if not queued:
            return False
        opening = self.holds_opening(stream)
        for frame in queued.frames if isinstance(queued, _Backlog) else (queued,):
            self.size -= len(frame) + FRAME_COST
            if frame[0] == RESET:
                self.resets -= 1
        self._waiting[stream] = _DROPPED
        self._dropped += 1
        # Taking a turn out of the middle costs time for all: done once for many.
        if self._dropped > len(self._waiting) // 2 + MAX_DROPPED:
            self._waiting = {turn: kept for turn in self._turns if (kept := self._waiting[turn])}
            self._turns = deque(self._waiting)
            self._dropped = 0
        return opening

    def holds_opening(self, stream: int) -> bool:
        """Tell whether the frame that opens this stream still waits here."""
        queued = self._waiting.get(stream)
        if not queued:
            return False
        kind = queued.frames[0][0] if isinstance(queued, _Backlog) else queued[0]
        return kind in (EVENT, ORIGIN)

    def waiting(self, stream: int) -> int:
        """Bytes of one stream that wait."""
        queued = self._waiting.get(stream)
        if not queued:
            return 0
        return queued.size if isinstance(queued, _Backlog) else len(queued)


@final
class ReceiveCredit:
    """How many body bytes the other side may still send on one stream. Times are in seconds, and monotonic.

    The window begins small, since most bodies are, and doubles with each grant while the reader keeps up, as
    far as the link's latency asks for it: what is granted beyond what fills the link would only stand in
    queues ahead of other streams. The shortest time from a grant to the first byte that needed it tells the
    latency.
    """

    __slots__ = ("_asked_at", "_consumed", "_granted", "_received", "_round_trip_s", "_used_up", "_window")

    def __init__(self) -> None:
        self._window = INITIAL_CREDIT
        self._granted = INITIAL_CREDIT
        self._received = 0
        self._consumed = 0
        self._round_trip_s = 0.0
        """0 while it is not known."""
        self._asked_at = 0.0
        """When the grant was made whose use is waited for."""
        self._used_up = -1
        """Bytes granted before it: one more, and it has come to use. -1: no such grant is out."""

    def receive(self, size: int, now: float) -> None:
        """Count body bytes that came in. Raises `ProtocolError` if they are more than was granted."""
        self._received += size
        if self._received > self._granted:
            raise ProtocolError(Code.FLOW_CONTROL, "more body bytes than were granted")
        if 0 <= self._used_up < self._received:
            taken_s = now - self._asked_at
            self._round_trip_s = min(taken_s, self._round_trip_s or taken_s)
            self._used_up = -1

    def consume(self, size: int, now: float) -> int:
        """Count body bytes that the reader took. Return the credit to grant now: 0 if not worth a frame."""
        self._consumed += size
        if (self._consumed + self._window - self._granted) * 2 < self._window:
            return 0
        self._window = min(self._window * 2, self._widest())
        due = self._consumed + self._window - self._granted
        if due <= 0:
            return 0
        if self._used_up < 0:
            self._used_up, self._asked_at = self._granted, now
        self._granted += due
        return due

    def _widest(self) -> int:
        return max(NEAR_CREDIT, min(int(self._round_trip_s * FAST), MAX_CREDIT))
