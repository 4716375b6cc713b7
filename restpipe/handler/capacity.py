"""How many events a worker says it can take. Pure.

Plain methods are bounded by threads, async ones by a number of their own, and which of them the next event
wants is not known beforehand. So a handler that has both kinds offers as many events as it has threads, and
on top of these as many as async ones are running: what comes next can begin at once, whatever it is.
"""

from __future__ import annotations


class Capacity:
    """Counts what is in flight. Each method returns the capacity to tell the daemon, None if unchanged."""

    def __init__(self, threads: int, concurrency: int, *, plain: bool, async_: bool) -> None:
        self._threads = threads if plain or not async_ else 0
        self._concurrency = concurrency if async_ else 0
        self.mixed = plain and async_
        """The handler has both kinds of methods: only then `async_changed` can change anything."""
        # Every event would cost a frame otherwise.
        self._step = max(1, threads // 2)
        self._steps = 0
        """Async methods that are running, in whole steps."""
        self._held = 0
        self._lost = 0
        self.told = self._now()

    def async_changed(self, running: int) -> int | None:
        """So many async methods are running."""
        steps = min(running, self._concurrency) // self._step
        if steps == self._steps:
            return None
        self._steps = steps
        return self._change() if self.mixed else None

    def held_changed(self, threads: int, places: int) -> int | None:
        """So many threads, and places of async methods, are held by what is no event to be answered."""
        self._held = threads
        self._lost = places
        return self._change()

    def _now(self) -> int:
        threads = max(0, self._threads - self._held)
        if self.mixed:
            return threads + max(0, self._steps * self._step - self._lost)
        return threads + max(0, self._concurrency - self._lost)

    def _change(self) -> int | None:
        now = self._now()
        if now == self.told:
            return None
        self.told = now
        return now
