"""Metrics as a real statsd would get them, and what happens where there is none."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from restpipe.host import stats
from restpipe.host.options import Statsd
from restpipe.host.stats import Stats


class Receiver:
    """A statsd that only listens."""

    def __init__(self, family: int = socket.AF_INET, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.bind((host, 0))
        self.config = Statsd(host=host, port=self.socket.getsockname()[1])

    def metrics(self) -> list[str]:
        """Of the next datagram."""
        return self.socket.recv(65536).decode("ascii").splitlines()


@pytest.fixture
def statsd() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.socket.close()


def test_sums_and_milliseconds(statsd: Receiver) -> None:
    collected = Stats(statsd.config)
    for _ in range(3):
        collected.tick(stats.SEND)
    collected.tick(stats.RECEIVE, 5)
    collected.timing(stats.SEND_TIME, 0.0125)
    collected.flush()
    assert statsd.metrics() == [
        "message.send.tick:3|c",
        "message.receive.tick:5|c",
        "message.send.timing:12.500000|ms",
    ]


def test_each_flush_starts_anew(statsd: Receiver) -> None:
    collected = Stats(statsd.config)
    collected.tick("a")
    collected.flush()
    collected.flush()
    collected.tick("b")
    collected.flush()
    assert [statsd.metrics(), statsd.metrics()] == [["a:1|c"], ["b:1|c"]]


def test_names_of_the_original() -> None:
    assert stats.handled_tick("get_time") == "message.received.handle.get_time.tick"
    assert stats.handled_timing("get_time") == "message.received.handle.get_time.timing"


def test_a_name_cannot_forge_a_metric(statsd: Receiver) -> None:
    collected = Stats(statsd.config)
    collected.tick(stats.handled_tick("get_ü:1|c\nother"))
    collected.flush()
    assert statsd.metrics() == ["message.received.handle.get___1_c_other.tick:1|c"]


def test_memory_is_bounded_and_what_is_dropped_is_counted(statsd: Receiver) -> None:
    collected = Stats(statsd.config)
    for n in range(stats.MAX_TIMINGS + 3):
        collected.timing("t", n)
    for n in range(stats.MAX_NAMES + 4):
        collected.tick(f"n{n}", 2)
    collected.flush()
    seen: list[str] = []
    while not any(line.startswith(stats.DROPPED) for line in seen):
        seen += statsd.metrics()
    assert f"{stats.DROPPED}:{3 + 4 * 2}|c" in seen
    assert "t:2000.000000|ms" not in seen  # the oldest went
    assert f"t:{stats.MAX_TIMINGS + 2}000.000000|ms" in seen
    kinds = Counter(re.sub(r"^\w+:.*\|", "", line) for line in seen if not line.startswith(stats.DROPPED))
    assert kinds == {"ms": stats.MAX_TIMINGS, "c": stats.MAX_NAMES}


def test_nothing_is_lost_between_threads(statsd: Receiver) -> None:
    collected = Stats(statsd.config)

    def count() -> None:
        for _ in range(20_000):
            collected.tick("n")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    collected.flush()
    assert statsd.metrics() == ["n:80000|c"]


def test_ipv6() -> None:
    try:
        receiver = Receiver(socket.AF_INET6, "::1")
    except OSError:
        pytest.skip("no IPv6 here")
    collected = Stats(receiver.config)
    collected.tick("n")
    collected.flush()
    assert receiver.metrics() == ["n:1|c"]
    receiver.socket.close()


def test_a_dead_port_is_nobodys_business(statsd: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    statsd.socket.close()
    collected = Stats(statsd.config)
    for _ in range(3):
        collected.tick("n")
        collected.flush()
    assert not caplog.records


def test_an_unknown_host_is_reported_once_and_looked_up_again(
    statsd: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    collected = Stats(Statsd(host="nowhere.invalid", port=statsd.config.port))
    for _ in range(2):
        collected.tick("lost")
        collected.flush()
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]
    assert "nowhere.invalid" in caplog.records[0].getMessage()
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest: real("127.0.0.1", *rest))
    collected.tick("found")
    collected.flush()
    assert statsd.metrics() == ["found:1|c"]


def test_the_name_is_looked_up_again_now_and_then(statsd: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    connect = stats._connect

    def counted(config: Statsd) -> object:
        looked_up.append(config.host)
        return connect(config)

    monkeypatch.setattr(stats, "_connect", counted)
    collected = Stats(statsd.config)
    for now in (0.0, 59.0, 61.0):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        collected.tick("n")
        collected.flush()
    assert looked_up == ["127.0.0.1", "127.0.0.1"]


def test_what_is_sent_goes_where_it_was_told_last(statsd: Receiver) -> None:
    collected = Stats.off()
    collected.tick("lost")
    collected.configure(statsd.config)
    collected.tick("told")
    collected.flush()
    assert statsd.metrics() == ["told:1|c"]
    other = Receiver()
    try:
        collected.configure(other.config)
        collected.tick("moved")
        collected.flush()
        assert other.metrics() == ["moved:1|c"]
    finally:
        other.socket.close()


def test_off_collects_and_sends_nothing() -> None:
    collected = Stats.off()
    collected.tick("n")
    collected.timing("t", 1)
    assert collected._batch.empty

    async def scenario() -> None:
        task = asyncio.create_task(collected.run())
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_run_sends_by_itself_and_once_more_at_the_end(statsd: Receiver) -> None:
    collected = Stats(statsd.config)

    async def scenario() -> None:
        task = asyncio.create_task(collected.run())
        collected.tick("first")
        assert await asyncio.to_thread(statsd.metrics) == ["first:1|c"]
        collected.tick("last")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert statsd.metrics() == ["last:1|c"]


def test_a_lookup_that_hangs_does_not_hold_up_the_end(
    statsd: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, release = threading.Event(), threading.Event()

    def hang(config: Statsd) -> None:
        hanging.set()
        release.wait()
        raise OSError("too late")

    monkeypatch.setattr(stats, "_connect", hang)
    collected = Stats(statsd.config)

    async def scenario() -> None:
        task = asyncio.create_task(collected.run())
        collected.tick("n")
        await asyncio.to_thread(hanging.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert not release.is_set()  # it ended while the look-up still hung
    release.set()
    for thread in threading.enumerate():
        if thread.name == "statsd":
            thread.join()
