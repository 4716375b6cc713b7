"""The package's life: upgraded under load, removed, purged, installed again; both roles on one machine."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from restpipe import __version__
from tests.system.ledger import Load, keep_ledgers
from tests.system.machines import Image, Machine, booted, copy_checkout, unit_of
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


OLD = "0.9.9"
OLD_MARK = "RESTPIPE_OF_THE_VERSION_BEFORE"


@pytest.fixture
def previous(image: Image, work: Path) -> Path:
    """An older release: other code, another configuration, other units."""
    checkout = copy_checkout(image.checkout, work / f"previous-{image.suite}")
    _replace(checkout / "restpipe/__init__.py", f'__version__ = "{__version__}"', f'__version__ = "{OLD}"')
    for part in ("pipe", "web", "handlers@"):
        unit = checkout / f"systemd/{unit_of('ROLE', part)}.service"
        _replace(unit, "[Service]\n", f"[Service]\nEnvironment={OLD_MARK}=1\n")
    for role in ("server", "client"):
        with (checkout / f"packaging/etc/{role}.toml").open("a") as file:
            file.write("# As it was in the version before.\n")
    return image.build(OLD, checkout=checkout)


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, file
    file.write_text(text.replace(old, new))


def releases(server: Machine, client: Machine) -> list[str]:
    """Which code answers on each, and which is installed."""
    answers = [
        client.wait_answer("client", "/server/release").body.decode(),
        server.wait_answer("server", "/client/web1/release").body.decode(),
    ]
    return answers + [machine.run("restpipe --version").split()[-1] for machine in (server, client)]


def of_old_units(machine: Machine) -> list[str]:
    """The parts that run as the older release's units have it."""
    return [
        unit
        for unit in machine.parts()
        if OLD_MARK in machine.run(f"cat /proc/{machine.main_pid(unit)}/environ")
    ]


def test_upgrade_under_load(own: list[Machine], image: Image, previous: Path) -> None:
    """Events wait while the parts restart: not even one is refused. What a user has written is kept."""
    server, client = own
    join(server, client, previous)
    keep_ledgers(server, client)
    assert releases(server, client) == [OLD] * 4
    assert len(of_old_units(server)) == len(of_old_units(client)) == 3
    kept = {server: written(server, "server"), client: written(client, "client")}
    assert "/ca.key" in kept[server]
    with Load(client, server, readers=1) as load:
        for machine in (server, client):
            pids = {unit: machine.main_pid(unit) for unit in machine.parts()}
            machine.install(image.package)
            assert all(machine.main_pid(unit) != pid for unit, pid in pids.items()), (
                "restarted by the upgrade"
            )
            load.go_on(50)
    assert load.reads > 100
    assert not load.failed_reads, load
    assert not load.refused, load
    assert releases(server, client) == [__version__] * 4
    assert not of_old_units(server) + of_old_units(client)
    for machine in own:
        assert machine.run("dpkg-query --show restpipe").split() == ["restpipe", image.version]
    assert {server: written(server, "server"), client: written(client, "client")} == kept
    # Whoever has written nothing gets what is new.
    for machine, role in ((server, "client"), (client, "server")):
        assert "the version before" not in machine.file(f"/etc/restpipe/{role}.toml").read_text()


def written(machine: Machine, role: str) -> str:
    """Sums of what an upgrade has to keep."""
    files = f"/var/lib/restpipe/{role}/*.pem $(find /var/lib/restpipe/ca -type f) /etc/restpipe/{role}.toml"
    sums = machine.try_run(f"sha256sum {files}").stdout
    assert f"/{role}/key.pem" in sums and f"/{role}.toml" in sums
    return sums


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
