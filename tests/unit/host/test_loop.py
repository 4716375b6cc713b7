"""How a process's main task ends."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
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


def test_a_task_that_ends_the_process_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def exits() -> None:
        raise SystemExit(3)

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        tasks.append(asyncio.create_task(exits()))
        await asyncio.wait(tasks)

    with pytest.raises(SystemExit):
        loop.run(main())
    # Asked for, or it would be complained about in the middle of another test.
    assert isinstance(tasks[0].exception(), SystemExit)
    (record,) = caplog.records
    assert "in exits" in caplog.text
    assert record.levelname == "ERROR"
