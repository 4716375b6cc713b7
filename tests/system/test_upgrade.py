"""The package's life: upgraded under load, removed, purged, installed again; both roles on one machine."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.ledger import Load, keep_ledger
from tests.system.machines import Image, Machine, booted, copy_checkout
from tests.system.walkthrough import ask, join


@pytest.fixture(scope="module")
def own(image: Image, work: Path) -> Iterator[list[Machine]]:
    with tempfile.TemporaryDirectory(dir=work) as folder, booted(image, Path(folder), "pipe", "web1") as both:
        yield both


@pytest.fixture
def own_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def previous(image: Image, work: Path) -> Path:
    """An older version of the package, which shipped another configuration."""
    checkout = copy_checkout(image.checkout, work / f"previous-{image.suite}")
    for role in ("server", "client"):
        with (checkout / f"packaging/etc/{role}.toml").open("a") as file:
            file.write("# As it was in the version before.\n")
    return image.build("0.9.9", checkout=checkout)


def test_upgrade_under_load(own: list[Machine], image: Image, previous: Path) -> None:
    """Events wait while the parts restart: not even one is refused. What a user has written is kept."""
    server, client = own
    join(server, client, previous)
    keep_ledger(server)
    client.wait_answer("client", "/server/entry")
    mine = "sha256sum /var/lib/restpipe/server/* /var/lib/restpipe/ca/* /etc/restpipe/server.toml 2>/dev/null"
    before = server.run(f"{mine} || true")
    assert "/key.pem" in before
    with Load(client, server, readers=2) as load:
        for machine in (server, client):
            pids = {unit: machine.main_pid(unit) for unit in machine.parts()}
            machine.install(image.package)
            assert all(machine.main_pid(unit) != pid for unit, pid in pids.items()), (
                "restarted by the upgrade"
            )
            load.go_on(100)
    assert load.reads > 100
    assert not load.failed_reads, load
    assert not load.unknown, load
    assert not load.refused, load
    assert server.run("dpkg-query --show restpipe").split() == ["restpipe", image.version]
    assert server.run(f"{mine} || true") == before
    assert "the version before" not in client.file("/etc/restpipe/client.toml").read_text()


def test_both_roles_on_one_machine(own: list[Machine]) -> None:
    server, client = own
    said = server.run("cd /root && restpipe-ca issue here --dial localhost")
    server.run(f"cd /root && {said.strip().splitlines()[-1].strip()} && systemctl start restpipe-client")
    server.wait_answer("client", "/server/entry")
    assert "time_from_client" in ask(server, "server", "/client/here/time")
    assert "time_from_client" in ask(server, "server", "/client/web1/time")
    client.wait_answer("client", "/server/entry")


def test_remove_keeps_and_reinstall_works(own: list[Machine], image: Image) -> None:
    server, client = own
    key = server.run("sha256sum /var/lib/restpipe/server/key.pem")
    server.run("DEBIAN_FRONTEND=noninteractive apt-get remove -y restpipe")
    assert not server.run("ps -eo args | grep '[/]usr/bin/restpipe' || true")
    assert not server.file("/run/restpipe-server/web.sock").exists()
    assert server.run("sha256sum /var/lib/restpipe/server/key.pem") == key
    server.install(image.package)
    server.run("systemctl start restpipe-server")
    client.wait_answer("client", "/server/entry")


def test_purge_leaves_nothing_of_ours(own: list[Machine], image: Image) -> None:
    server, client = own
    server.run("DEBIAN_FRONTEND=noninteractive apt-get purge -y restpipe")
    left = server.run(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /var/cache -o -path /root -o -path '/var/log/*' "
        "-o -path /var/lib/apt -o -path /tmp -o -path /var/tmp \\) -prune -o -name '*restpipe*' -print"
    ).split()
    # What the administrator has laid there, and what systemd and dpkg keep of users.
    assert set(left) <= {"/etc/systemd/system/restpipe-server-handlers@.service.d"}, left
    assert server.file("/var/lib/ledger/lines").exists()
    join_again(server, client, image)


def join_again(server: Machine, client: Machine, image: Image) -> None:
    """The client's old identity is of an authority that is gone: the same steps give it a new one."""
    client.run("DEBIAN_FRONTEND=noninteractive apt-get purge -y restpipe; rm -f /root/web1.bundle")
    server.run("rm -f /root/web1.bundle /root/here.bundle")
    join(server, client)
    client.wait_answer("client", "/server/time")


def test_the_same_bytes_twice(image: Image, work: Path, own_umask: None) -> None:
    """From another copy of the checkout, made by somebody with another umask, at another time."""
    first = image.package.read_bytes()
    again = image.build(image.version, checkout=copy_checkout(image.checkout, work / f"again-{image.suite}"))
    assert again.read_bytes() == first
    assert subprocess.run(["dpkg-deb", "--info", image.package], capture_output=True).returncode == 0
