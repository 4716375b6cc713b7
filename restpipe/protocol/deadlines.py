"""What is to happen when time runs out: many deadlines, of which most are never reached. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

MIN_COMPACTED: Final = 64
"""Deadlines that are kept, whether or not their entries still wait."""


class Waits(Protocol):
    """What has a deadline."""

    @property
    def waits(self) -> bool:
        """The deadline still matters."""


WaitsT = TypeVar("WaitsT", bound=Waits)


class Deadlines(Generic[WaitsT]):
    """Entries by the time of their deadlines. Those that wait no more are skipped; they are at most as many
    as those that do, or MIN_COMPACTED.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, WaitsT]] = []
        self._count = 0
        self._compact_at = MIN_COMPACTED

    def add(self, at: float, entry: WaitsT) -> bool:
        """Add an entry with its deadline. True if that is the earliest of all."""
        heap = self._heap
        if len(heap) >= self._compact_at:
            heap = self._compact()
        self._count += 1
        # The count keeps entries, which have no order, from being compared.
        heapq.heappush(heap, (at, self._count, entry))
        return heap[0][2] is entry

    def _compact(self) -> list[tuple[float, int, WaitsT]]:
        self._heap = [item for item in self._heap if item[2].waits]
        heapq.heapify(self._heap)
        self._compact_at = max(MIN_COMPACTED, 2 * len(self._heap))
        return self._heap

    @property
    def next_at(self) -> float | None:
        """The earliest deadline of an entry that waits; None if none does."""
        heap = self._heap
        while heap and not heap[0][2].waits:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> Iterator[WaitsT]:
        """Remove and yield the entries whose deadlines have come, one by one, as long as they wait."""
        while (at := self.next_at) is not None and at <= now:
            yield heapq.heappop(self._heap)[2]
