"""Every feature inside the sandboxes as shipped: the integration tests' own requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.test_requests import *  # noqa: F403  (the tests themselves)
from tests.support.conditions import wait_for
from tests.system.inside import Inside, configure, free_of_complaints
from tests.system.machines import PARTS, unit_of

UNITS = [unit_of(role, part) for role in ("server", "client") for part in PARTS]

WIDER = "/usr/share/doc/restpipe/examples/wider.conf"
METRICS = (
    "client.connect.connected.tick",
    "client.connect.heartbeat.success.tick",
    "message.send.tick",
    "message.receive.tick",
    "message.received.handle.get_time.timing",
)
STATSD = (
    "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 8125))\n"
    "while True: print(s.recv(65536).decode(), flush=True)"
)


@pytest.fixture(scope="module")
def pair(inside: Inside) -> Inside:
    """In the place of the integration tests' own."""
    # By order, which has the count of automatic restarts begin anew, whatever other tests have done.
    inside.machine.run("systemctl restart restpipe-server restpipe-client")
    inside.machine.wait_answer("client", "/server/time")
    inside.machine.wait_answer("server", f"/client/{inside.client_name}/time")
    return inside


def test_hooks_for_connections(pair: Inside) -> None:
    machine = pair.machine
    machine.run("systemctl restart restpipe-client")
    machine.wait_answer("client", "/server/time")
    for role, hooks in (
        ("server", ("connection_removed 127.0.0.1", "connection_added 127.0.0.1")),
        ("client", ("connection_success",)),
    ):
        for hook in hooks:
            wait_for(lambda: f"hook {hook}" in machine.journal(f"-u restpipe-{role}-handlers@1"), hook)  # noqa: B023


def test_another_worker(pair: Inside) -> None:
    machine = pair.machine
    machine.run("systemctl start restpipe-server-handlers@2")
    pids = {machine.main_pid(f"restpipe-server-handlers@{number}") for number in (1, 2)}
    seen: set[int] = set()

    def ask() -> bool:
        # Together: one at a time would always find the same one with the most room.
        seen.update(callers.map(lambda _: pair.client.http.get("/server/pid").json, range(8)))
        return seen >= pids

    with ThreadPoolExecutor(8) as callers:
        wait_for(ask, "answers of both")
    machine.run("systemctl stop restpipe-server-handlers@2")
    machine.wait_answer("client", "/server/time")


def test_nothing_met_the_bounds_of_its_sandbox(pair: Inside) -> None:
    assert not free_of_complaints(pair.machine)
    assert {unit: pair.machine.show(unit, "NRestarts") for unit in UNITS} == dict.fromkeys(UNITS, "0")


def test_metrics_and_a_wider_sandbox_by_the_drop_in(pair: Inside) -> None:
    """The example drop-in as it was installed: network, and a folder to write to."""
    machine = pair.machine
    machine.run(f'systemd-run --unit=statsd python3 -c "{STATSD}"')
    configure(machine, "127.0.0.1", "8125")
    for role in ("server", "client"):
        for unit in (f"restpipe-{role}-web.service", f"restpipe-{role}-handlers@.service"):
            machine.run(f"install -D -m 644 {WIDER} /etc/systemd/system/{unit}.d/wider.conf")
    machine.run("systemctl daemon-reload && systemctl restart restpipe-server restpipe-client")
    machine.wait_answer("client", "/server/time")
    machine.wait_answer("server", "/client/client-1/time")
    assert machine.run(
        "stat --format=%U /var/lib/shop /var/lib/private/shop 2>/dev/null | sort -u || true"
    ).strip()
    for metric in METRICS:
        wait_for(lambda: f"{metric}:" in machine.run("journalctl --no-pager -o cat -u statsd"), metric)  # noqa: B023
