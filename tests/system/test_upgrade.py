"""The package's life: upgraded under load, removed, purged, installed again; both roles on one machine."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.ledger import Load, keep_ledger
from tests.system.machines import Image, Machine, booted
from tests.system.walkthrough import ask, join


@pytest.fixture(scope="module")
def own(image: Image, work: Path) -> Iterator[list[Machine]]:
    with tempfile.TemporaryDirectory(dir=work) as folder, booted(image, Path(folder), "pipe", "web1") as both:
        yield both


def test_upgrade_under_load(own: list[Machine], image: Image) -> None:
    server, client = own
    newest = image.package
    image.package = image.build("0.9.9")
    try:
        join(server, client)
    finally:
        image.package = newest
    keep_ledger(server)
    server.run("echo '# mine' >> /etc/restpipe/server.toml")
    client.wait_answer("client", "/server/entry")
    before = server.run("sha256sum /var/lib/restpipe/server/key.pem /etc/restpipe/server.toml")
    with Load(client, server) as load:
        server.install(newest)
        client.install(newest)
        load.go_on(100)
    assert "0.9.9" not in server.run("dpkg-query --show restpipe")
    assert server.run("sha256sum /var/lib/restpipe/server/key.pem /etc/restpipe/server.toml") == before


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


def test_manual_completion_and_examples(own: list[Machine]) -> None:
    server, _client = own
    for page in ("restpipe", "restpipe-ca", "restpipe-identity-install", "restpipe.toml"):
        server.run(f"man -w {page} || ls /usr/share/man/man*/{page}.*")
    words = server.run(
        "bash -c '. /usr/share/bash-completion/completions/restpipe; "
        "COMP_WORDS=(restpipe con); COMP_CWORD=1; "
        "compopt() { :; }; _restpipe restpipe con; echo ${COMPREPLY[*]}'"
    )
    assert words.strip() == "config"
    server.run("cd /usr/share/doc/restpipe/examples && python3 -m py_compile shop.py; rm -rf __pycache__")
    assert json.loads(server.run("restpipe config server --json"))


def test_the_same_bytes_twice(image: Image, work: Path) -> None:
    first = image.package.read_bytes()
    image.build(image.version)
    assert image.package.read_bytes() == first
    assert subprocess.run(["dpkg-deb", "--info", image.package], capture_output=True).returncode == 0
