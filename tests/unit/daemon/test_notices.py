from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from restpipe.daemon import notices
from restpipe.daemon.notices import Idleness, Notices
from restpipe.protocol.frames import NOTICE, FrameDecoder
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import Notice
from tests.unit.transport.kit import run, until


class FakeLink:
    """Writes down what it is to send."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def send_control(self, data: bytes) -> None:
        (frame,) = FrameDecoder().feed(data)
        assert frame.kind == NOTICE
        self.notices.append(read_message(Notice(), frame))


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


def test_idle_is_told_at_once_and_again_while_no_client_is_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        told: list[Notice] = []
        idleness = Idleness(told.append)
        assert list(idleness.present()) == []
        idleness.begin()
        idleness.begin()
        assert [notice.kind for notice in told] == [Notice.IDLE]
        assert list(idleness.present()) == told
        idleness.end()
        monkeypatch.setattr(notices, "IDLE_EVERY_S", 0.0)
        idleness.begin()
        await until(lambda: len(told) > 3)
        assert len({notice.since for notice in told[1:]}) == 1
        assert told[0].since <= told[1].since
        idleness.end()
        idleness.end()
        said = len(told)
        assert list(idleness.present()) == []
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(told) == said

    run(main())
