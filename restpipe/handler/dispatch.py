"""Takes the events of a worker, as many at once as it said it can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from restpipe.errors import Code, Delivered
from restpipe.handler.capacity import Capacity
from restpipe.handler.handling import Handling, Workplace
from restpipe.handler.incoming import Bodies, IncomingEvent
from restpipe.handler.registry import Registry
from restpipe.handler.threads import ThreadPool
from restpipe.host.stats import RECEIVE, Stats

OVERLOAD_FACTOR = 4
"""Events under way, in capacities, past which they are refused: the daemon does not heed what it is told."""

_log = logging.getLogger(__name__)


class Dispatcher:
    """Answers events with the methods of one handler. Belongs to the loop's thread."""

    def __init__(
        self,
        registry: Registry,
        *,
        threads: int,
        concurrency: int,
        max_body_bytes: int,
        stats: Stats,
        on_capacity: Callable[[int], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._stats = stats
        self._on_capacity = on_capacity
        self._capacity = Capacity(
            threads,
            concurrency,
            plain=any(not method.is_async for method in registry),
            async_=any(method.is_async for method in registry),
        )
        slots = _AsyncSlots(concurrency, self._async_changed)
        self._pool = ThreadPool(threads, self._loop, self._stuck_changed)
        self._place = Workplace(self._loop, registry, self._pool, slots, stats, Bodies(max_body_bytes))
        self._most = OVERLOAD_FACTOR * (threads + concurrency)
        self._under_way: set[asyncio.Task[None]] = set()
        self.handled = 0

    @property
    def capacity(self) -> int:
        """Events that can be taken at once."""
        return self._capacity.told

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def take(self, exchange: IncomingEvent) -> None:
        """An event came in."""
        self._stats.tick(RECEIVE)
        if len(self._under_way) >= self._most:
            exchange.reset(Code.OVERLOADED, "the handler worker has too many events", Delivered.NO)
            return
        task = self._loop.create_task(Handling(self._place, exchange).run())
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    async def run_in_thread(self, function: Callable[[], object]) -> object:
        """For plain hooks: they must not hold up the loop either."""
        return await self._pool.run(function)

    async def wait_idle(self) -> None:
        """Until nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def close(self) -> None:
        """Gives up what is still under way, and lets the threads go."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        self._pool.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.handled += 1
        self._under_way.discard(task)

    def _async_changed(self, under_way: int) -> None:
        self._tell(self._capacity.async_changed(under_way))

    def _stuck_changed(self, stuck: int) -> None:
        if stuck:
            _log.warning("%d threads are held by events that nobody waits for any more", stuck)
        else:
            _log.info("no thread is held any more by an event that nobody waits for")
        self._tell(self._capacity.stuck_changed(stuck))

    def _tell(self, capacity: int | None) -> None:
        if capacity is not None and self._on_capacity is not None:
            self._on_capacity(capacity)


class _AsyncSlots:
    """Bounds async methods, and says how many are under way."""

    def __init__(self, count: int, on_change: Callable[[int], None]) -> None:
        self._free = asyncio.Semaphore(count)
        self._on_change = on_change
        self._taken = 0

    async def __aenter__(self) -> None:
        await self._free.acquire()
        self._taken += 1
        self._on_change(self._taken)

    async def __aexit__(self, *_: object) -> None:
        self._free.release()
        self._taken -= 1
        self._on_change(self._taken)
