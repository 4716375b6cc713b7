"""Both roles on one machine, installed and hardened, in the place of the pair that other tests start."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.integration.conftest import HANDLERS
from tests.support.conditions import TIMEOUT_S, wait_for
from tests.support.http import Http
from tests.support.identities import Identity
from tests.system.journal import cursor, lines_since
from tests.system.machines import Machine

FOLDER = "/srv/inside"
STATES = '''
"""Says in the journal which hooks were called."""
import logging

_log = logging.getLogger("states")


class Client:
    def connection_success(self, retry_attempts, last_connection_dt):
        _log.warning("hook connection_success %s", retry_attempts)

    def connection_fail(self, retry_attempts, last_connection_dt):
        _log.warning("hook connection_fail %s", retry_attempts)


class Server:
    def idle(self, waiting_since_dt, duration_s):
        _log.warning("hook idle")

    def connection_added(self, ip, count):
        _log.warning("hook connection_added %s", ip)

    def connection_removed(self, ip, count):
        _log.warning("hook connection_removed %s", ip)
'''
CONFIG = """
[handlers]
event_class = "behind.On{name}"
connection_state_class = "states.{name}"
path = "/srv/inside"
concurrency = 1000

[statsd]
host = "{statsd}"
port = "{port}"
"""


class Daemon:
    """What the tests use of a process: its unit's journal, from a moment on."""

    def __init__(self, machine: Machine, unit: str) -> None:
        self._machine = machine
        self._unit = unit
        self._start = cursor(machine)

    def log_text(self) -> str:
        return lines_since(self._machine, self._start, self._unit)

    def wait_log(self, pattern: str, timeout_s: float = TIMEOUT_S) -> re.Match[str]:
        try:
            return wait_for(
                lambda: re.search(pattern, self.log_text(), re.MULTILINE), f"/{pattern}/", timeout_s
            )
        except AssertionError as error:
            raise AssertionError(f"{self._unit}: {error}; its journal:\n{self.log_text()}") from None


class Authority:
    """The one that the server made at its first start, on the machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def folder(self) -> Path:
        return self._machine.file("/var/lib/restpipe/ca")

    def client(self, name: str = "client-1") -> Identity:
        directory = f"/srv/identities/{name}"
        if name == "client-1":
            directory = "/var/lib/restpipe/client"
        elif not self._machine.file(directory).exists():
            self._machine.run("mkdir -p /srv/identities")
            self.run("issue", name, "--pem-directory", directory)
        return Identity(name, self._machine.file(directory))

    def run(self, *arguments: str) -> str:
        return self._machine.run(f"restpipe-ca {' '.join(arguments)}")


@dataclass(frozen=True)
class Side:
    """What the tests use of a node."""

    sockets: Path
    http: Http
    pipe: Daemon


@dataclass(frozen=True)
class Inside:
    """What they use of a pair. It runs when they begin, and goes on when they end."""

    machine: Machine
    server: Side
    client: Side
    authority: Authority
    client_name: str = "client-1"
    port: int = 1234

    def start(self) -> Inside:
        """The server's daemon anew, with all that it finds; returns when both are answered."""
        self.machine.restart_daemon("server")
        self.machine.wait_answer("client", "/server/time")
        self.machine.wait_answer("server", f"/client/{self.client_name}/time")
        return self

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def set_up(machine: Machine) -> Inside:
    """From an empty machine named `server`."""
    machine.install(machine.image.package)
    for source in HANDLERS.glob("*.py"):
        machine.put(f"{FOLDER}/{source.name}", source.read_text())
    machine.put(f"{FOLDER}/states.py", STATES)
    configure(machine)
    machine.run("systemctl start restpipe-server")
    said = machine.run("cd /root && restpipe-ca issue client-1 --dial localhost")
    machine.run(f"cd /root && {said.strip().splitlines()[-1].strip()} && systemctl start restpipe-client")
    machine.wait_answer("client", "/server/time")
    machine.wait_answer("server", "/client/client-1/time")
    return seen_from_now(machine)


def seen_from_now(machine: Machine) -> Inside:
    """The same pair, whose logs begin now."""
    return Inside(machine, _side(machine, "server"), _side(machine, "client"), Authority(machine))


@contextlib.contextmanager
def network_of(machine: Machine) -> Iterator[None]:
    """What this thread connects in the block, and what commands it starts, is in the machine's network."""
    libc, new_network = ctypes.CDLL(None, use_errno=True), 0x40000000

    def enter(descriptor: int) -> None:
        if libc.setns(descriptor, new_network) != 0:
            raise OSError(ctypes.get_errno(), "another network namespace")

    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open(f"/proc/{machine.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(other)
        try:
            yield
        finally:
            enter(own)
    finally:
        os.close(own)
        os.close(other)


def configure(machine: Machine, statsd: str = "", port: str = "") -> None:
    for role in ("server", "client"):
        text = CONFIG.format(name=role.capitalize(), statsd=statsd, port=port)
        machine.put(f"/etc/restpipe/{role}.toml", text)


def _side(machine: Machine, role: str) -> Side:
    daemon = Daemon(machine, f"restpipe-{role}")
    return Side(machine.file(f"/run/restpipe-{role}"), machine.http(role), daemon)


def put_nginx_in_front(machine: Machine) -> Path:
    """The example site as it was installed; it listens at two Unix sockets, too, in the folder returned."""
    machine.run("apt-get install -y --no-install-recommends nginx-light && usermod -a -G restpipe www-data")
    machine.run("cp /usr/share/doc/restpipe/examples/nginx.conf /etc/nginx/conf.d/restpipe.conf && nginx -t")
    for port in (8001, 8002):
        listen = f"listen 127.0.0.1:{port};"
        machine.run(
            f"sed -i 's#{listen}#{listen} listen unix:/srv/front/{port};#' /etc/nginx/conf.d/restpipe.conf"
        )
    machine.run("mkdir /srv/front && nginx -t && systemctl restart nginx")
    return machine.file("/srv/front")


def free_of_complaints(machine: Machine) -> str:
    """What in the journal looks like a sandbox that is too narrow; empty if nothing does."""
    pattern = (
        "SIGSYS|status=31|status=226|Operation not permitted|Permission denied|PermissionError|"
        "Read-only file system|Address family not supported|Operation not supported"
    )
    # uvloop tries to remove the manager's sockets when the daemon stops, which is rightly not allowed.
    harmless = "Unable to clean up listening UNIX socket"
    lines = machine.try_run("journalctl --no-pager -u 'restpipe-*'").stdout.splitlines()
    return "\n".join(line for line in lines if re.search(pattern, line) and harmless not in line)
