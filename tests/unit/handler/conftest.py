"""What several tests of the handler room need."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

WAIT_S = 10.0


async def _eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - threads set no asyncio.Event
            await asyncio.sleep(0.001)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Waits in the loop until something is so."""
    return _eventually


@pytest.fixture
def run() -> Iterator[Callable[[Awaitable[object]], object]]:
    """Runs a coroutine, bounded in time."""

    async def bounded(work: Awaitable[object]) -> object:
        async with asyncio.timeout(2 * WAIT_S):
            return await work

    with asyncio.Runner() as runner:
        yield lambda work: runner.run(bounded(work))
