"""The threads that plain methods run in.

Handing a call to a thread and its result back must cost little, so not every call wakes a thread: one that is
awake takes the next call by itself. A thread that takes a call while more are waiting wakes one other
before it begins, for the call may block. So short calls that come in a bunch are done by one or two
threads, and blocking ones still spread over all of them.

A job that comes back again and again, as a generator does, finds its own thread: that one stays for it, and
another is started for other work. Past a bound, the thread that has stayed for longest is taken for that.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from restpipe.handler.bursts import Bursts
from restpipe.host import forks

STAYING = 128
"""Threads that may stay for jobs, beside those that work."""

ResultT = TypeVar("ResultT")
_log = logging.getLogger(__name__)


class Job(Protocol):
    """What a thread does. One object does one thing at a time, and may be handed over again afterwards."""

    running: bool
    """Its work has begun and has not ended. The pool's to set."""
    abandoned: bool
    """Nothing waits for it any more, but its work goes on. The pool's to set."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    def work(self) -> bool:
        """Do it, in a thread. Must not raise. True if it will be handed over again, for the same thread."""

    def done(self) -> None:
        """Its work has ended: called in the loop, once for each `work`. Must not raise."""


class _Thread:
    """One thread of the pool, as the others see it."""

    __slots__ = ("job", "wake")

    def __init__(self) -> None:
        self.job: Job | None = None
        """What it is woken for; None if it is to look for work."""
        self.wake = threading.Lock()
        """Released to wake it."""
        self.wake.acquire()


class ThreadPool:
    """At most `size` daemon threads that work, and STAYING more that stay for a job.

    They are started as they are needed. Its methods belong to the loop's thread.
    """

    def __init__(
        self, size: int, loop: asyncio.AbstractEventLoop, on_stuck: Callable[[], None] | None = None
    ) -> None:
        self.bursts: Bursts[Job] = Bursts(size, self.submit)
        """Which threads are not free for methods, and which streams wait for one."""
        self._size = size
        self._loop = loop
        self._on_stuck = on_stuck
        self._in_child = forks.is_child
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._idle: list[_Thread] = []
        self._staying: dict[Job, _Thread] = {}
        """Threads that stay for a job; the one that has for longest comes first."""
        self._started = 0
        self._one_is_waking = False
        self._closed = False
        self._done: deque[Job] = deque()
        self._delivery_scheduled = False
        self.stuck: dict[Job, None] = {}
        """Abandoned jobs that threads have not come back from."""

    def submit(self, job: Job) -> None:
        """Have a job done when its turn comes."""
        with self._lock:
            job.abandoned = False
            thread = self._staying.pop(job, None) if self._staying else None
            if thread is not None:
                thread.job = job
                wake: Callable[[], object] | None = thread.wake.release
            else:
                self._jobs.append(job)
                # The thread that is still at it sees that there is more.
                wake = None if job.running else self._choose_thread()
        if wake is not None:
            wake()

    def abandon(self, job: Job) -> bool:
        """Give up a job that was submitted and is not done. True if its work has not begun and never will.

        Work that has begun goes on by itself, as `stuck`.
        """
        with self._lock:
            if not job.running:
                try:
                    self._jobs.remove(job)
                except ValueError:
                    return False  # its work has just ended
                return True
            job.abandoned = True
        self.stuck[job] = None
        if self._on_stuck is not None:
            self._on_stuck()
        return False

    def pass_on(self, job: Job, to: Job) -> None:
        """Have the thread that stays for a job stay for another one instead."""
        with self._lock:
            thread = self._staying.pop(job, None)
            if thread is not None:
                self._staying[to] = thread

    async def run(self, function: Callable[[], ResultT]) -> ResultT:
        """Call a function in a thread and a context of its own; give its result or raise what it raised.

        When cancelled, a call that has not begun never will; one that has goes on by itself, as `stuck`.
        """
        call = _Call(function, self._loop.create_future())
        self.submit(call)
        try:
            await call.future
        except asyncio.CancelledError:
            self.abandon(call)
            raise
        if call.error is not None:
            try:
                raise call.error
            finally:
                call.error = None  # its traceback leads back to the call
        result: ResultT = call.result
        return result

    def close(self) -> None:
        """Let the threads end: idle ones now, the others when all is done that was asked for."""
        with self._lock:
            self._closed = True
            idle, self._idle = [*self._idle, *self._staying.values()], []
            self._staying.clear()
        for thread in idle:
            thread.wake.release()

    def _deliver(self) -> None:
        self._delivery_scheduled = False
        # Not those that threads add meanwhile: the loop has other work, too.
        for _ in range(len(self._done)):
            job = self._done.popleft()
            if job.abandoned:
                self.stuck.pop(job, None)
                if self._on_stuck is not None:
                    self._on_stuck()
            job.done()

    # In any thread.

    def _choose_thread(self) -> Callable[[], object] | None:
        """With the lock held: how to wake one more thread, None if that makes no sense."""
        if self._one_is_waking or self._closed:
            return None
        if self._idle:
            self._one_is_waking = True
            return self._idle.pop().wake.release
        if self._started - min(len(self._staying), STAYING) < self._size:
            self._one_is_waking = True
            self._started += 1
            return self._start_thread
        if len(self._staying) > STAYING:
            self._one_is_waking = True
            return self._staying.pop(next(iter(self._staying))).wake.release
        return None

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name=f"handler-{self._started}", daemon=True).start()
        except RuntimeError as error:
            # The host has no more threads to give: those that are there do it all.
            _log.warning("%s; %d handler threads run", error, self._started - 1)
            with self._lock:
                self._started -= 1
                self._one_is_waking = bool(self._staying)
                thread = self._staying.pop(next(iter(self._staying))) if self._staying else None
            if thread is not None:
                thread.wake.release()

    # In the pool's threads.

    def _work(self) -> None:
        thread = _Thread()
        woken = True
        while True:
            wake = job = None
            with self._lock:
                if thread.job is not None:
                    job, thread.job = thread.job, None
                    job.running = True
                else:
                    if woken:
                        self._one_is_waking = False
                    if self._jobs:
                        job = self._jobs.popleft()
                        job.running = True
                        wake = self._choose_thread() if self._jobs else None
                    elif self._closed:
                        return
                    elif self._started - len(self._staying) > self._size:
                        self._started -= 1
                        return
                    else:
                        self._idle.append(thread)
                woken = False
            if job is None:
                thread.wake.acquire()
                woken = True
                continue
            if wake is not None:
                wake()
            again = stays = False
            try:
                again = job.work()
            except BaseException:
                _log.exception("a job of a handler thread failed")
            if forks.is_child is not self._in_child:
                self.end_child()
            if again:
                stays = self._stay(job, thread)
            else:
                job.running = False
            self._done.append(job)
            if not self._delivery_scheduled:
                self._delivery_scheduled = True
                try:  # noqa: SIM105 - which would cost three calls an event
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:
                    pass  # the loop is closed: nothing waits
            if stays:
                thread.wake.acquire()
                woken = True

    def end_child(self, error: BaseException | None = None) -> None:
        """End this process if the user's code has forked it, and it comes back where its parent will go on.

        Its status is what `error` says, if that is a SystemExit; otherwise 1.
        """
        if forks.is_child is self._in_child:
            return
        status = 1
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            status = (error.code or 0) & 0xFF
        os._exit(status)

    def _stay(self, job: Job, thread: _Thread) -> bool:
        """Have a thread stay for a job. False if it is to go on with that, or with other work, at once."""
        with self._lock:
            job.running = False
            if job in self._jobs:
                # It has been handed over already.
                self._jobs.remove(job)
                thread.job = job
                return False
            if self._closed or (self._jobs and len(self._staying) >= STAYING):
                return False
            self._staying[job] = thread
            wake = self._choose_thread() if self._jobs else None
        if wake is not None:
            wake()
        return True


class _Call:
    """A function to call, and a future that is set when that has been done."""

    __slots__ = ("abandoned", "error", "function", "future", "result", "running")

    def __init__(self, function: Callable[[], Any], future: asyncio.Future[None]) -> None:
        self.function = function
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None
        self.running = False
        self.abandoned = False

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", "a function")

    def work(self) -> bool:
        try:
            self.result = contextvars.copy_context().run(self.function)
        except BaseException as error:
            self.error = error
        return False

    def done(self) -> None:
        if self.future.done():
            self.error = None  # as in `run`, which has been cancelled
        else:
            self.future.set_result(None)
