"""The threads that plain methods run in.

Handing a call to a thread and its result back must cost little, so not every call wakes a thread: one that is
awake takes the next call by itself. A thread that takes a call while more are waiting wakes one other
before it begins, for the call may block. So short calls that come in a bunch are done by one or two
threads, and blocking ones still spread over all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")
_log = logging.getLogger(__name__)


class _Job:
    __slots__ = ("abandoned", "error", "function", "future", "result", "running")

    def __init__(self, function: Callable[[], Any], future: asyncio.Future[None]) -> None:
        self.function = function
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None
        self.running = False
        self.abandoned = False


class ThreadPool:
    """At most `size` daemon threads, started as they are needed. `run` belongs to the loop's thread."""

    def __init__(
        self, size: int, loop: asyncio.AbstractEventLoop, on_stuck: Callable[[int], None] | None = None
    ) -> None:
        self._size = size
        self._loop = loop
        self._on_stuck = on_stuck
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._idle: list[threading.Lock] = []
        self._started = 0
        self._one_is_waking = False
        self._closed = False
        self._done: deque[_Job] = deque()
        self._delivery_scheduled = False
        self.stuck = 0
        """Threads whose call nobody waits for any more, and which have not come back."""

    async def run(self, function: Callable[[], ResultT]) -> ResultT:
        """The function's result, or what it raised.

        When cancelled, a call that has not begun never will; one that has goes on by itself, as `stuck`.
        """
        job = _Job(function, self._loop.create_future())
        self._submit(job)
        try:
            await job.future
        except asyncio.CancelledError:
            self._abandon(job)
            raise
        if job.error is not None:
            try:
                raise job.error
            finally:
                job.error = None  # its traceback leads back here
        result: ResultT = job.result
        return result

    def submit(self, function: Callable[[], object]) -> None:
        """Has it run by and by; it must see to its errors itself."""
        self._submit(_Job(function, self._loop.create_future()))

    def close(self) -> None:
        """Idle threads end now, the others when all is done that was asked for."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for sleeper in idle:
            sleeper.release()

    # In the loop's thread.

    def _submit(self, job: _Job) -> None:
        with self._lock:
            self._jobs.append(job)
            wake = self._choose_thread()
        if wake is not None:
            wake()

    def _abandon(self, job: _Job) -> None:
        with self._lock:
            job.abandoned = True
            if not job.running:
                with contextlib.suppress(ValueError):
                    self._jobs.remove(job)
                return
        self._count_stuck(1)

    def _count_stuck(self, change: int) -> None:
        self.stuck += change
        if self._on_stuck is not None:
            self._on_stuck(self.stuck)

    def _deliver(self) -> None:
        self._delivery_scheduled = False
        while self._done:
            job = self._done.popleft()
            if not job.future.done():
                job.future.set_result(None)
            elif job.abandoned:
                self._count_stuck(-1)

    # In any thread.

    def _choose_thread(self) -> Callable[[], object] | None:
        """With the lock held: how to wake one more thread, if that makes sense."""
        if self._one_is_waking or self._closed:
            return None
        if self._idle:
            self._one_is_waking = True
            return self._idle.pop().release
        if self._started < self._size:
            self._one_is_waking = True
            self._started += 1
            return self._start_thread
        return None

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name=f"handler-{self._started}", daemon=True).start()
        except RuntimeError as error:
            # The host has no more threads to give: those that are there do it all.
            _log.warning("%s; %d handler threads run", error, self._started - 1)
            with self._lock:
                self._started -= 1
                self._one_is_waking = False

    # In the pool's threads.

    def _work(self) -> None:
        sleeper = threading.Lock()
        sleeper.acquire()
        woken = True
        while True:
            wake = job = None
            with self._lock:
                if woken:
                    self._one_is_waking = woken = False
                if self._jobs:
                    job = self._jobs.popleft()
                    job.running = True
                    wake = self._choose_thread() if self._jobs else None
                elif self._closed:
                    return
                else:
                    self._idle.append(sleeper)
            if job is None:
                sleeper.acquire()
                woken = True
                continue
            if wake is not None:
                wake()
            self._do(job)
            del job, wake

    def _do(self, job: _Job) -> None:
        try:
            job.result = job.function()
        except BaseException as error:
            job.error = error
        self._done.append(job)
        if not self._delivery_scheduled:
            self._delivery_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._deliver)
