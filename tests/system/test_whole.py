"""The whole of a role is one thing: what is done to it holds for all of it, whoever connects meanwhile."""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.conditions import wait_for
from tests.system.machines import Image, Machine, booted

PARTS = ("pipe.service", "web.service", "handlers@1.service")
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
    parts = [*PARTS, "sockets.target", *(f"{name}.socket" for name in SOCKETS)]
    return ["restpipe-server.service", *(f"restpipe-server-{part}" for part in parts)]


def each(machine: Machine, name: str, units: list[str]) -> dict[str, str]:
    """A property of many units."""
    found = machine.run(f"systemctl show --value --property={name} {' '.join(units)}").split()
    return dict(zip(units, found, strict=True))


def all_active(machine: Machine) -> bool:
    return set(each(machine, "ActiveState", all_units()).values()) == {"active"}


def rests(machine: Machine) -> bool:
    """Nothing of it runs, and nothing is about to."""
    jobs = machine.run("systemctl list-jobs --no-legend --plain 'restpipe-*'")
    return not jobs and set(each(machine, "ActiveState", all_units()).values()) == {"inactive"}


def stop(server: Machine, knocking: Knocking) -> None:
    server.run("systemctl stop restpipe-server")
    # The sockets may go a little later, but nothing may come back.
    running = server.parts()
    wait_for(lambda: rests(server), "all to rest", 20)
    assert not running
    knocking.in_vain()
    assert rests(server)


@pytest.fixture(scope="module")
def installed(image: Image, work: Path) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(dir=work) as folder, booted(image, Path(folder), "pipe") as [machine]:
        machine.run("ip link set lo up")
        machine.install(image.package)
        yield machine


@pytest.fixture
def server(installed: Machine) -> Machine:
    installed.run("systemctl start restpipe-server")
    wait_for(lambda: all_active(installed), "all parts to serve", 60)
    return installed


@pytest.mark.parametrize("attempt", range(3))
def test_a_stop_is_one_whoever_knocks(server: Machine, attempt: int) -> None:
    """A connect while the parts stop would have their sockets start them again."""
    with Knocking(server) as knocking:
        stop(server, knocking)


def test_a_stop_while_it_restarts(server: Machine) -> None:
    with Knocking(server) as knocking:
        server.run("systemctl --no-block restart restpipe-server")
        stop(server, knocking)


def test_a_stop_while_a_part_fails_time_and_again(server: Machine) -> None:
    path = "/etc/restpipe/server.toml"
    shipped = server.run(f"cat {path}")
    server.put(path, "[pipe]\nport = 'none'\n")
    try:
        with Knocking(server) as knocking:
            server.run("systemctl restart restpipe-server-pipe || true")
            wait_for(
                lambda: "pipe.port must be a" in server.journal("-n 5 -u restpipe-server-pipe"), "a failure"
            )
            stop(server, knocking)
    finally:
        server.put(path, shipped)


@pytest.mark.parametrize("part", ["pipe", "web"])
def test_a_part_without_the_whole_does_not_pretend_to_start(server: Machine, part: str) -> None:
    """It would have no socket to serve at."""
    server.run("systemctl stop restpipe-server")
    wait_for(lambda: rests(server), "all to rest", 20)
    assert server.try_run(f"systemctl start restpipe-server-{part}").returncode != 0
    assert rests(server)


def test_a_restart_refuses_nobody(server: Machine) -> None:
    sockets = [f"restpipe-server-{name}.socket" for name in SOCKETS]
    parts = [f"restpipe-server-{part}" for part in PARTS]
    before, opened = each(server, "InvocationID", parts), each(server, "InvocationID", sockets)
    with Knocking(server) as knocking:
        server.run("systemctl restart restpipe-server")
        wait_for(lambda: all_active(server), "all parts to serve", 60)
        knocking.go_on()
    assert not knocking.refused
    after = each(server, "InvocationID", parts)
    assert all(after[part] != before[part] for part in parts)
    assert each(server, "InvocationID", sockets) == opened


@pytest.mark.parametrize("part", PARTS)
def test_an_automatic_restart_touches_no_other(server: Machine, part: str) -> None:
    unit = f"restpipe-server-{part}"
    before = each(server, "InvocationID", all_units())
    with Knocking(server) as knocking:
        server.run(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
        wait_for(lambda: server.show(unit, "InvocationID") not in ("", before[unit]), "another", 60)
        wait_for(lambda: all_active(server), "all parts to serve", 60)
        knocking.go_on()
    assert not knocking.refused
    after = each(server, "InvocationID", all_units())
    assert {other for other in after if after[other] != before[other]} == {unit}


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
    server.run("DEBIAN_FRONTEND=noninteractive apt-get purge -y restpipe")
    assert not server.run("find /etc /var/lib/restpipe -name '*restpipe*' 2>/dev/null || true")
