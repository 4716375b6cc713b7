"""What is in the package, its own tests, and how it is installed where something is in the way."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.conditions import wait_for
from tests.system.machines import Image, Machine, booted

AUTOPKGTEST = "packaging/debian/tests"
SQUATTER = (
    "import socket, time; s = socket.create_server(('0.0.0.0', 1234)); "
    "print('here', flush=True); time.sleep(1000)"
)


@pytest.fixture
def machine(image: Image, work: Path) -> Iterator[Machine]:
    """One without network, with nothing on it yet."""
    with tempfile.TemporaryDirectory(dir=work) as folder, booted(image, Path(folder), "alone") as [machine]:
        machine.run("ip link set lo up")
        yield machine


def test_manual_pages_for_every_command(installed: Machine) -> None:
    walk = (
        "import click\nfrom restpipe.cli import cli\nfrom restpipe_ca.cli import cli as ca\n"
        "def walk(words, command):\n"
        "    print('-'.join(words))\n"
        "    for name, sub in getattr(command, 'commands', {}).items(): walk((*words, name), sub)\n"
        "walk(('restpipe',), cli); walk(('restpipe-ca',), ca)\n"
    )
    pages = installed.run(f"python3 -c {shlex.quote(walk)}").split()
    assert len(pages) > 8
    for page in [*pages, "restpipe.toml"]:
        shown = installed.try_run(f"MANWIDTH=80 man --warnings --encoding=UTF-8 {page} | head -20")
        assert "NAME" in shown.stdout, shown
        assert not shown.stderr, shown


@pytest.mark.parametrize(
    ("words", "wanted"),
    [("restpipe con", "config"), ("restpipe-ca iss", "issue"), ("restpipe pipe se", "server")],
)
def test_completion(installed: Machine, words: str, wanted: str) -> None:
    """As bash loads it: by the command's name."""
    command, last = words.split()[0], words.split()[-1]
    script = (
        f". /usr/share/bash-completion/completions/{command}; compopt() {{ :; }}; "
        f"COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; "
        f"$(complete -p {command} | sed 's/.*-F \\([^ ]*\\).*/\\1/') {command} {last}; echo ${{COMPREPLY[*]}}"
    )
    assert installed.run(f"bash -c {shlex.quote(script)}").strip() == wanted


def test_documentation(installed: Machine) -> None:
    installed.run("test -s /usr/share/doc/restpipe/changelog.gz && test -s /usr/share/doc/restpipe/copyright")
    assert installed.run("find /usr/share/doc/restpipe -name 'README.md*'")
    assert json.loads(installed.run("restpipe config server --json"))


SHOP = """
[handlers]
event_class = "shop.Shop"
path = "/usr/share/doc/restpipe/examples"
"""


def test_the_example_serves(installed: Machine) -> None:
    """Both roles on one machine: what the server has is asked on the client, and the other way round."""
    for role in ("server", "client"):
        installed.put(f"/etc/restpipe/{role}.toml", SHOP)
    installed.run("systemctl start restpipe-server && cd /root && restpipe-ca issue web1 --dial localhost")
    installed.run("cd /root && restpipe identity install web1.bundle && systemctl start restpipe-client")
    for role, path in (("client", "/server"), ("server", "/client/web1")):
        answer = installed.wait_answer(role, f"{path}/stock//4711")
        assert answer.json == {"article": "4711", "stock": 12}
        ordered = installed.http(role).request(
            "POST",
            f"{path}/order/line?urgent=yes",
            {"Content-Type": "application/json"},
            b'{"count": 3}',
        )
        assert ordered.body.decode() == f"{'web1' if role == 'client' else 'server'} ordered 3, urgent: yes"


def test_firewalls_know_it(installed: Machine) -> None:
    installed.run("DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ufw firewalld")
    assert "1234/tcp" in installed.run("ufw app info RestPipe")
    assert "1234/tcp" in installed.run("firewall-offline-cmd --info-service=restpipe")


@pytest.mark.parametrize("name", ["walkthrough", "suite"])
def test_autopkgtest(machine: Machine, image: Image, name: str) -> None:
    """As debian/tests/control has it run: dependencies, user, folder, and nothing on standard error."""
    stanza = _stanza(image.checkout, name)
    machine.install(image.package)
    depends = " ".join(word for word in stanza["Depends"].split(", ") if word != "@")
    machine.run(f"apt-get install -y --no-install-recommends {depends}", timeout_s=300)
    machine.copy(image.checkout, "/srv/source")
    machine.run("cp -r /srv/source/packaging/debian /srv/source/debian && useradd --create-home tester")
    user = "root" if "needs-root" in stanza["Restrictions"] else "tester"
    machine.run(f"install -d -o {user} /srv/scratch")
    done = machine.try_run(
        f"cd /srv/source && AUTOPKGTEST_TMP=/srv/scratch HOME=/srv/scratch sh debian/tests/{name}",
        user=user,
        timeout_s=600,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{machine.journal()}"
    assert not done.stderr or "allow-stderr" in stanza["Restrictions"], done.stderr


def _stanza(checkout: Path, name: str) -> dict[str, str]:
    for text in (checkout / AUTOPKGTEST / "control").read_text().split("\n\n"):
        stanza = dict(line.split(": ", 1) for line in text.strip().splitlines())
        if name in stanza["Tests"].split():
            return stanza
    raise AssertionError(f"debian/tests/control has no {name}")


def test_a_port_that_is_taken_when_it_is_installed(machine: Machine) -> None:
    machine.run(f'systemd-run --unit=squatter python3 -c "{SQUATTER}"')
    wait_for(lambda: "here" in machine.journal("-u squatter"), "the port to be taken")
    machine.install(machine.image.package)
    assert machine.try_run("systemctl start restpipe-server").returncode != 0
    wait_for(lambda: "cannot listen at 0.0.0.0:1234" in machine.journal("-u restpipe-server"), "a clear line")
    machine.run("systemctl stop squatter")
    wait_for(lambda: machine.show("restpipe-server", "ActiveState") == "active", "it to listen after all")
    assert machine.run("ss -Hltn sport = :1234")


def test_no_room_for_what_it_keeps(machine: Machine) -> None:
    """The first start on a full disk says so, and makes authority and identity as soon as there is room."""
    machine.run("mkdir /var/lib/restpipe && mount -t tmpfs -o size=64k,mode=755 tmpfs /var/lib/restpipe")
    machine.run("dd if=/dev/zero of=/var/lib/restpipe/filler bs=4k 2>/dev/null || true")
    machine.install(machine.image.package)
    machine.try_run("systemctl start restpipe-server")
    wait_for(lambda: "No space left on device" in machine.journal("-u 'restpipe-server*'"), "a clear line")
    assert "Traceback" not in machine.journal("-u 'restpipe-server*'")
    machine.run("rm /var/lib/restpipe/filler")
    wait_for(lambda: machine.show("restpipe-server", "ActiveState") == "active", "it to start after all", 60)
    assert "restpipe identity install" in machine.run("cd /root && restpipe-ca issue web1")


def test_no_room_for_the_package(machine: Machine) -> None:
    """dpkg says so; the same command does it when there is room."""
    folder = "/usr/lib/python3/dist-packages/restpipe"
    machine.run(f"mkdir -p {folder} && mount -t tmpfs -o size=64k,mode=755 tmpfs {folder}")
    with pytest.raises(AssertionError, match="No space left on device"):
        machine.install(machine.image.package)
    machine.run(f"umount {folder}")
    machine.install(machine.image.package)
    assert "There is no identity on this host" in machine.try_run("restpipe identity show").stdout
    # Whoever makes the CA before is no worse off, and no client that it names either.
    machine.run("restpipe-ca init && cd /root && restpipe-ca issue web0 --dial localhost")
    machine.run("systemctl start restpipe-server")
    assert "restpipe identity install" in machine.run("cd /root && restpipe-ca issue web1")
    # Of the one role that is used here.
    assert machine.run("restpipe identity show").startswith("server in /var/lib/restpipe/server")
