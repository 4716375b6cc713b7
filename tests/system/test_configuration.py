"""Reloaded on machines that run, under load: configuration, certificates."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.conditions import wait_for
from tests.system.journal import cursor, lines_since
from tests.system.ledger import Load, config
from tests.system.machines import Machine, unit_of


@pytest.fixture
def configuration(ledger: tuple[Machine, Machine]) -> Iterator[Machine]:
    server, _client = ledger
    yield server
    server.put("/etc/restpipe/server.toml", config("server"))
    server.run("systemctl reload restpipe-server")


OTHER = """
[web]
max_body_bytes = 10

[pipe]
port = 4321
max_clients = 7
"""


def pids(machine: Machine, role: str) -> list[int]:
    return [machine.main_pid(unit_of(role, part)) for part in ("pipe", "web")]


def no_failures(load: Load) -> None:
    assert not load.unknown, load
    assert not load.refused, load


def test_a_reload_takes_up_the_file(ledger: tuple[Machine, Machine], configuration: Machine) -> None:
    server, client = ledger
    before = pids(server, "server")
    with Load(client, server) as load:
        server.put("/etc/restpipe/server.toml", config("server") + OTHER)
        server.run("systemctl reload restpipe-server")
        wait_for(lambda: posted(server) == 413, "the new limit of web workers", 60)
        load.go_on()
    no_failures(load)
    assert pids(server, "server") == before
    told = server.journal("-u restpipe-server")
    assert "changed, but in force only after a restart: pipe.port" in told
    server.put("/etc/restpipe/server.toml", config("server"))
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
        server.put("/etc/restpipe/server.toml", config("server") + "\n[web]\nwait_s = 'soon'\n")
        done = server.try_run("systemctl reload restpipe-server")
        assert done.returncode != 0
        load.go_on()
    no_failures(load)
    assert pids(server, "server") == before
    for unit in ("restpipe-server", "restpipe-server-web"):
        wait_for(
            lambda: "web.wait_s must be a number" in server.journal(f"-u {unit}"),  # noqa: B023
            f"{unit} to say so",
        )
        assert server.show(unit, "ActiveState") == "active"


SERIAL = """
import socket, ssl
folder = "/var/lib/restpipe/client/"
context = ssl.create_default_context(cafile=folder + "ca.pem")
context.load_cert_chain(folder + "certificate.pem", folder + "key.pem")
with socket.create_connection(("pipe", 1234), 60) as sock:
    with context.wrap_socket(sock, server_hostname="pipe") as link:
        print(link.getpeercert()["serialNumber"])
"""


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
        start = cursor(machine)
        machine.run("cd /root && restpipe identity install renewed.bundle && rm renewed.bundle")
        wait_for(
            lambda: "revocation lists reloaded" in lines_since(machine, start, f"restpipe-{role}"),
            "the daemon to take it up",
        )
        load.go_on()
        no_failures(load)
        assert pids(machine, role) == before
        other = "client" if role == "server" else "server"
        (client if role == "server" else server).restart_daemon(other)
        load.go_on()
        assert identity(machine, role)["serial"] != shown["serial"]
        start = cursor(server)
        shows_its_new_one(ledger, role, shown["serial"], identity(machine, role)["serial"])
        load.go_on()
        assert "is revoked" not in lines_since(server, start, "restpipe-server")
    assert pids(machine, role) == before


def shows_its_new_one(ledger: tuple[Machine, Machine], role: str, old: str, new: str) -> None:
    """On the wire: a server to whoever connects; a client's link outlives the revocation of its old one."""
    server, client = ledger
    if role == "server":
        assert int(client.run(f"python3 -c '{SERIAL}'"), 16) == int(new.replace(":", ""), 16)
        return
    start = cursor(server)
    server.run(f"restpipe-ca revoke {client.name} --serial {old}")
    wait_for(
        lambda: "the revocation list has been read anew" in lines_since(server, start, "restpipe-server"),
        "the old certificate to be revoked",
    )


def identity(machine: Machine, role: str) -> dict[str, str]:
    shown = json.loads(machine.run(f"restpipe identity show --role {role} --json"))
    return {name: str(shown[0][name]) for name in ("name", "serial")}
