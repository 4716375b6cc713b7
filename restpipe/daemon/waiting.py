"""Events that wait: for a peer whose link is down, for a free handler, for a name to be resolved."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from restpipe.errors import Code

if TYPE_CHECKING:
    from restpipe.daemon.router import Route

MIN_COMPACTED = 64
"""Deadlines that are kept, whether or not anybody still waits for them."""
PATIENCE = 0.25
"""Part of its time that an event may spend in a line: who would wait longer is refused at once."""
WARM_UP = 5
"""Departures before a line's pace is known."""
SMOOTHING = 0.1

MARGIN = 0.1
MAX_MARGIN_S = 0.25


def give_up_at(now: float, timeout_s: float) -> float:
    """When a waiting event is answered: a little before its deadline, so that the answer comes in time."""
    return now + timeout_s - min(MAX_MARGIN_S, timeout_s * MARGIN)


class WaitingLine:
    """First come, first served, and at most `limit` of them."""

    def __init__(self, limit: int, code: Code, detail: str) -> None:
        self.limit = limit
        self.code = code
        """What an event is told that waited in vain."""
        self.detail = detail
        self._routes: OrderedDict[Route, None] = OrderedDict()
        self._departed_at: float | None = None
        self._departures = 0
        self._interval_s = 0.0

    def __len__(self) -> int:
        return len(self._routes)

    @property
    def full(self) -> bool:
        return len(self._routes) >= self.limit

    def is_too_long(self, patience_s: float) -> bool:
        """Whether a newcomer with so much time would spend too much of it here, at the pace of this line."""
        return len(self) * self._interval_s > patience_s * PATIENCE and self._departures > WARM_UP

    def hopeless(self, now: float) -> Route | None:
        """Whoever stands last, if his turn would come after his deadline at the pace of this line."""
        if self._departures <= WARM_UP or not self._routes:
            return None
        last = next(reversed(self._routes))
        waiting = last.waiting
        in_vain = waiting is not None and now + len(self) * self._interval_s > waiting.deadline
        return last if in_vain else None

    def add(self, route: Route) -> None:
        if not self._routes:
            self.stall()
        self._routes[route] = None

    def moved(self, now: float) -> None:
        """Somebody's turn has come, and so has a step of the line's pace."""
        if self._departed_at is not None:
            self._departures += 1
            smoothing = max(SMOOTHING, 1 / self._departures)
            self._interval_s += smoothing * (now - self._departed_at - self._interval_s)
        self._departed_at = now

    def stall(self) -> None:
        """The time until the next departure says nothing of the line's pace."""
        self._departed_at = None

    def remove(self, route: Route) -> None:
        """Without effect when it does not stand here."""
        self._routes.pop(route, None)

    def pop(self) -> Route:
        """Removes and returns whoever came first; `KeyError` when nobody waits."""
        route, _ = self._routes.popitem(last=False)
        return route


class Deadlines:
    """When waiting events are to be given up. Entries whose events wait no more are skipped."""

    def __init__(self, arm: Callable[[float], None]) -> None:
        self._arm = arm
        """Told when the next moment has come nearer."""
        self._heap: list[tuple[float, int, Route]] = []
        self._order = itertools.count()
        self._compact_at = MIN_COMPACTED

    def add(self, at: float, route: Route) -> None:
        if len(self._heap) >= self._compact_at:
            self._compact()
        heapq.heappush(self._heap, (at, next(self._order), route))
        if self._heap[0][2] is route:
            self._arm(at)

    def _compact(self) -> None:
        """Most events wait for a moment of their long deadlines: those would pile up here."""
        self._heap = [entry for entry in self._heap if entry[2].waits]
        heapq.heapify(self._heap)
        self._compact_at = max(MIN_COMPACTED, 2 * len(self._heap))

    @property
    def next_at(self) -> float | None:
        """The next moment at which somebody still waits in vain; None when nobody waits."""
        heap = self._heap
        while heap and not heap[0][2].waits:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> list[Route]:
        """Removes and returns those whose time has come."""
        due: list[Route] = []
        while (at := self.next_at) is not None and at <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due
