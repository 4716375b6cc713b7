from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from restpipe.web.call import Call
from restpipe.web.framing import NO_BODY


class Connection:
    target = b"/"
    framing = NO_BODY

    def __init__(self) -> None:
        self.on_hangup: Callable[[], None] | None = None

    def break_off(self) -> None: ...


async def never() -> dict[str, Any]:
    raise AssertionError


def test_the_time_ends() -> None:
    async def main() -> None:
        call = Call(Connection(), never)
        call.allow(0.001)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        assert call.over
        assert call.survive()
        assert not call.over
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        call.end()

    asyncio.run(main())


def test_the_caller_hangs_up() -> None:
    async def main() -> None:
        connection = Connection()
        call = Call(connection, never)
        assert connection.on_hangup is not None
        asyncio.get_running_loop().call_soon(connection.on_hangup)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        assert call.over
        assert not call.survive()

    asyncio.run(main())


def test_the_end_lets_go() -> None:
    async def main() -> None:
        connection = Connection()
        ended: list[str] = []
        call = Call(connection, never)
        call.on_end = lambda: ended.append("end")
        call.allow(0)
        call.end()
        assert connection.on_hangup is None
        for _ in range(3):
            await asyncio.sleep(0)
        assert ended == ["end"]
        assert not call.expired

    asyncio.run(main())


def test_a_later_end_takes_the_place_of_an_earlier() -> None:
    async def main() -> None:
        call = Call(Connection(), never)
        call.allow(0)
        call.allow(3600)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not call.expired
        call.end()

    asyncio.run(main())
