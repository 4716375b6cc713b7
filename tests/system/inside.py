"""Both roles on one machine, installed and hardened, in the place of the pair that other tests start."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.integration.conftest import HANDLERS
from tests.support.http import Http
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


@dataclass(frozen=True)
class Side:
    """What the tests use of a node."""

    sockets: Path
    http: Http


@dataclass(frozen=True)
class Inside:
    """What they use of a pair."""

    machine: Machine
    server: Side
    client: Side
    client_name: str = "client-1"


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
    return Inside(machine, _side(machine, "server"), _side(machine, "client"))


def configure(machine: Machine, statsd: str = "", port: str = "") -> None:
    for role in ("server", "client"):
        text = CONFIG.format(name=role.capitalize(), statsd=statsd, port=port)
        machine.put(f"/etc/restpipe/{role}.toml", text)


def _side(machine: Machine, role: str) -> Side:
    return Side(machine.file(f"/run/restpipe-{role}"), machine.http(role))


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
    pattern = "SIGSYS|status=31|status=226|Operation not permitted|PermissionError|Read-only file system"
    # uvloop tries to remove the manager's sockets when the daemon stops, which is rightly not allowed.
    harmless = "Unable to clean up listening UNIX socket"
    lines = machine.try_run("journalctl --no-pager -u 'restpipe-*'").stdout.splitlines()
    return "\n".join(line for line in lines if re.search(pattern, line) and harmless not in line)
