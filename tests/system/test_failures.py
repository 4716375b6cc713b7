"""What can go wrong under systemd, each with the ledger: lost 0, twice 0, and all comes back by itself."""

from __future__ import annotations

import json

import pytest

from tests.support.conditions import wait_for
from tests.system.ledger import CODE, Load, keep_ledger
from tests.system.machines import Machine


@pytest.fixture(scope="module")
def ledger(joined: tuple[Machine, Machine]) -> tuple[Machine, Machine]:
    server, client = joined
    keep_ledger(server)
    client.wait_answer("client", "/server/entry")
    return server, client


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("part", ["pipe", "web", "handlers@1"])
def test_killed(ledger: tuple[Machine, Machine], role: str, part: str) -> None:
    server, client = ledger
    machine = server if role == "server" else client
    unit = f"restpipe-{role}-{part}"
    before = machine.main_pid(unit)
    with Load(client, server) as load:
        machine.run(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
        wait_for(lambda: machine.main_pid(unit) not in (0, before), f"{unit} to come back", 60)
        load.go_on()


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_daemon_that_stands_still_is_restarted(ledger: tuple[Machine, Machine], role: str) -> None:
    server, client = ledger
    machine = server if role == "server" else client
    unit = f"restpipe-{role}-pipe"
    before = machine.main_pid(unit)
    with Load(client, server) as load:
        machine.run(f"systemctl kill --kill-whom=main --signal=STOP {unit}")
        wait_for(lambda: machine.main_pid(unit) not in (0, before), f"{unit} to come back", 90)
        load.go_on()
    assert "watchdog" in machine.journal(f"-u {unit}").lower()


def test_memory_limit(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    unit = "restpipe-server-handlers@1"
    before = server.main_pid(unit)
    with Load(client, server, threads=2) as load:
        if server.show(unit, "MemoryCurrent").isdecimal():
            server.run(f"systemctl set-property --runtime {unit} MemoryMax=200M")
            answer = client.http("client").get("/server/eat", {"Prefer": "wait=8"})
            assert answer.event_code != 0
            wait_for(lambda: server.main_pid(unit) not in (0, before), f"{unit} to come back", 60)
            server.run(f"systemctl set-property --runtime {unit} MemoryMax=2G")
        else:
            # This host gives containers no memory controller: the process' own limit stands in for it.
            server.run(f"prlimit --pid {before} --as=4000000000")
            answer = client.http("client").get("/server/eat")
            assert (answer.event_code, answer.json["exception"]["class"]) == (251, "MemoryError"), answer
        load.go_on()


def test_user_code_that_fails_in_a_loop(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    unit = "restpipe-server-handlers@1"
    pipe = server.main_pid("restpipe-server-pipe")
    server.put("/srv/ledger/ledger.py", "import nowhere_to_be_found\n")
    try:
        server.try_run(f"systemctl restart {unit}")
        wait_for(lambda: int(server.show(unit, "NRestarts")) >= 2, "two restarts", 60)
        wait_for(lambda: "nowhere_to_be_found" in server.show(unit, "StatusText"), "a status that says why")
        answer = client.http("client").get("/server/entry", {"Prefer": "wait=1"})
        assert (answer.status, answer.json["type"]) == (503, "urn:restpipe:problem:no-handler")
        assert json.loads(server.http("server").get("/client/web1/time").body)
        assert server.main_pid("restpipe-server-pipe") == pipe
    finally:
        server.put("/srv/ledger/ledger.py", CODE)
    client.wait_answer("client", "/server/entry")


def test_full_disk(ledger: tuple[Machine, Machine]) -> None:
    """Of the pipe daemons' own folder; the ledger is elsewhere."""
    server, client = ledger
    server.run("systemctl stop restpipe-server && cp -a /var/lib/restpipe/server /root/saved")
    server.run("mount -t tmpfs -o size=256k,mode=700 tmpfs /var/lib/restpipe/server")
    try:
        server.run(
            "cp -a /root/saved/. /var/lib/restpipe/server/ && chown restpipe-pipe: /var/lib/restpipe/server"
        )
        server.try_run("dd if=/dev/zero of=/var/lib/restpipe/server/filler bs=4k")
        server.run("systemctl start restpipe-server")
        with Load(client, server) as load:
            load.go_on()
    finally:
        server.run(
            "systemctl stop restpipe-server; umount /var/lib/restpipe/server; systemctl start restpipe-server"
        )
    client.wait_answer("client", "/server/entry")


def test_a_port_that_is_taken_is_taken_later(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    server.run("systemctl stop restpipe-server")
    server.run(
        "systemd-run --unit=squatter python3 -c "
        "'import socket,time; s=socket.create_server((\"0.0.0.0\",1234)); time.sleep(1000)'"
    )
    server.run("sleep 1; systemctl start restpipe-server")
    wait_for(
        lambda: "cannot listen at 0.0.0.0:1234" in server.journal("-u restpipe-server-pipe"), "a clear line"
    )
    server.run("systemctl stop squatter")
    client.wait_answer("client", "/server/entry")


def test_reboot(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    with Load(client, server) as load:
        server.reboot()
        load.go_on()
    client.reboot()
    client.wait_answer("client", "/server/entry")
    server.wait_answer("server", "/client/web1/time")


def test_the_journal_knows_the_peer(ledger: tuple[Machine, Machine]) -> None:
    server, _client = ledger
    lines = server.run("journalctl --no-pager -o json -u 'restpipe-server*' PEER=web1").splitlines()
    assert lines
    entry = json.loads(lines[-1])
    assert "web1" in entry["MESSAGE"]
    assert entry["PRIORITY"] in ("4", "6")
    assert entry["_SYSTEMD_UNIT"] == "restpipe-server-pipe.service"
