"""Who may do what, and how little each part can do."""

from __future__ import annotations

import pytest

from tests.system.machines import Machine
from tests.system.walkthrough import FOUR, ask

THRESHOLDS = {"pipe": 12, "web": 9, "handlers@1": 9}


@pytest.fixture(scope="module", autouse=True)
def users(joined: tuple[Machine, Machine]) -> None:
    for machine in joined:
        machine.run("id app || useradd -G restpipe app; id stranger || useradd stranger")


def test_members_of_the_group_may_curl_and_others_may_not(joined: tuple[Machine, Machine]) -> None:
    server, client = joined
    # A client never seen yet is 404, and starting a role does not wait for its first connection.
    server.wait_answer("server", "/client/web1/time")
    assert "time_from_client" in ask(server, "server", "/client/web1/time", user="app")
    for role, target, _key in FOUR[:1]:
        done = client.try_run(
            f"curl -sS --unix-socket /run/restpipe-{role}/web.sock http://localhost{target}", user="stranger"
        )
        assert done.returncode == 7, done


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
    path = f"/run/restpipe-server/{socket}.sock"
    probe = f"python3 -c \"import socket; socket.socket(socket.AF_UNIX).connect('{path}')\""
    done = joined[0].try_run(probe, user=user)
    assert "PermissionError" in done.stderr


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("part", list(THRESHOLDS))
def test_hardening(joined: tuple[Machine, Machine], role: str, part: str) -> None:
    machine = joined[role == "client"]
    unit = f"restpipe-{role}-{part}.service"
    done = machine.try_run(f"systemd-analyze security --no-pager --threshold={THRESHOLDS[part]} {unit}")
    assert done.returncode == 0, done.stdout


def test_four_users(joined: tuple[Machine, Machine]) -> None:
    found = joined[0].run("ps -eo user:20,args | grep '[/]usr/bin/restpipe' | awk '{print $1, $4}' | sort -u")
    assert {tuple(line.split()) for line in found.splitlines()} >= {
        ("restpipe-handlers", "handlers"),
        ("restpipe-pipe", "pipe"),
        ("restpipe-web", "web"),
    }, found
