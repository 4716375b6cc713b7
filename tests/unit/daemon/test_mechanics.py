"""The lines that DEBUG=1 adds."""

from __future__ import annotations

import logging

import pytest

from restpipe.errors import Code, Reset
from restpipe.protocol import frames
from tests.unit.daemon.kit import Bench, data, event, frame, reply, reset, taken

ID = "0" * 32


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.DEBUG)
    bench = Bench()
    bench.router.debug = True
    return bench


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return said


def test_nothing_is_told_unless_it_is_asked_for(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.router.debug = False
    sender = bench.sender()
    bench.join("alpha")
    bench.send(sender, event(1, "alpha"), event(3, "nobody"), event(5))
    assert lines(caplog) == []


def test_the_life_of_an_event(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    sender = bench.sender()
    sender.name = "web 1"
    peer, channel = bench.join("alpha")
    channel.name = "alpha"
    bench.send(sender, event(1, "alpha", end=False), data(1, b"more", end=True))
    assert lines(caplog) == [f"web 1#1 > alpha#2: event {ID} (GET /x) goes on"]
    bench.arrive(peer, reply(2))
    assert lines(caplog) == ["web 1#1 > alpha#2: over"]
    bench.send(sender, event(3, "alpha"))
    bench.send(sender, reset(3, Reset(Code.CANCELLED, "hung up")))
    assert lines(caplog)[1:] == ["web 1#3 > alpha#4: reset: cancelled: hung up"]


def test_an_event_that_waits(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    sender = bench.sender()
    sender.name = "web 1"
    bench.know("alpha")
    bench.send(sender, event(1, "alpha", timeout_s=2), event(3, "alpha"), event(5, "alpha"))
    waits = f"web 1#1: event {ID} (GET /x) waits at most 2.000 s, or: the link to alpha stayed down"
    assert lines(caplog)[0] == waits
    bench.pass_time(2)
    assert lines(caplog) == ["web 1#1: refused: unreachable: the link to alpha stayed down"]
    bench.send(sender, reset(3, Reset(Code.CANCELLED)))
    assert lines(caplog) == ["web 1#3: reset: cancelled"]
    bench.join("alpha")
    assert lines(caplog) == [f"web 1#5 > #2: event {ID} (GET /x) goes on"]


def test_refused_and_lost_ones(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    sender, worker = bench.sender(), bench.worker()
    sender.name, worker.name = "web 1", "handlers 1"
    peer, channel = bench.join("alpha")
    channel.name = "alpha"
    bench.arrive(peer, event(1), frame(frames.EVENT, 3, b"\xff\xff"))
    assert lines(caplog) == [
        f"alpha#1 > handlers 1#2: event {ID} (GET /x) goes on",
        "alpha#3 > handlers 1#4: a head that is no Event goes on",
    ]
    bench.router.lose(worker, "it left", bench.now)
    assert [line.partition(":")[2] for line in lines(caplog)] == [" lost with handlers 1: it left"] * 2
    bench.send(sender, event(1, "alpha"))
    taken(channel)
    bench.send(sender, *(data(1, bytes(65536)) for _ in range(20)))
    assert lines(caplog)[-1] == "web 1#1 > alpha#2: broken off: flow_control: more was sent than was granted"
    bench.router.drain()
    bench.send(sender, event(9, "alpha"))
    assert lines(caplog) == ["web 1#9: refused: draining: the daemon stops"]
