"""Restarts and reloads by hand, under load: of the whole, of each part, and of the user's code."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from tests.support.conditions import wait_for
from tests.system.journal import cursor, lines_since
from tests.system.ledger import CODE, Load
from tests.system.machines import PARTS, Machine, unit_of

KNOCK = """
import os, socket, time
knocks = failed = 0
while os.path.exists("/run/knocking"):
    with socket.socket() as knock:
        knock.settimeout(15)
        try:
            knock.connect(("127.0.0.1", 1234))
            knocks += 1
        except OSError:
            failed += 1
    time.sleep(0.02)
print(knocks, failed)
"""


@pytest.mark.parametrize(("role", "part"), [("server", part) for part in PARTS] + [("client", "pipe")])
def test_each_part_restarts_alone(ledger: tuple[Machine, Machine], role: str, part: str) -> None:
    """The daemon, too, by `systemctl kill`: it finishes in good order, and is started again."""
    server, client = ledger
    machine = server if role == "server" else client
    before, start = pids(machine, role), cursor(machine)
    with Load(client, server) as load:
        if part == "pipe":
            machine.restart_daemon(role)
        else:
            machine.run(f"systemctl restart {unit_of(role, part)}")
        load.go_on()
    assert not load.unknown, load
    after = pids(machine, role)
    assert {part for part in PARTS if after[part] != before[part]} == {part}
    assert "Failed with result" not in lines_since(machine, start, unit_of(role, part))


def pids(machine: Machine, role: str) -> dict[str, int]:
    return {part: machine.main_pid(unit_of(role, part)) for part in PARTS}


@pytest.mark.parametrize("role", ["server", "client"])
def test_the_whole_restarts(ledger: tuple[Machine, Machine], role: str) -> None:
    server, client = ledger
    machine = server if role == "server" else client
    before = pids(machine, role)
    with Load(client, server) as load:
        machine.run(f"systemctl restart restpipe-{role}")
        load.go_on()
    after = pids(machine, role)
    assert all(after[part] != before[part] for part in PARTS)


def test_however_often_it_is_restarted_it_starts(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    for _ in range(8):
        server.run("systemctl restart restpipe-server")
    assert server.run("systemctl is-active restpipe-server").strip() == "active"
    client.wait_answer("client", "/server/entry")


def test_stop_stops_and_start_starts_all(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    server.run("systemctl stop restpipe-server")
    sockets = [f"restpipe-server-{name}.socket" for name in ("events", "handlers", "web")]
    units = [*sockets, *(unit_of("server", part) for part in PARTS)]
    assert not [unit for unit in units if server.try_run(f"systemctl is-active {unit}").returncode == 0]
    assert not server.file("/run/restpipe-server/web.sock").exists()
    server.run("systemctl start restpipe-server")
    client.wait_answer("client", "/server/entry")


MODE = "/etc/systemd/system/restpipe-server-web.socket.d/mode.conf"


@pytest.mark.parametrize(
    "orders",
    [
        ["restart restpipe-server-web.socket"],
        ["restart restpipe-server-events.socket"],
        ["stop restpipe-server-handlers.socket", "start restpipe-server"],
        ["stop restpipe-server-web.socket", "restart restpipe-server"],
        ["restart 'restpipe-server*'"],
    ],
)
def test_an_order_to_a_socket_ends_in_a_role_that_works(
    ledger: tuple[Machine, Machine], orders: list[str]
) -> None:
    server, client = ledger
    *_, last = [server.try_run(f"systemctl {order}") for order in orders]
    # A start while it stops may have to be made up for.
    assert last.returncode == 0 or "start" in orders[-1].split(), last
    server.wait_answer("server", "/client/web1/entry")
    client.wait_answer("client", "/server/entry")
    listed = "systemctl list-units --failed --plain --no-legend 'restpipe*'"
    wait_for(lambda: not server.run(listed), "nothing to be listed as failed", 60)


def test_another_mode_of_the_socket(ledger: tuple[Machine, Machine]) -> None:
    server, _client = ledger
    for text, mode in (("[Socket]\nSocketMode=0666\n", "666"), ("[Socket]\n", "660")):
        server.put(MODE, text)
        server.run("systemctl daemon-reload && systemctl restart restpipe-server-web.socket")
        assert server.run("stat -c %a /run/restpipe-server/web.sock").strip() == mode
        server.wait_answer("server", "/client/web1/entry")
    server.run(f"rm -r {MODE.rpartition('/')[0]} && systemctl daemon-reload")


def test_no_connect_is_refused_meanwhile(ledger: tuple[Machine, Machine]) -> None:
    server, _client = ledger
    path = str(server.file("/run/restpipe-server/web.sock"))
    refused: list[OSError] = []
    connects = 0
    stop = threading.Event()

    def knock() -> None:
        nonlocal connects
        while not stop.is_set():
            with socket.socket(socket.AF_UNIX) as sock:
                try:
                    sock.connect(path)
                    connects += 1
                except OSError as error:
                    refused.append(error)
            time.sleep(0.005)

    knocking = threading.Thread(target=knock)
    knocking.start()
    # At the pipe's port, from the inside, until told to stop; one line at the end.
    server.put("/run/knocking", "")
    answer: list[str] = []
    asking = threading.Thread(target=lambda: answer.append(server.run(f"python3 -c '{KNOCK}'")))
    asking.start()
    try:
        for how in (
            "kill restpipe-server",
            "kill --kill-whom=main --signal=KILL restpipe-server",
            "restart restpipe-server",
        ):
            before = server.main_pid("restpipe-server")
            server.run(f"systemctl {how}")
            wait_for(
                lambda: server.main_pid("restpipe-server") not in (0, before),  # noqa: B023
                f"another daemon after {how}",
            )
            server.wait_answer("server", "/client/web1/entry")
    finally:
        server.run("rm /run/knocking")
        asking.join(60)
        stop.set()
        knocking.join(60)
    (told,) = answer
    knocks, failed = told.split()
    assert failed == "0"
    assert int(knocks) > 100
    assert not refused
    assert connects > 100


@pytest.mark.parametrize("role", ["server", "client"])
def test_reload(ledger: tuple[Machine, Machine], role: str) -> None:
    server, client = ledger
    machine = server if role == "server" else client
    pid = machine.main_pid(f"restpipe-{role}")
    with Load(client, server) as load:
        machine.run(f"systemctl reload restpipe-{role}")
        load.go_on(200)
    assert not load.unknown, load
    assert not load.refused, load
    assert machine.main_pid(f"restpipe-{role}") == pid


def test_new_code_with_no_failed_request(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    unit, start = "restpipe-server-handlers@1", cursor(server)
    with Load(client, server) as load:
        server.put("/srv/ledger/ledger.py", CODE.replace("VERSION = 1", "VERSION = 2"))
        server.run(f"systemctl reload {unit}")
        wait_for(lambda: load.to_server.versions[2] > 20, f"answers of the new code\n{load}", 60)
        # Whoever has taken the place finishes in good order, too.
        server.run(f"systemctl restart {unit}")
        load.go_on()
    assert load.to_server.versions[1]
    assert not load.unknown, load
    assert not load.refused, load
    assert server.show(unit, "NRestarts") == "0"
    told = lines_since(server, start, unit)
    assert "not our child" not in told
    assert "SIGKILL" not in told


def test_code_that_cannot_be_loaded_is_refused_and_the_old_goes_on(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    server.put("/srv/ledger/ledger.py", "import nowhere_to_be_found\n")
    done = server.try_run("systemctl reload restpipe-server-handlers@1")
    assert done.returncode != 0
    assert "nowhere_to_be_found" in server.journal("-u restpipe-server-handlers@1")
    assert client.wait_answer("client", "/server/entry").json in (1, 2)
    server.put("/srv/ledger/ledger.py", CODE)
    server.run("systemctl reload restpipe-server-handlers@1")
    wait_for(lambda: client.wait_answer("client", "/server/entry").json == 1, "the first code again")
