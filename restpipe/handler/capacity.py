"""How many events a worker says it can take. Pure.

Plain methods are bounded by threads, async ones by a number of their own, and nobody knows beforehand which
of them the next event wants. So a handler that has both kinds offers as many events as it has threads, and on
top of these as many as there are async ones under way: what comes next can begin at once, whatever it is.
"""

from __future__ import annotations


class Capacity:
    """Counts what is under way. Each method returns the capacity to tell the daemon, None if unchanged."""

    def __init__(self, threads: int, concurrency: int, *, plain: bool, async_: bool) -> None:
        self._threads = threads if plain or not async_ else 0
        self._concurrency = concurrency if async_ else 0
        self._mixed = plain and async_
        # Every event would cost a frame otherwise.
        self._step = max(1, threads // 2)
        self._async_under_way = 0
        self._stuck = 0
        self.told = self._now()

    def async_changed(self, under_way: int) -> int | None:
        """So many async methods are under way."""
        self._async_under_way = under_way
        return self._change() if self._mixed else None

    def stuck_changed(self, threads: int) -> int | None:
        """So many threads are held by calls that nobody waits for any more."""
        self._stuck = threads
        return self._change()

    def _now(self) -> int:
        threads = max(0, self._threads - self._stuck)
        if not self._mixed:
            return threads + self._concurrency
        under_way = min(self._async_under_way, self._concurrency)
        return threads + under_way // self._step * self._step

    def _change(self) -> int | None:
        now = self._now()
        if now == self.told:
            return None
        self.told = now
        return now
