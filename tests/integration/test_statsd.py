"""The original's metrics, sent to a real UDP socket; a dead statsd costs nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import HANDLERS, client_of
from tests.support.conditions import wait_for
from tests.support.identities import Authority
from tests.support.nodes import Options, Pair, free_port
from tests.support.processes import descendants


@pytest.fixture
def statsd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


def test_every_metric_of_the_original_arrives(
    authority: Authority, folder: Path, statsd: socket.socket
) -> None:
    options: Options = {
        "statsd": {"host": "127.0.0.1", "port": statsd.getsockname()[1]},
        "pipe": {"heartbeat_interval_s": 0.1},
    }
    wanted = {
        "client.connect.new.tick",
        "client.connect.new.attempt.timing",
        "client.connect.connected.tick",
        "client.connect.broken.tick",
        "client.connect.heartbeat.timing",
        "client.connect.heartbeat.success.tick",
        "client.connect.heartbeat.fail.tick",
        "message.send.tick",
        "message.send.timing",
        "message.receive.tick",
        "message.receive.handle.timing",
        "message.received.handle.get_time.tick",
        "message.received.handle.get_time.timing",
    }
    seen: set[str] = set()

    def collect() -> bool:
        try:
            while True:
                for line in statsd.recv(65536).decode().splitlines():
                    name, _, value = line.partition(":")
                    assert value.endswith(("|c", "|ms")), line
                    seen.add(name)
        except BlockingIOError:
            return seen >= wanted

    with Pair(folder, authority, options, options) as pair:
        pair.start()
        # The server's daemon stands still: the heartbeat fails and the link breaks.
        pair.server.pipe.stop()
        pair.client.pipe.wait_log("nothing heard for")
        pair.server.pipe.cont()
        wait_for(collect, "every metric of the original")


def test_a_dead_statsd_costs_an_event_nothing(authority: Authority, folder: Path) -> None:
    options: Options = {"statsd": {"host": "127.0.0.1", "port": free_port()}}
    with Pair(folder, authority, options, options) as pair:
        pair.start()
        with client_of(pair.client) as client:
            for _ in range(50):
                assert client.get("/server/time").status_code == 200


def test_a_name_that_is_looked_up_for_ever_holds_up_no_event(authority: Authority, folder: Path) -> None:
    """Not until it is found, nor until any time has passed: all hang in it, and all answer."""
    begun = folder / "begun"
    begun.mkdir()
    environ = {"SLOW_LOOKUPS": str(begun)} | {
        f"RP_{role}_USER_CONFIG_MODULE": "slow_lookups" for role in ("SERVER", "CLIENT")
    }
    options: Options = {
        "handlers": {"path": str(HANDLERS)},
        "statsd": {"host": "statsd.invalid", "port": 8125},
    }
    with Pair(folder, authority, options, options, environ) as pair:
        pair.start()
        hanging = {pair.client.pipe.pid}
        for node in (pair.server, pair.client):
            hanging |= {node.handlers.pid, *descendants(node.web.pid)}
        wait_for(lambda: {int(path.name) for path in begun.iterdir()} >= hanging, "all hang")
        with client_of(pair.client) as client, client_of(pair.server) as server:
            for _ in range(50):
                assert client.get("/server/time").status_code == 200
                assert server.get("/client/client-1/time").status_code == 200


def test_only_one_of_host_and_port_is_an_error(authority: Authority, folder: Path) -> None:
    with Pair(folder, authority, {"statsd": {"host": "", "port": 8125}}) as pair:
        pair.server.start("pipe", ready=False)
        process = pair.server.pipe
        assert process.wait_end() == 78
        assert "statsd.host" in process.log_text()
        assert "Traceback" not in process.log_text()
