"""Queues of events that wait: for a peer to connect, or for a place with a handler worker. Pure.

Each opener (a peer, or a web worker) has a line of its own within, and the openers take turns: however much
one sends, it delays another by one event a turn.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

from restpipe.errors import Code

PATIENCE: Final = 0.25
"""Part of its time that an event may spend in a queue: one that would wait longer is refused at once."""
WARM_UP: Final = 5
"""Departures before the pace of a queue is known."""
SMOOTHING: Final = 0.1

MARGIN: Final = 0.1
MAX_MARGIN_S: Final = 0.25

OpenerT = TypeVar("OpenerT")
EntryT = TypeVar("EntryT")


def give_up_at(now: float, timeout_s: float) -> float:
    """Return when to answer a waiting event: a little before its deadline, so that the answer is in time."""
    return now + timeout_s - min(MAX_MARGIN_S, timeout_s * MARGIN)


class WaitingQueue(Generic[OpenerT, EntryT]):
    """At most `limit` entries: of each opener first come, first served, and the openers by turns."""

    def __init__(self, limit: int, code: Code, detail: str) -> None:
        self.limit = limit
        self.code = code
        """What an event is told that waited here until its deadline."""
        self.detail = detail
        self._lines: OrderedDict[OpenerT, OrderedDict[EntryT, float]] = OrderedDict()
        """The entries of each opener with their deadlines. The opener whose turn it is comes first."""
        self.count = 0
        """How many entries are here."""
        self._departed_at: float | None = None
        self._departures = 0
        self._interval_s = 0.0

    def __len__(self) -> int:
        return self.count

    @property
    def openers(self) -> int:
        """How many openers have entries here."""
        return len(self._lines)

    @property
    def full(self) -> bool:
        return self.count >= self.limit

    def add(self, opener: OpenerT, entry: EntryT, deadline: float) -> None:
        if not self.count:
            self.stall()
        line = self._lines.get(opener)
        if line is None:
            line = self._lines[opener] = OrderedDict()
        line[entry] = deadline
        self.count += 1

    def remove(self, opener: OpenerT, entry: EntryT) -> None:
        """Remove an entry. Does nothing if it is not here."""
        line = self._lines.get(opener)
        if line is not None and line.pop(entry, None) is not None:
            self._removed(opener, line)

    def _removed(self, opener: OpenerT, line: OrderedDict[EntryT, float]) -> None:
        self.count -= 1
        if not line:
            del self._lines[opener]

    def displace(self, opener: OpenerT) -> EntryT | None:
        """Remove and return an entry to make room for `opener`: the newest of the opener that has the most.

        None if no opener has at least two more than this one: then it is as badly off as all others.
        """
        own = self._lines.get(opener)
        fewest = 2 + (len(own) if own is not None else 0)
        if self.count < fewest:
            return None
        longest = max(self._lines, key=self._waiting)
        line = self._lines[longest]
        if len(line) < fewest:
            return None
        entry, _ = line.popitem(last=True)
        self._removed(longest, line)
        return entry

    def _waiting(self, opener: OpenerT) -> int:
        return len(self._lines[opener])

    # Whose turn it is.

    def turn(self) -> tuple[OpenerT, EntryT]:
        """Return the opener whose turn it is, and its oldest entry. The queue must not be empty."""
        opener = next(iter(self._lines))
        return opener, next(iter(self._lines[opener]))

    def pass_turn(self) -> None:
        """The opener whose turn it is may have nothing now: it is the turn of the next."""
        self._lines.move_to_end(next(iter(self._lines)))

    def pop(self) -> EntryT:
        """Remove and return the entry whose turn it is; its opener goes to the end. KeyError if empty."""
        opener, line = self._lines.popitem(last=False)
        entry, _ = line.popitem(last=False)
        self.count -= 1
        if line:
            self._lines[opener] = line
        return entry

    # The pace.

    def is_too_long(self, opener: OpenerT, timeout_s: float) -> bool:
        """Tell whether a new entry of `opener` would spend too much of its time here, at the current pace."""
        if self._departures <= WARM_UP:
            return False
        line = self._lines.get(opener)
        own, others = (len(line), len(self._lines) - 1) if line is not None else (0, len(self._lines))
        ahead = min(self.count, own + (own + 1) * others)
        return ahead * self._interval_s > timeout_s * PATIENCE

    def hopeless(self, opener: OpenerT, now: float) -> EntryT | None:
        """Return the last entry of `opener` if at the current pace its turn comes after its deadline."""
        line = self._lines.get(opener)
        if line is None or self._departures <= WARM_UP:
            return None
        entry = next(reversed(line))
        ahead = min(self.count, len(line) * len(self._lines))
        return entry if now + ahead * self._interval_s > line[entry] else None

    def moved(self, now: float) -> None:
        """An entry has left because its turn had come: a step of the queue's pace."""
        if self._departed_at is not None:
            self._departures += 1
            smoothing = max(SMOOTHING, 1 / self._departures)
            self._interval_s += smoothing * (now - self._departed_at - self._interval_s)
        self._departed_at = now

    def stall(self) -> None:
        """The time until the next departure says nothing about the queue's pace."""
        self._departed_at = None
