"""What the journal is told: of whom a line is, how important it is, and not the same thing for ever."""

from __future__ import annotations

from tests.support.conditions import wait_for
from tests.system.journal import cursor, entries, since
from tests.system.machines import Machine

FLAPS = 300
FLAPPING = """
import socket, ssl
folder = "/var/lib/restpipe/client/"
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(folder + "ca.pem")
context.load_cert_chain(folder + "certificate.pem", folder + "key.pem")
context.check_hostname = False
for number in range({flaps}):
    with socket.create_connection(("pipe", 1234), 60) as sock, context.wrap_socket(sock) as link:
        link.send(b"nonsense" * (number % 2))
"""


def test_the_journal_knows_the_peer(joined: tuple[Machine, Machine]) -> None:
    server, _client = joined
    server.wait_answer("server", "/client/web1/time")
    entry = entries(server, "-u restpipe-server PEER=web1")[-1]
    assert "web1" in entry["MESSAGE"]
    assert entry["PRIORITY"] in ("4", "6")
    assert entry["_SYSTEMD_UNIT"] == "restpipe-server.service"
    assert "web1 at" in server.run("journalctl -u restpipe-server PEER=web1")


def test_the_status_is_the_daemons(joined: tuple[Machine, Machine]) -> None:
    server, client = joined
    server.wait_answer("server", "/client/web1/time")
    for machine, role, line in (
        (server, "server", 'Status: "1 client"'),
        (client, "client", "connected to "),
    ):
        status = f"systemctl status restpipe-{role}"
        wait_for(lambda: line in machine.run(status), line)  # noqa: B023
        assert f"Main PID: {machine.main_pid(f'restpipe-{role}')} (restpipe)" in machine.run(status)


def test_a_peer_that_flaps_makes_no_flood(joined: tuple[Machine, Machine]) -> None:
    server, client = joined
    client.run("systemctl stop restpipe-client")
    server.run("journalctl --sync")
    before = len(entries(server, "-b"))
    client.put("/root/flap.py", FLAPPING.format(flaps=FLAPS))
    client.run("python3 /root/flap.py", timeout_s=300)
    server.run("journalctl --sync")
    # Ten lines of a kind, and then one from time to time.
    new = [entry["MESSAGE"] for entry in entries(server, "-b")[before:]]
    assert 5 <= len([line for line in new if "web1" in line]) <= FLAPS / 4, new
    assert len(new) <= FLAPS / 2, new
    client.run("systemctl start restpipe-client")
    server.wait_answer("server", "/client/web1/time")


def test_a_client_that_is_refused_is_told_of_now_and_then(joined: tuple[Machine, Machine]) -> None:
    server, client = joined
    client.run("systemctl stop restpipe-client")
    cut = "certificate of web1, serial"
    server.run("cd /root && restpipe-ca revoke web1")
    try:
        client.run("systemctl start restpipe-client")
        line = wait_for(
            lambda: next((one for one in entries(server, "-b PEER=web1") if cut in one["MESSAGE"]), None),
            "a refusal",
        )
        assert "is revoked" in line["MESSAGE"]
    finally:
        server.run("cd /root && rm -f web1.bundle && restpipe-ca issue web1")
        client.put("/root/web1.bundle", server.run("cat /root/web1.bundle"))
        client.run("cd /root && restpipe identity install web1.bundle")
    server.wait_answer("server", "/client/web1/time")


def test_a_start_in_good_order_warns_of_nothing(joined: tuple[Machine, Machine]) -> None:
    for machine, role in zip(joined, ("server", "client"), strict=True):
        start = cursor(machine)
        machine.run(f"systemctl restart restpipe-{role}")
        joined[0].wait_answer("server", "/client/web1/time")
        machine.run("journalctl --sync")
        said = since(machine, start, f"restpipe-{role}*")
        # Of ours: the manager has its own worries in a container.
        ours = [entry for entry in said if entry["SYSLOG_IDENTIFIER"].startswith("restpipe")]
        assert ours
        warnings = [entry for entry in ours if int(entry["PRIORITY"]) <= 4]
        lines = "\n".join(f"{one.get('_PID')} {one['PRIORITY']} {one['MESSAGE']}" for one in said)
        assert not warnings, lines
