from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from restpipe.daemon import notices
from restpipe.daemon.notices import Notices
from restpipe.protocol.frames import FrameDecoder, Kind
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import Notice
from tests.unit.transport.kit import run, until


class FakeLink:
    """Writes down what it is to send."""

    def __init__(self) -> None:
        self.connection = self
        self.notices: list[Notice] = []
        self.woken = 0

    def send_control(self, data: bytes) -> None:
        (frame,) = FrameDecoder().feed(data)
        assert frame.kind == Kind.NOTICE
        self.notices.append(read_message(Notice(), frame))

    def wake(self) -> None:
        self.woken += 1


def test_newcomers_hear_the_present_state_and_all_hear_what_changes() -> None:
    def present() -> Iterator[Notice]:
        yield Notice(kind=Notice.CONNECTION_ADDED, peer="alpha")
        yield Notice(kind=Notice.CONNECTION_ADDED, peer="beta")

    told = Notices(present)
    one, other = FakeLink(), FakeLink()
    told.subscribe(one)  # type: ignore[arg-type]
    assert [notice.peer for notice in one.notices] == ["alpha", "beta"]
    told.tell(Notice(kind=Notice.CONNECTION_REMOVED, peer="beta"))
    told.subscribe(other)  # type: ignore[arg-type]
    told.unsubscribe(one)  # type: ignore[arg-type]
    told.unsubscribe(one)  # type: ignore[arg-type]
    told.tell(Notice(kind=Notice.IDLE))
    assert [notice.kind for notice in one.notices][2:] == [Notice.CONNECTION_REMOVED]
    assert [notice.kind for notice in other.notices][2:] == [Notice.IDLE]
    assert one.woken == len(one.notices)


def test_idle_is_said_each_minute_for_as_long_as_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 1000.0
        slept = 0

        def time(self) -> float:
            return self.now

    clock = Clock()
    steps: asyncio.Queue[None] = asyncio.Queue()

    class Asyncio:
        """Sleeps only until the test takes a step."""

        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        async def sleep(self, seconds: float) -> None:
            assert seconds == notices.IDLE_EVERY_S
            clock.slept += 1
            await steps.get()
            clock.now += seconds

    async def main() -> None:
        monkeypatch.setattr(notices, "time", clock)
        monkeypatch.setattr(notices, "asyncio", Asyncio())
        present = [0, 0, 2, 0, 0]
        told, link = Notices(lambda: ()), FakeLink()
        told.subscribe(link)  # type: ignore[arg-type]
        task = asyncio.create_task(told.run_idle(lambda: present[clock.slept]))
        for minute in range(1, len(present)):
            await until(lambda minute=minute: clock.slept == minute)
            steps.put_nowait(None)
        await until(lambda: clock.slept == len(present))
        task.cancel()
        assert [notice.kind for notice in link.notices] == [Notice.IDLE] * 4
        assert [notice.since for notice in link.notices] == [1000.0, 1000.0, 1180.0, 1180.0]

    run(main())
