"""The whole of a role is one thing: what is done to it holds for all of it, whoever connects meanwhile."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.conditions import wait_for
from tests.system.machines import PARTS, Image, Machine, unit_of

SERVICES = [f"{unit_of('server', part)}.service" for part in PARTS]
SOCKETS = ("web", "events", "handlers")


class Knocking:
    """Connects to sockets of a role, time and again, as callers do who know of no restart."""

    def __init__(self, server: Machine) -> None:
        self._paths = [server.file(f"/run/restpipe-server/{name}.sock") for name in SOCKETS]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._knock, args=(path,)) for path in self._paths]
        self.connects = dict.fromkeys(self._paths, 0)
        self.refused: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def go_on(self) -> None:
        """Returns when all sockets have been connected to more often."""
        goals = {path: count + 50 for path, count in self.connects.items()}
        wait_for(lambda: all(self.connects[path] >= goals[path] for path in goals), "more connects")

    def in_vain(self) -> None:
        """Returns when more have been refused."""
        refused = len(self.refused)
        wait_for(lambda: len(self.refused) > refused + 100, "some who knock in vain")

    def _knock(self, path: Path) -> None:
        while not self._stop.is_set():
            with socket.socket(socket.AF_UNIX) as sock:
                # Not settimeout(): a full queue is waited for, as a blocking caller does.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 30, 0))
                try:
                    sock.connect(str(path))
                    self.connects[path] += 1
                except OSError as error:
                    self.refused.append(f"{path.name}: {error}")
            time.sleep(0.001)


def all_units() -> list[str]:
    others = ["parts.target", "sockets.target", *(f"{name}.socket" for name in SOCKETS)]
    return [*SERVICES, *(f"restpipe-server-{name}" for name in others)]


def each(machine: Machine, name: str, units: list[str]) -> dict[str, str]:
    """A property of many units."""
    found = machine.run(f"systemctl show --value --property={name} {' '.join(units)}").split()
    return dict(zip(units, found, strict=True))


def all_active(machine: Machine) -> bool:
    return set(each(machine, "ActiveState", all_units()).values()) == {"active"}


def rests(machine: Machine) -> bool:
    """Nothing of it runs, and nothing is about to."""
    jobs = machine.run("systemctl list-jobs --no-legend --plain 'restpipe-*'")
    # What has failed before it was stopped is remembered for that.
    return not jobs and set(each(machine, "ActiveState", all_units()).values()) <= {"inactive", "failed"}


def stop(server: Machine, knocking: Knocking) -> str:
    """What is said by the command."""
    said = server.run("systemctl stop restpipe-server 2>&1")
    assert not server.parts()
    wait_for(lambda: rests(server), "all to rest", 20)
    knocking.in_vain()
    assert rests(server)
    return said


@pytest.fixture
def server(installed: Machine) -> Machine:
    installed.run("systemctl start restpipe-server")
    wait_for(lambda: all_active(installed), "all parts to serve", 60)
    return installed


@pytest.mark.parametrize("attempt", range(3))
def test_a_stop_is_one_whoever_knocks(server: Machine, attempt: int) -> None:
    """A connect while the parts stop would have their sockets start them again."""
    with Knocking(server) as knocking:
        said = stop(server, knocking)
    # No word of sockets that could: they have gone before.
    assert not said


def test_a_stop_while_it_restarts(server: Machine) -> None:
    with Knocking(server) as knocking:
        server.run("systemctl --no-block restart restpipe-server")
        stop(server, knocking)


@pytest.fixture
def configured(server: Machine) -> Iterator[Callable[[str], None]]:
    """What is in the server's file for as long as a test runs; its daemon serves again afterwards."""
    path = "/etc/restpipe/server.toml"
    shipped = server.run(f"cat {path}")
    yield lambda text: server.put(path, text)
    server.put(path, shipped)
    server.run("systemctl restart restpipe-server")


FAILING = {"its parts wait": "bind = '192.0.2.1'", "its parts fail, too": "port = 'none'"}
"""What keeps the daemon from starting, until somebody edits it: an address that nobody has, nonsense."""
STATES = ("stop-post", "auto-restart", "start-pre")
"""What a daemon that fails goes through, in turn. In the second, a moment, a stop is not sure of all."""


def wait_state(machine: Machine, state: str) -> None:
    wait_for(lambda: machine.show("restpipe-server", "SubState") == state, state, 60)


@pytest.mark.parametrize("state", STATES[::2])
@pytest.mark.parametrize("cause", FAILING)
def test_a_stop_while_the_daemon_fails_time_and_again(
    server: Machine, configured: Callable[[str], None], cause: str, state: str
) -> None:
    configured(f"[pipe]\n{FAILING[cause]}\n")
    with Knocking(server) as knocking:
        assert server.try_run("systemctl restart restpipe-server").returncode != 0
        wait_state(server, state)
        stop(server, knocking)


def test_a_restart_while_the_daemon_fails_is_one_of_the_parts_too(
    server: Machine, configured: Callable[[str], None]
) -> None:
    """An upgrade, perhaps: they must not go on with the code of before. But they do without the daemon."""
    configured("[pipe]\nbind = '192.0.2.1'\n")
    others = SERVICES[1:]
    before = each(server, "InvocationID", others)
    server.run("systemctl kill restpipe-server")
    for state in STATES:
        wait_state(server, state)
    assert each(server, "InvocationID", others) == before
    assert server.try_run("systemctl restart restpipe-server").returncode != 0
    wait_for(lambda: set(others) <= set(server.parts()), "the others to serve again", 60)
    after = each(server, "InvocationID", others)
    assert all(after[unit] != before[unit] for unit in others)


def test_web_workers_without_the_daemon_do_not_pretend_to_start(server: Machine) -> None:
    """They would have no socket to serve at."""
    server.run("systemctl stop restpipe-server")
    assert server.try_run("systemctl start restpipe-server-web").returncode != 0
    assert rests(server)


def test_a_restart_refuses_nobody(server: Machine) -> None:
    sockets = [f"restpipe-server-{name}.socket" for name in SOCKETS]
    before, opened = each(server, "InvocationID", SERVICES), each(server, "InvocationID", sockets)
    with Knocking(server) as knocking:
        server.run("systemctl restart restpipe-server")
        wait_for(lambda: all_active(server), "all parts to serve", 60)
        knocking.go_on()
    assert not knocking.refused
    after = each(server, "InvocationID", SERVICES)
    assert all(after[unit] != before[unit] for unit in SERVICES)
    assert each(server, "InvocationID", sockets) == opened


@pytest.mark.parametrize("unit", SERVICES)
@pytest.mark.parametrize("signal", ["KILL", "ABRT", "TERM"])
def test_an_automatic_restart_touches_no_other(server: Machine, unit: str, signal: str) -> None:
    """After SIGTERM, by which a process ends in good order, too."""
    before = each(server, "InvocationID", all_units())
    with Knocking(server) as knocking:
        server.run(f"systemctl kill --kill-whom=main --signal={signal} {unit}")
        wait_for(lambda: server.show(unit, "InvocationID") not in ("", before[unit]), "another", 60)
        wait_for(lambda: all_active(server), "all parts to serve", 60)
        knocking.go_on()
    assert not knocking.refused
    after = each(server, "InvocationID", all_units())
    changed = {other for other in after if after[other] != before[other]}
    assert changed - {"restpipe-server-parts.target"} == {unit}


def test_after_automatic_restarts_an_order_still_holds_for_all(server: Machine) -> None:
    for _ in range(3):
        server.restart_daemon("server")
    before = each(server, "InvocationID", SERVICES)
    server.run("systemctl restart restpipe-server")
    wait_for(lambda: all_active(server), "all parts to serve", 60)
    after = each(server, "InvocationID", SERVICES)
    assert all(after[unit] != before[unit] for unit in SERVICES)


def test_a_start_that_crosses_a_stop(server: Machine) -> None:
    """Whichever comes first: in the end all of it serves, and an order holds for all."""
    server.run("systemctl --no-block stop restpipe-server && systemctl start restpipe-server")
    wait_for(lambda: all_active(server), "all parts to serve", 60)
    with Knocking(server) as knocking:
        stop(server, knocking)


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_bundles_name_the_port_that_is_configured_now(
    server: Machine, configured: Callable[[str], None], how: str
) -> None:
    configured("[pipe]\nport = 4321\n")
    server.run(f"systemctl {how} restpipe-server")
    wait_for(lambda: server.run("ss -Hltn sport = :4321"), "the other port", 60)
    assert ":4321" in server.run(f"cd /root && restpipe-ca issue by-{how} && cat by-{how}.bundle")


def test_a_web_server_that_stands_still_is_restarted(server: Machine) -> None:
    """gunicorn's own process, that is: its workers, whom it watches over, go on."""
    before = server.main_pid("restpipe-server-web")
    server.run("systemctl kill --kill-whom=main --signal=STOP restpipe-server-web")
    wait_for(lambda: server.main_pid("restpipe-server-web") not in (0, before), "another", 60)
    wait_for(lambda: all_active(server), "all parts to serve", 60)


def test_however_often_it_is_stopped_it_starts(server: Machine) -> None:
    """By default a unit that is started five times in ten seconds is left down."""
    for _ in range(7):
        server.run("systemctl stop restpipe-server && systemctl start restpipe-server")
    wait_for(lambda: all_active(server), "all parts to serve", 60)


def test_it_starts_where_the_start_at_boot_cannot_be_noted(server: Machine) -> None:
    mark = "/var/lib/restpipe/.server-starts-at-boot"
    server.run(f"systemctl stop restpipe-server && rm {mark} && ln -s /nowhere/to/be/found {mark}")
    try:
        server.run("systemctl start restpipe-server")
        wait_for(lambda: all_active(server), "all parts to serve", 60)
    finally:
        server.run(f"rm {mark}")


SECOND = "restpipe-server-handlers@2.service"


def test_another_worker_is_of_the_whole(server: Machine, image: Image) -> None:
    """Stopped, started, restarted, upgraded and booted with it."""

    def is_another(before: str) -> bool:
        return server.main_pid(SECOND) != 0 and server.show(SECOND, "InvocationID") != before

    server.run(f"systemctl enable --now {SECOND}")
    for command in (
        "systemctl restart restpipe-server",
        f"systemctl stop restpipe-server && ! systemctl is-active --quiet {SECOND} && "
        "systemctl start restpipe-server",
        f"DEBIAN_FRONTEND=noninteractive apt-get install -y --reinstall /root/{image.package.name}",
    ):
        before = server.show(SECOND, "InvocationID")
        server.run(command)
        wait_for(lambda: is_another(before), f"another worker by {command}", 60)  # noqa: B023
    server.reboot()
    server.run("ip link set lo up")
    wait_for(lambda: server.main_pid(SECOND) != 0, "it to come with the boot", 60)
    wait_for(lambda: all_active(server), "all parts to serve", 60)


def test_removed_and_purged_whoever_knocks(server: Machine) -> None:
    with Knocking(server) as knocking:
        server.run("DEBIAN_FRONTEND=noninteractive apt-get remove -y restpipe")
        assert not server.run("ps -eo args | grep '[/]usr/bin/restpipe' || true")
        knocking.in_vain()
    assert not server.run("systemctl list-units --no-legend --plain --state=active 'restpipe*'")
    assert not server.run("find /run/restpipe-server -type s")
    # What is a mount is emptied.
    server.run("mount -t tmpfs tmpfs /var/lib/restpipe && mkdir /var/lib/restpipe/ca")
    server.run("DEBIAN_FRONTEND=noninteractive apt-get purge -y restpipe")
    assert not server.run("ls -A /var/lib/restpipe && umount /var/lib/restpipe && rm -r /var/lib/restpipe")
    assert not server.run("find /etc /var/lib/restpipe -name '*restpipe*' 2>/dev/null || true")
