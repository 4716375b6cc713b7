"""One timer of the loop for all deadlines of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic

from restpipe.protocol.deadlines import Deadlines, WaitsT


class DeadlineQueue(Generic[WaitsT]):
    """Calls back for each entry that still waits when its deadline comes. Belongs to its loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[WaitsT], None]) -> None:
        self._loop = loop
        self._due = due
        """What to do with an entry. It may add entries, the same one too."""
        self._deadlines: Deadlines[WaitsT] = Deadlines()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at = 0.0

    def add(self, at: float, entry: WaitsT) -> None:
        """Call back for `entry` at `at`, a time of the loop's clock, unless it has ceased to wait by then."""
        if self._deadlines.add(at, entry):
            self._arm(at)

    def close(self) -> None:
        """Forget all entries."""
        self._deadlines = Deadlines()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            if self._armed_at <= at:
                return
            self._timer.cancel()
        self._armed_at = at
        self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        try:
            for entry in self._deadlines.pop_due(self._loop.time()):
                self._due(entry)
        finally:
            # Whatever one entry's end raises, the others have theirs.
            next_at = self._deadlines.next_at
            if next_at is not None:
                self._arm(next_at)
