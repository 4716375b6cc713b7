"""Who may do what, and how little each part can do."""

from __future__ import annotations

import pytest

from tests.system.machines import Machine, unit_of
from tests.system.walkthrough import ask

THRESHOLDS = {"pipe": 12, "web": 9, "handlers@1": 9}
GIB = 1 << 30
LIMITS = {
    # The pipe daemon holds a private key, which no core dump is to have.
    "pipe": {"MemoryMax": 2 * GIB, "TasksMax": 128, "LimitNOFILE": 65536, "LimitCORE": 1},
    "web": {"MemoryMax": GIB, "TasksMax": 512, "LimitNOFILE": 65536},
    "handlers@1": {"MemoryMax": 2 * GIB, "TasksMax": 1024, "LimitNOFILE": 65536},
}


@pytest.fixture(scope="module", autouse=True)
def users(joined: tuple[Machine, Machine]) -> None:
    for machine in joined:
        machine.run("id app || useradd -G restpipe app; id stranger || useradd stranger")


def test_members_of_the_group_may_curl_and_others_may_not(joined: tuple[Machine, Machine]) -> None:
    server, client = joined
    # A client never seen yet is 404, and starting a role does not wait for its first connection.
    server.wait_answer("server", "/client/web1/time")
    for machine, role, target, key in (
        (server, "server", "/client/web1/time", "time_from_client"),
        (client, "client", "/server/time", "time_from_server"),
    ):
        assert key in ask(machine, role, target, user="app")
        path = f"/run/restpipe-{role}/web.sock"
        done = machine.try_run(f"curl -sS --unix-socket {path} http://localhost{target}", user="stranger")
        assert done.returncode == 7, done
        assert "PermissionError" in machine.try_run(connecting_to(path), user="stranger").stderr


def connecting_to(path: str) -> str:
    return f"python3 -c \"import socket; socket.socket(socket.AF_UNIX).connect('{path}')\""


@pytest.mark.parametrize("user", ["app", "restpipe-web", "restpipe-handlers", "stranger"])
def test_a_key_is_the_daemons_alone(joined: tuple[Machine, Machine], user: str) -> None:
    server, client = joined
    for machine, role in ((server, "server"), (client, "client")):
        assert machine.try_run(f"cat /var/lib/restpipe/{role}/key.pem", user=user).returncode != 0
        machine.run(f"cat /var/lib/restpipe/{role}/key.pem", user="restpipe-pipe")
    assert server.try_run("cat /var/lib/restpipe/ca/ca.key", user="restpipe-pipe").returncode != 0


@pytest.mark.parametrize(
    ("user", "socket"),
    [("app", "events"), ("app", "handlers"), ("restpipe-web", "handlers"), ("restpipe-handlers", "events")],
)
def test_each_part_reaches_its_own_socket_only(
    joined: tuple[Machine, Machine], user: str, socket: str
) -> None:
    done = joined[0].try_run(connecting_to(f"/run/restpipe-server/{socket}.sock"), user=user)
    assert "PermissionError" in done.stderr


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("part", list(THRESHOLDS))
def test_hardening(joined: tuple[Machine, Machine], role: str, part: str) -> None:
    machine = joined[role == "client"]
    unit = f"{unit_of(role, part)}.service"
    done = machine.try_run(f"systemd-analyze security --no-pager --threshold={THRESHOLDS[part]} {unit}")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("part", list(LIMITS))
def test_resource_limits(joined: tuple[Machine, Machine], role: str, part: str) -> None:
    """As the manager has read them; of those that hold without its groups, what a process has."""
    machine = joined[role == "client"]
    unit = unit_of(role, part)
    assert {name: int(machine.show(unit, name)) for name in LIMITS[part]} == LIMITS[part]
    # Unless the whole machine has less: a container has no say over that.
    most = min(LIMITS[part]["LimitNOFILE"], open_files(machine, 1))
    assert open_files(machine, machine.main_pid(unit)) == most
    # Of web workers one is killed, and gunicorn starts another; beside a handler worker it may be the check
    # of new code.
    assert machine.show(unit, "OOMPolicy") == ("stop" if part == "pipe" else "continue")


def open_files(machine: Machine, pid: int) -> int:
    """How many a process may have at most."""
    return int(machine.run(f"grep '^Max open files' /proc/{pid}/limits").split()[4])


def test_four_users(joined: tuple[Machine, Machine]) -> None:
    found = joined[0].run("ps -eo user:20,args | grep '[/]usr/bin/restpipe' | awk '{print $1, $4}' | sort -u")
    assert {tuple(line.split()) for line in found.splitlines()} >= {
        ("restpipe-handlers", "handlers"),
        ("restpipe-pipe", "pipe"),
        ("restpipe-web", "web"),
    }, found
