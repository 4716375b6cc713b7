"""How a process's main task ends."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from restpipe.host import loop


@pytest.fixture(autouse=True)
def _collector_restored() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_it_runs_on_uvloop_with_what_was_imported_frozen() -> None:
    seen: list[str] = []

    async def main() -> None:
        seen.append(type(asyncio.get_running_loop()).__module__)

    loop.run(main())
    assert seen == ["uvloop"]
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_cancel_once_and_leave_time_to_clean_up(number: int) -> None:
    seen: list[str] = []

    async def main() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            os.kill(os.getpid(), number)
            for _ in range(20):  # turns of the loop in which a second cancellation would strike
                await asyncio.sleep(0.001)
            seen.append("clean")
            raise

    loop.run(main())
    assert seen == ["cancelled", "clean"]


def test_a_signal_after_a_stop_from_within_is_told_and_cancels_no_more() -> None:
    seen: list[str] = []

    async def main() -> None:
        loop.stop()
        assert seen == []
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(20):  # as above
                await asyncio.sleep(0.001)
            seen.append("clean")
            raise

    loop.run(main(), on_stop=lambda: seen.append("signal") if "signal" not in seen else None)
    assert seen == ["signal", "clean"]
    loop.stop()  # without effect where nothing runs


def test_what_main_raises_is_raised() -> None:
    async def main() -> None:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        loop.run(main())


def test_a_cancellation_of_its_own_is_no_orderly_end() -> None:
    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        loop.run(main())


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt()])
def test_a_task_does_not_end_the_process(raised: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    async def exits() -> None:
        raise raised

    async def main() -> None:
        task = asyncio.create_task(exits())
        await asyncio.wait([task])
        assert task.exception() is raised
        await asyncio.sleep(0)
        seen.append("goes on")

    seen: list[str] = []
    loop.run(main())
    assert seen == ["goes on"]
    (record,) = caplog.records
    assert "in exits" in caplog.text
    assert record.levelname == "ERROR"


def test_main_may_end_the_process() -> None:
    async def main() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        loop.run(main())


def test_a_loop_that_stands_still_does_not_keep_a_stop_from_being_heard() -> None:
    heard = threading.Event()

    async def main() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        # In the loop's own thread, and nothing else can run in it.
        assert heard.wait(10)

    loop.run(main(), on_stop=heard.set)


def test_signals_that_others_have_taken_are_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    async def main() -> None:
        loop.on_signal(signal.SIGHUP, lambda: heard.append("HUP"))
        loop.keep_signals()
        assert not caplog.records
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        loop.keep_signals()
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    loop.run(main())
    assert heard == ["HUP"]
    assert [record.getMessage()[:7] for record in caplog.records] == ["SIGTERM", "SIGHUP "]


def test_code_of_others_has_pythons_own_collector() -> None:
    async def main() -> None: ...

    before = gc.get_threshold()
    loop.run(main(), collect_seldom=False)
    assert gc.get_threshold() == before
    loop.run(main())
    assert gc.get_threshold() != before


def test_nobody_stops_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        seen.append("goes on")

    loop.run(main())
    assert seen == ["goes on"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_stop_is_heard_whatever_wakes_pythons_loops() -> None:
    async def main() -> None:
        signal.set_wakeup_fd(-1)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    loop.run(main())
