"""What ends a task, and what is only an answer."""

from __future__ import annotations

import asyncio

import pytest

from restpipe.handler.faults import ends_task


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_what_the_users_code_raises_ends_no_task(error: type[BaseException]) -> None:
    async def main() -> bool:
        return ends_task(error())

    assert not asyncio.run(main())


def test_a_cancellation_of_the_task_itself_ends_it() -> None:
    async def main() -> bool:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as cancelled:
            return ends_task(cancelled)
        return False

    async def cancelled() -> bool:
        task = asyncio.ensure_future(main())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(cancelled())
    assert ends_task(GeneratorExit())
