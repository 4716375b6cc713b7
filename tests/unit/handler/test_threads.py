"""The threads that plain methods run in."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from restpipe.handler import threads
from restpipe.handler.threads import ThreadPool

Run = Callable[[Awaitable[object]], object]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]


class Noting:
    """A job that says in which threads it was done."""

    name = "noting"
    running = abandoned = False

    def __init__(self, function: Callable[[], object] = lambda: None) -> None:
        self.function = function
        self.worked: list[int] = []
        self.told: list[int] = []

    def work(self) -> bool:
        self.worked.append(threading.get_ident())
        return self.function() is True

    def done(self) -> None:
        self.told.append(threading.get_ident())


def block(began: threading.Event, gate: threading.Event) -> None:
    began.set()
    gate.wait(10)


def test_results_and_errors_come_back(run: Run) -> None:
    async def main() -> None:
        pool = ThreadPool(2, asyncio.get_running_loop())
        assert await pool.run(lambda: 5) == 5
        assert await pool.run(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0)
        with pytest.raises(SystemExit):
            await pool.run(lambda: (_ for _ in ()).throw(SystemExit(3)))
        assert await pool.run(lambda: 6) == 6
        pool.close()

    run(main())


def test_a_job_is_worked_on_in_a_thread_and_told_in_the_loop(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        pool = ThreadPool(2, asyncio.get_running_loop())
        job = Noting()
        for times in (1, 2):
            pool.submit(job)
            await eventually(lambda times=times: len(job.told) == times)  # type: ignore[misc]
        assert threading.get_ident() not in job.worked
        assert job.told == [threading.get_ident()] * 2
        pool.close()

    run(main())


def test_a_job_that_breaks_its_promise_costs_no_thread(
    run: Run, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        broken = Noting(lambda: (_ for _ in ()).throw(SystemExit(3)))
        pool.submit(broken)
        await eventually(lambda: broken.told)
        assert await pool.run(lambda: 6) == 6
        pool.close()

    run(main())
    assert caplog.messages == ["a job of a handler thread failed"]


def test_what_is_abandoned(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        counted: list[int] = []
        pool = ThreadPool(1, asyncio.get_running_loop(), lambda: counted.append(len(pool.stuck)))
        gate, began = threading.Event(), threading.Event()
        first, second = Noting(lambda: block(began, gate)), Noting()
        pool.submit(first)
        pool.submit(second)
        await eventually(began.is_set)
        assert pool.abandon(second)
        assert not pool.abandon(first)
        assert (len(pool.stuck), first.told) == (1, [])
        gate.set()
        await eventually(lambda: first.told)
        assert counted == [1, 0]
        third = Noting()
        pool.submit(third)
        await eventually(lambda: third.worked)
        # Its work has ended, and the loop has not been told yet.
        while third.running:
            pass
        assert not pool.abandon(third)
        await eventually(lambda: third.told)
        assert counted == [1, 0]
        assert not second.worked
        pool.close()

    run(main())


def test_what_a_call_raised_is_not_left_for_the_collector(run: Run) -> None:
    kept: list[weakref.ref[BaseException]] = []

    class Oh(Exception):
        pass

    def call() -> None:
        error = Oh()
        kept.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        gc.disable()
        try:
            with contextlib.suppress(Oh):
                await pool.run(call)
            assert [reference() for reference in kept] == [None]
        finally:
            gc.enable()
        pool.close()

    run(main())


def test_each_call_has_a_context_of_its_own(run: Run) -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    def call() -> str:
        before = variable.get()
        variable.set("set")
        return before

    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        assert [await pool.run(call) for _ in range(3)] == ["unset"] * 3
        pool.close()

    run(main())


def test_blocking_calls_spread_over_all_threads(run: Run) -> None:
    async def main() -> None:
        pool = ThreadPool(8, asyncio.get_running_loop())
        # None of them passes before all eight are there at once.
        barrier = threading.Barrier(8)
        await asyncio.gather(*(pool.run(lambda: barrier.wait(10)) for _ in range(8)))
        await asyncio.gather(*(pool.run(lambda: barrier.wait(10)) for _ in range(8)))
        pool.close()

    run(main())


def test_never_more_than_its_size_run_at_once(run: Run, eventually: Eventually) -> None:
    lock, now, most = threading.Lock(), 0, 0
    gate = threading.Event()

    def call() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        gate.wait(10)
        with lock:
            now -= 1

    async def main() -> None:
        pool = ThreadPool(3, asyncio.get_running_loop())
        calls = [asyncio.ensure_future(pool.run(call)) for _ in range(30)]
        await eventually(lambda: most == 3)
        gate.set()
        await asyncio.gather(*calls)
        pool.close()

    run(main())
    assert most == 3


def test_many_short_calls_are_all_done(run: Run) -> None:
    async def main() -> None:
        pool = ThreadPool(4, asyncio.get_running_loop())
        for _ in range(20):
            done = await asyncio.gather(*(pool.run(lambda n=n: n) for n in range(100)))  # type: ignore[misc]
            assert done == list(range(100))
        pool.close()

    run(main())


def test_a_call_that_has_not_begun_never_will_once_cancelled(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        gate, began, ran = threading.Event(), threading.Event(), []
        first = asyncio.ensure_future(pool.run(lambda: block(began, gate)))
        second = asyncio.ensure_future(pool.run(lambda: ran.append(1)))
        await eventually(began.is_set)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        await first
        await pool.run(lambda: None)
        assert not ran
        assert len(pool.stuck) == 0
        pool.close()

    run(main())


def test_a_call_that_goes_on_after_its_cancellation_is_counted(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        counted: list[int] = []
        pool = ThreadPool(2, asyncio.get_running_loop(), lambda: counted.append(len(pool.stuck)))
        gate, began = threading.Event(), threading.Event()
        call = asyncio.ensure_future(pool.run(lambda: block(began, gate)))
        await eventually(began.is_set)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(pool.stuck) == 1
        assert await pool.run(lambda: "others go on") == "others go on"
        gate.set()
        await eventually(lambda: len(pool.stuck) == 0)
        assert counted == [1, 0]
        pool.close()

    run(main())


def test_closing_ends_the_threads_when_all_is_done(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        before = set(threading.enumerate())
        pool = ThreadPool(4, asyncio.get_running_loop())
        barrier, done = threading.Barrier(4), []
        await asyncio.gather(*(pool.run(lambda: barrier.wait(10)) for _ in range(4)))
        assert len(set(threading.enumerate()) - before) == 4
        pool.submit(Noting(lambda: done.append(1)))
        pool.close()
        await eventually(lambda: not set(threading.enumerate()) - before)
        assert done == [1]

    run(main())


def test_a_host_without_threads_to_spare_is_survived(
    run: Run, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        pool = ThreadPool(4, asyncio.get_running_loop())
        await pool.run(lambda: None)

        def refuse(_: Any) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert await asyncio.gather(*(pool.run(lambda: 1) for _ in range(10))) == [1] * 10
        pool.close()

    run(main())


# Threads that stay.


async def work_again(pool: ThreadPool, job: Noting, eventually: Eventually) -> None:
    times = len(job.told) + 1
    pool.submit(job)
    await eventually(lambda: len(job.told) == times)


def test_a_job_that_comes_back_finds_its_thread(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        pool = ThreadPool(8, asyncio.get_running_loop())
        jobs = [Noting(lambda: True) for _ in range(3)]
        for _ in range(20):
            for job in jobs:
                await work_again(pool, job, eventually)
                await pool.run(lambda: None)
        assert [len(set(job.worked)) for job in jobs] == [1, 1, 1]
        assert len({job.worked[0] for job in jobs}) == 3
        pool.close()

    run(main())


def test_threads_that_stay_keep_none_from_other_work(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        before = set(threading.enumerate())
        pool = ThreadPool(2, asyncio.get_running_loop())
        staying = [Noting(lambda: True) for _ in range(5)]
        for job in staying:
            await work_again(pool, job, eventually)
        theirs = {job.worked[0] for job in staying}
        assert len(theirs) == len(staying)
        # More than work at once.
        gate = threading.Event()
        begun: list[int] = []

        def wait() -> int:
            begun.append(threading.get_ident())
            gate.wait(10)
            return threading.get_ident()

        working = asyncio.gather(*(pool.run(wait) for _ in range(9)))
        await eventually(lambda: len(begun) == 2)
        gate.set()
        assert not theirs.intersection(await working)
        # Those that come back for the last time are too many to stay idle.
        for job in staying:
            job.function = lambda: False
            pool.submit(job)
        await eventually(lambda: all(len(job.told) == 2 for job in staying))
        assert [len(set(job.worked)) for job in staying] == [1] * len(staying)
        await eventually(lambda: len(set(threading.enumerate()) - before) <= 2)
        pool.close()
        await eventually(lambda: not set(threading.enumerate()) - before)

    run(main())


def test_past_a_bound_the_thread_that_has_stayed_for_longest_goes(
    run: Run, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "STAYING", 0)

    async def main() -> None:
        pool = ThreadPool(2, asyncio.get_running_loop())
        first, second = Noting(lambda: True), Noting(lambda: True)
        for job in (first, second):
            await work_again(pool, job, eventually)
        # The one that has stayed for longest goes.
        assert await pool.run(threading.get_ident) == first.worked[0]
        gates = [threading.Event() for _ in range(2)]
        blocked = [asyncio.ensure_future(pool.run(lambda gate=gate: gate.wait(10))) for gate in gates]
        await asyncio.sleep(0)
        pool.submit(first)
        gates[0].set()
        await eventually(lambda: len(first.told) == 2)
        gates[1].set()
        await asyncio.gather(*blocked)
        pool.close()

    run(main())


def test_a_job_that_comes_back_waits_for_its_turn(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        gate, began = threading.Event(), threading.Event()
        again = Noting(lambda: block(began, gate) or True)
        other = Noting()
        pool.submit(again)
        await eventually(began.is_set)
        pool.submit(other)
        gate.set()
        await eventually(lambda: other.told)
        await work_again(pool, again, eventually)
        pool.close()

    run(main())


def test_a_thread_stays_for_what_is_made_by_a_job(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        pool = ThreadPool(4, asyncio.get_running_loop())
        maker, made = Noting(lambda: True), Noting()
        await work_again(pool, maker, eventually)
        pool.pass_on(maker, made)
        assert await pool.run(threading.get_ident) != maker.worked[0]
        await work_again(pool, made, eventually)
        assert made.worked == maker.worked
        pool.pass_on(maker, made)
        pool.close()

    run(main())


def test_closing_lets_threads_go_that_stay(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        pool = ThreadPool(4, asyncio.get_running_loop())
        job = Noting(lambda: True)
        await work_again(pool, job, eventually)
        (thread,) = (one for one in threading.enumerate() if one.ident == job.worked[0])
        pool.close()
        await eventually(lambda: not thread.is_alive())

    run(main())


def test_a_host_without_threads_to_spare_takes_those_that_stay(
    run: Run, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        pool = ThreadPool(4, asyncio.get_running_loop())
        job = Noting(lambda: True)
        await work_again(pool, job, eventually)

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert await pool.run(threading.get_ident) == job.worked[0]
        pool.close()

    run(main())


FORKED = """
import asyncio, os
from restpipe.handler.threads import ThreadPool
from restpipe.host import forks

async def main():
    forks.own_signal(1)
    pool = ThreadPool(1, asyncio.get_running_loop())
    pid = await pool.run(os.fork)
    assert pid, "the child comes back"
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 1
    for code, status in ((None, 0), (0, 0), (3, 3), ("no", 1)):
        pid = await pool.run(lambda: os.fork() or pool.end_child(SystemExit(code)))
        assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == status
    pool.end_child(SystemExit(0))
    pool.close()

asyncio.run(main())
pid = os.fork()
if not pid:
    # A pool of the child's own is as good as any.
    async def another():
        assert await ThreadPool(1, asyncio.get_running_loop()).run(lambda: 5) == 5
    asyncio.run(another())
    os._exit(7)
assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 7
"""


def test_a_child_that_comes_back_from_a_call_ends_there() -> None:
    program = [sys.executable, "-W", "ignore", "-c", FORKED]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
