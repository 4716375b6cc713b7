"""Reloaded on machines that run, under load: configuration, certificates."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.conditions import wait_for
from tests.system.ledger import CONFIG, Load, keep_ledger
from tests.system.machines import Machine


@pytest.fixture(scope="module")
def ledger(joined: tuple[Machine, Machine]) -> tuple[Machine, Machine]:
    server, client = joined
    keep_ledger(server)
    client.wait_answer("client", "/server/entry")
    # All parts of it: what only just starts is not reloaded.
    server.wait_answer("server", "/client/web1/time")
    return server, client


@pytest.fixture
def configuration(ledger: tuple[Machine, Machine]) -> Iterator[Machine]:
    server, _client = ledger
    yield server
    server.put("/etc/restpipe/server.toml", CONFIG)
    server.run("systemctl reload restpipe-server")


OTHER = """
[web]
max_body_bytes = 10

[pipe]
port = 4321
max_clients = 7
"""


def pids(machine: Machine, role: str) -> list[int]:
    return [machine.main_pid(f"restpipe-{role}-{part}") for part in ("pipe", "web")]


def no_failures(load: Load) -> None:
    assert not load.unknown, load
    assert not load.refused, load


def test_a_reload_takes_up_the_file(ledger: tuple[Machine, Machine], configuration: Machine) -> None:
    server, client = ledger
    before = pids(server, "server")
    with Load(client, server) as load:
        server.put("/etc/restpipe/server.toml", CONFIG + OTHER)
        server.run("systemctl reload restpipe-server")
        wait_for(lambda: posted(server) == 413, "the new limit of web workers", 60)
        load.go_on()
    no_failures(load)
    assert pids(server, "server") == before
    told = server.journal("-u restpipe-server-pipe")
    assert "changed, but in force only after a restart: pipe.port" in told
    server.put("/etc/restpipe/server.toml", CONFIG)
    server.run("systemctl reload restpipe-server")
    wait_for(lambda: posted(server) != 413, "the old limit again", 60)


def posted(server: Machine) -> int:
    return server.http("server").request("POST", "/client/web1/cat", body=b"x" * 100).status


def test_a_file_that_cannot_be_used_is_refused_and_the_old_goes_on(
    ledger: tuple[Machine, Machine], configuration: Machine
) -> None:
    server, client = ledger
    before = pids(server, "server")
    with Load(client, server) as load:
        server.put("/etc/restpipe/server.toml", CONFIG + "\n[web]\nwait_s = 'soon'\n")
        done = server.try_run("systemctl reload restpipe-server")
        assert done.returncode != 0
        load.go_on()
    no_failures(load)
    assert pids(server, "server") == before
    for unit in ("restpipe-server", "restpipe-server-pipe", "restpipe-server-web"):
        wait_for(
            lambda: "web.wait_s must be a number" in server.journal(f"-u {unit}"),  # noqa: B023
            f"{unit} to say so",
        )
        assert server.show(unit, "ActiveState") == "active"


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_renewed_identity_is_taken_up_under_load(ledger: tuple[Machine, Machine], role: str) -> None:
    """By what the administrators of both do: no request fails, and the next link is made with it."""
    server, client = ledger
    machine = client if role == "client" else server
    before = pids(machine, role)
    shown = identity(machine, role)
    which = "--server" if role == "server" else ""
    with Load(client, server) as load:
        server.run(f"cd /root && restpipe-ca renew {which} {shown['name']} --out renewed.bundle")
        bundle = server.run("cat /root/renewed.bundle && rm /root/renewed.bundle")
        machine.put("/root/renewed.bundle", bundle)
        machine.run("cd /root && restpipe identity install renewed.bundle && rm renewed.bundle")
        wait_for(
            lambda: "revocation lists reloaded" in machine.journal(f"-u restpipe-{role}-pipe"),
            "the daemon to take it up",
        )
        load.go_on()
        no_failures(load)
        assert pids(machine, role) == before
        other = "client" if role == "server" else "server"
        (client if role == "server" else server).run(f"systemctl restart restpipe-{other}-pipe")
        load.go_on()
    assert not load.unknown, load
    assert pids(machine, role) == before
    assert identity(machine, role)["serial"] != shown["serial"]


def identity(machine: Machine, role: str) -> dict[str, str]:
    shown = json.loads(machine.run(f"restpipe identity show --role {role} --json"))
    return {name: str(shown[0][name]) for name in ("name", "serial")}
