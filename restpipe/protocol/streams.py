"""Streams of one link: who is sent next, and how much each may still send.

Credit is counted in body bytes, and 16 more for each DATA frame: many tiny frames cost memory too.
"""

from __future__ import annotations

from collections import deque

from restpipe.errors import Code, ProtocolError
from restpipe.protocol.frames import Kind

INITIAL_CREDIT = 65536
"""Body bytes that each side of a new stream may send before it is granted more."""
MAX_CREDIT = 1 << 20
"""Body bytes of one stream that may be under way, wherever they wait."""
NEAR_CREDIT = 1 << 18
"""What of it a stream is granted at most over the shortest of ways."""
FAST = 1 << 27
"""Bytes a second that a stream may reach over a longer way, within MAX_CREDIT."""

MAX_DROPPED = 64
"""Turns of dropped streams that are kept whatever happens."""

_OPENING = frozenset((Kind.EVENT, Kind.ORIGIN))


class _Line:
    """The frames of one stream that wait, and their bytes."""

    __slots__ = ("frames", "size", "stream")

    def __init__(self, stream: int, frame: bytes) -> None:
        self.stream = stream
        self.frames = deque((frame,))
        self.size = len(frame)


class SendQueue:
    """Encoded frames that wait to be sent: one of each stream in turn, so that none stands before another."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}
        self._turns: deque[_Line] = deque()
        self._dropped = 0
        """Lines among the turns that were dropped, and are empty."""
        self.size = 0
        """Bytes that wait."""

    def __bool__(self) -> bool:
        return bool(self._lines)

    def push(self, stream: int, frame: bytes) -> None:
        """Puts a frame behind the others of its stream."""
        size = len(frame)
        self.size += size
        line = self._lines.get(stream)
        if line is None:
            line = self._lines[stream] = _Line(stream, frame)
            self._turns.append(line)
        else:
            line.frames.append(frame)
            line.size += size

    def take(self, budget: int) -> list[bytes]:
        """Removes frames worth about `budget` bytes: whole frames, the last of which may pass it."""
        lines, turns = self._lines, self._turns
        taken: list[bytes] = []
        while turns and budget > 0:
            line = turns.popleft()
            if not line.frames:
                self._dropped -= 1
                continue
            frame = line.frames.popleft()
            taken.append(frame)
            size = len(frame)
            budget -= size
            self.size -= size
            line.size -= size
            if line.frames:
                turns.append(line)
            else:
                del lines[line.stream]
        return taken

    def drop(self, stream: int) -> bool:
        """Removes a stream's frames. True when the first was among them: the other side never saw it."""
        opening = self.holds_opening(stream)
        line = self._lines.pop(stream, None)
        if line is not None:
            self.size -= line.size
            line.frames.clear()
            self._forget_dropped()
        return opening

    def _forget_dropped(self) -> None:
        # Taking a turn out of the middle costs time for all: done once for many.
        self._dropped += 1
        if self._dropped > len(self._lines) + MAX_DROPPED:
            self._turns = deque(line for line in self._turns if line.frames)
            self._dropped = 0

    def holds_opening(self, stream: int) -> bool:
        """Whether the frame that opens this stream still waits here."""
        line = self._lines.get(stream)
        return line is not None and line.frames[0][0] in _OPENING

    def waiting(self, stream: int) -> int:
        """Bytes of one stream that wait."""
        line = self._lines.get(stream)
        return 0 if line is None else line.size


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
    """How many body bytes the other side may still send on one stream. Times are in seconds, and monotonic.

    The window begins small, since most bodies are, and doubles with each grant while the reader keeps up, as
    far as the way is long: what is granted beyond what fills it would stand in queues before everybody else's
    frames. How long the way is, is told by the shortest time from a grant to the first byte that needed it.
    """

    __slots__ = ("_asked_at", "_consumed", "_granted", "_received", "_round_trip_s", "_used_up", "_window")

    def __init__(self) -> None:
        self._window = INITIAL_CREDIT
        self._granted = INITIAL_CREDIT
        self._received = 0
        self._consumed = 0
        self._round_trip_s: float | None = None
        self._asked_at = 0.0
        """When the grant was made whose use is waited for."""
        self._used_up: int | None = None
        """Bytes granted before it: one more, and it has come to use. None: no such grant is out."""

    def receive(self, size: int, now: float) -> None:
        """Body bytes that came in; `ProtocolError` when they are more than was granted."""
        self._received += size
        if self._received > self._granted:
            raise ProtocolError(Code.FLOW_CONTROL, "more body bytes than were granted")
        if self._used_up is not None and self._received > self._used_up:
            taken_s = now - self._asked_at
            self._round_trip_s = taken_s if self._round_trip_s is None else min(taken_s, self._round_trip_s)
            self._used_up = None

    def consume(self, size: int, now: float) -> int:
        """Body bytes that the reader took: the credit to grant now, 0 while it is not worth a frame."""
        self._consumed += size
        if (self._consumed + self._window - self._granted) * 2 < self._window:
            return 0
        self._window = min(self._window * 2, self._widest())
        due = self._consumed + self._window - self._granted
        if due <= 0:
            return 0
        if self._used_up is None:
            self._used_up, self._asked_at = self._granted, now
        self._granted += due
        return due

    def _widest(self) -> int:
        filling = int((self._round_trip_s or 0.0) * FAST)
        return max(NEAR_CREDIT, min(filling, MAX_CREDIT))
