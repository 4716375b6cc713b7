"""Takes the events of a worker, as many at once as it said it can."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from restpipe.errors import Code, Delivered, Reset, StreamReset
from restpipe.handler.capacity import Capacity
from restpipe.handler.context import EventDeadline
from restpipe.handler.handling import Handling, answer_without_method, give_up
from restpipe.handler.incoming import Bodies, peer_of
from restpipe.handler.registry import Registry
from restpipe.handler.sending import send_short
from restpipe.handler.streaming import Pieces
from restpipe.handler.target import parse_target
from restpipe.handler.threads import Job, ThreadPool
from restpipe.host.stats import RECEIVE, RECEIVE_HANDLE_TIME, Stats
from restpipe.protocol.messages import MAX_REPLIES
from restpipe.protocol.shares import Shares
from restpipe.transport.exchange import Exchange
from restpipe.transport.timer import DeadlineQueue

OVERLOAD_FACTOR = 4
"""Unanswered events, in capacities, past which more are refused: the daemon does not heed what it is told."""
REPLIES_FACTOR = 2
"""Long replies that are being sent, in all that the daemon gives: it shares them by peer, and comes first."""
CLOSE_S = 1.0
"""For what is given up at the end of the worker."""
MOST_NAMED = 5
SLOW_S = 0.25
"""A thread that has read one stream for so long is no place for other events."""

_NO_THREAD = Reset(
    Code.OVERLOADED,
    "the threads that are left are for others: this peer's events hold too many",
    Delivered.NO,
)

_log = logging.getLogger(__name__)


class Dispatcher:
    """Answers events with the methods of one handler. Belongs to the loop's thread.

    A place (a thread, or one of `concurrency` for async methods) is held by work: an event has it from the
    call of its method until its reply begins. A long reply that waits for its reader is one of `replies`.
    """

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
        self.loop = asyncio.get_running_loop()
        self.stats = stats
        self.pool = ThreadPool(threads, self.loop, self._stuck_changed)
        self.bodies = Bodies(max_body_bytes)
        self.deadlines = DeadlineQueue(self.loop, EventDeadline.reach)
        self.replies = Shares(REPLIES_FACTOR * (threads + concurrency + MAX_REPLIES))
        """Long replies that are being sent, by peer."""
        self.handlings: set[Handling] = set()
        """Events in flight."""
        self.handled = 0
        self._registry = registry
        self._on_capacity = on_capacity
        self._capacity = Capacity(
            threads,
            concurrency,
            plain=any(not method.is_async for method in registry),
            async_=any(method.is_async for method in registry),
        )
        self._mixed = self._capacity.mixed
        self._most = OVERLOAD_FACTOR * (threads + concurrency)
        self._concurrency = concurrency
        self._running = 0
        """Async methods that hold a place."""
        self._queue: OrderedDict[Handling, None] = OrderedDict()
        """Events that wait for one."""
        self._idle: asyncio.Event | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._deaf: dict[Handling, bool] = {}
        """Events that were given up, whose async methods go on: whether they still hold their places."""
        self.peer: str | None = None
        """Whom the last event came from."""
        self._shared = False
        """Events have come from several peers. One that is alone leaves threads to nobody."""
        self._slow = 0
        """Threads that a stream has held for SLOW_S."""
        self._watching: asyncio.TimerHandle | None = None

    @property
    def capacity(self) -> int:
        """Events that can be taken at once."""
        return self._capacity.told

    @property
    def in_flight(self) -> int:
        """Events that are not answered, or whose replies are still being sent."""
        return len(self.handlings)

    def take(self, exchange: Exchange) -> None:
        """Answer an event that came in, or begin to."""
        self.stats.tick(RECEIVE)
        began = time.monotonic()
        try:
            replies = self.replies
            if (replies.taken or len(self.handlings) >= self._most) and self._refuses(exchange):
                return
            event = exchange.event
            target = parse_target(event.target)
            method = self._registry.find(event.verb, target.noun)
            if method is not None:
                method.check(target.arguments, target.query)
                if self._shared and self.pool.bursts.held and not method.is_async:
                    self._leave_threads(exchange)
                Handling(self, exchange, method, target, began).begin()
                return
            send_short(exchange, answer_without_method(exchange, target, self._registry))
        except Exception as error:
            give_up(exchange, error)
        self.handled += 1
        self.stats.timing(RECEIVE_HANDLE_TIME, time.monotonic() - began)

    async def wait_idle(self) -> None:
        """Return once nothing is in flight."""
        while self.handlings:
            self._idle = self._idle or asyncio.Event()
            self._idle.clear()
            await self._idle.wait()

    async def close(self) -> None:
        """Give up what is in flight, and let the threads go."""
        for handling in list(self.handlings):
            handling.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.wait_idle()
                await asyncio.gather(*self._closing)
        left = [*self.handlings, *self.pool.stuck]
        if left:
            _log.warning("still running, and left behind: %s", _names(left))
        if self._watching is not None:
            self._watching.cancel()
        self.deadlines.close()
        self.pool.close()

    def _refuses(self, exchange: Exchange) -> bool:
        replies = self.replies
        if len(self.handlings) - replies.taken >= self._most:
            exchange.reset(Code.OVERLOADED, "the handler worker has too many events", Delivered.NO)
            return True
        if replies.taken and not replies.has_room(peer_of(exchange)):
            detail = f"{replies.taken} replies wait for their readers"
            exchange.reset(Code.OVERLOADED, detail, Delivered.NO)
            return True
        return False

    def _leave_threads(self, exchange: Exchange) -> None:
        """Raises `StreamReset` (OVERLOADED) if the threads that are left are for other peers."""
        if not self.pool.bursts.leaves_thread_to(peer_of(exchange), self.loop.time() - SLOW_S):
            raise StreamReset(_NO_THREAD)

    # For the events in flight.

    def peer_came(self, peer: str) -> None:
        """Note that events come from another peer than the last."""
        self._shared = self.peer is not None
        self.peer = peer

    def enter(self, handling: Handling) -> None:
        """Have an event handled in the loop as soon as there is a place for its async method."""
        if self._running >= self._concurrency:
            self._queue[handling] = None
            return
        self._running += 1
        if self._mixed and (capacity := self._capacity.async_changed(self._running)) is not None:
            self._tell(capacity)
        handling.spawn(holds_place=True)

    def leave(self) -> None:
        """A place is free again: it is for the event that has waited longest."""
        if self._queue:
            handling, _ = self._queue.popitem(last=False)
            handling.spawn(holds_place=True)
            return
        self._running -= 1
        if self._mixed and (capacity := self._capacity.async_changed(self._running)) is not None:
            self._tell(capacity)

    def withdraw(self, handling: Handling) -> None:
        """An event waits for a place no more."""
        del self._queue[handling]

    def ended(self, handling: Handling) -> None:
        """An event is not in flight any more."""
        self.handled += 1
        self.handlings.discard(handling)
        if self._idle is not None and not self.handlings:
            self._idle.set()

    def note_deaf(self, handling: Handling, *, holds_place: bool) -> bool:
        """Note that an async method ignores its cancellation. True if its place is to be given back.

        So are as many as run at once: past that, those that are stuck keep their places.
        """
        gives_back = len(self._deaf) < self._concurrency
        self._deaf[handling] = holds_place and not gives_back
        self._stuck_changed()
        return gives_back

    def note_ended(self, handling: Handling) -> None:
        """Note that it has ended, maybe after all."""
        if self._deaf.pop(handling, None) is not None:
            self._stuck_changed()

    def close_stream(self, source: Pieces) -> None:
        """Close a stream that nothing will be sent of."""
        task = self.loop.create_task(source.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # What the daemon is told.

    def _stuck_changed(self) -> None:
        threads, tasks = self.pool.stuck, self._deaf
        if threads:
            _log.warning(
                "%d threads are held by events that were given up: %s", len(threads), _names(threads)
            )
        if tasks:
            _log.warning("%d async methods go on though they were cancelled: %s", len(tasks), _names(tasks))
        if not threads and not tasks:
            _log.info("nothing goes on any more for an event that was given up")
        self._tell_held()

    def watch_threads(self) -> None:
        """Look after the threads that streams hold, for as long as replies are being sent."""
        if self._watching is None:
            self._watching = self.loop.call_later(SLOW_S, self._look_at_threads)

    def _look_at_threads(self) -> None:
        held = self.pool.bursts.held_since(self.loop.time() - SLOW_S)
        slow = sum(job not in self.pool.stuck for job in held)
        if slow != self._slow:
            self._slow = slow
            self._tell_held()
        self._watching = None
        if slow or self.replies.taken:
            self.watch_threads()

    def _tell_held(self) -> None:
        threads = len(self.pool.stuck) + self._slow
        capacity = self._capacity.held_changed(threads, sum(self._deaf.values()))
        if capacity is not None:
            self._tell(capacity)

    def _tell(self, capacity: int) -> None:
        if self._on_capacity is not None:
            self._on_capacity(capacity)


def _names(jobs: Iterable[Job]) -> str:
    counted = Counter(job.name for job in jobs).most_common(MOST_NAMED)
    return ", ".join(name if count == 1 else f"{name} ({count} times)" for name, count in counted)
