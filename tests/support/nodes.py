"""A role on this machine, and a server with its client."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.conditions import TIMEOUT_S, wait_for
from tests.support.http import Answer, Http
from tests.support.identities import Authority, Identity
from tests.support.processes import Process, python

Options = Mapping[str, Mapping[str, Any]]
"""As in the configuration file: `{"web": {"workers": 2}}`."""

PARTS = ("pipe", "web", "handlers")


_random = random.SystemRandom()


def free_port() -> int:
    """A TCP port on loopback that nobody has, and of those that the kernel gives to nobody by itself."""
    while True:
        port = _random.randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Node:
    """One role: its folder, its configuration, its processes. Leaving the `with` block ends them all."""

    def __init__(
        self,
        role: str,
        folder: Path,
        identity: Identity,
        options: Options | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is started yet. `folder` is made; a Unix socket's path has 107 bytes at most."""
        self.role = role
        self.folder = folder
        self.environ = dict(environ or {})
        self.prefix: list[str] = []
        """What its processes are started by. READY cannot be told from another network namespace."""
        self.config = folder / "restpipe.toml"
        self.sockets = folder / "run"
        self.http = Http(self.sockets / "web.sock")
        self.processes: dict[str, Process] = {}
        for directory in (folder, self.sockets, folder / "state"):
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._options: dict[str, dict[str, Any]] = {
            "tls": {"directory": str(identity.directory)},
            "sockets": {"directory": str(self.sockets)},
            "state": {"directory": str(folder / "state")},
            "statsd": {"host": "", "port": ""},
        }
        self.configure(options or {})

    @property
    def pipe(self) -> Process:
        return self.processes["pipe"]

    @property
    def web(self) -> Process:
        return self.processes["web"]

    @property
    def handlers(self) -> Process:
        return self.processes["handlers"]

    def configure(self, options: Options) -> None:
        """Add to the configuration file. Processes that run already keep what they read."""
        for part, values in options.items():
            self._options.setdefault(part, {}).update(values)
        self.config.write_text(_toml(self._options), encoding="utf-8")

    def start(self, *parts: str, ready: bool = True) -> Self:
        """Start `pipe`, `web` and `handlers`, or those named (again); returns when each says READY.

        Further handler workers are parts too: `handlers.2` and so on.
        """
        for part in parts or PARTS:
            self._begin(part, part.partition(".")[0])
        if ready and not self.prefix:
            for part in parts or PARTS:
                self.processes[part].wait_ready()
        return self

    def run(self, *, ready: bool = True) -> Process:
        """`restpipe run ROLE`: the part `run`."""
        process = self._begin("run", "run")
        if ready:
            process.wait_ready()
        return process

    def stop(self, *parts: str) -> None:
        """End those named, or all, in good order; the pipe last."""
        for part in parts or tuple(reversed(self.processes)):
            self.processes.pop(part).terminate()

    def kill(self) -> None:
        """End all, at once."""
        while self.processes:
            self.processes.popitem()[1].kill()

    def pids(self) -> dict[int, str]:
        """All processes of this role that run now, and the part that each belongs to."""
        return {pid: part for part, process in self.processes.items() for pid in process.pids()}

    def logs(self) -> str:
        """All logs, for messages."""
        return "\n".join(f"--- {self.role} {name}\n{p.log_text()}" for name, p in self.processes.items())

    def wait_answer(self, target: str, timeout_s: float = TIMEOUT_S) -> Answer:
        """Ask until a handler answers: the whole way to the other side and back is up."""

        def ask() -> Answer | None:
            try:
                answer = self.http.get(target, {"Prefer": "wait=1"})
            except OSError:
                return None
            return answer if answer.event_code is not None else None

        try:
            return wait_for(ask, f"{self.role}: an answer to {target}", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def command(self, name: str) -> list[str]:
        """`restpipe NAME ROLE` with this node's configuration."""
        return [*python(), "-m", "restpipe", name, self.role, "--config", str(self.config)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()

    def _begin(self, part: str, command: str) -> Process:
        if (old := self.processes.pop(part, None)) is not None:
            old.kill()
        self.processes[part] = Process(
            part, [*self.prefix, *self.command(command)], self.folder, self.environ
        )
        return self.processes[part]


class Pair:
    """A server and a client that know each other."""

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        server: Options | None = None,
        client: Options | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is started yet. `server` and `client` are options on top of what a test needs."""
        self.port = free_port()
        self.authority = authority
        self.folder = folder
        self.server = Node("server", folder / "server", authority.server(), _SERVER, environ)
        self.server.configure({"pipe": {"bind": "127.0.0.1", "port": self.port}})
        self.server.configure(server or {})
        self.client_name = "client-1"
        self.client = self.new_client(self.client_name, client, environ)

    def new_client(
        self, name: str, options: Options | None = None, environ: Mapping[str, str] | None = None
    ) -> Node:
        """One more client of this server; the caller starts and stops it."""
        node = Node("client", self.folder / name, self.authority.client(name), _CLIENT, environ)
        node.configure({"pipe": {"servers": [f"127.0.0.1:{self.port}"], "server_name": "localhost"}})
        node.configure(options or {})
        return node

    def start(self) -> Self:
        """All six processes, and an answer each way."""
        self.server.start(ready=False)
        self.client.start(ready=False)
        return self.wait_up()

    def run(self) -> Self:
        """The same by `restpipe run`."""
        self.server.run(ready=False)
        self.client.run(ready=False)
        return self.wait_up()

    def wait_up(self) -> Self:
        for process in (*self.server.processes.values(), *self.client.processes.values()):
            process.wait_ready()
        self.client.wait_answer("/server/time")
        self.server.wait_answer(f"/client/{self.client_name}/time")
        return self

    def stop(self) -> None:
        self.client.stop()
        self.server.stop()

    def kill(self) -> None:
        """All processes of both, at once."""
        self.client.kill()
        self.server.kill()

    def logs(self) -> str:
        return f"{self.server.logs()}\n{self.client.logs()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.client.__exit__(kind, error, traceback)
        finally:
            self.server.__exit__(kind, error, traceback)


_SERVER: Options = {"pipe": {"drain_timeout_s": 2.0}}
_CLIENT: Options = {"pipe": {"drain_timeout_s": 2.0, "reconnect_max_s": 0.5}}


def _toml(options: Options) -> str:
    # Of booleans, numbers, texts and lists of texts, JSON's way of writing is TOML's too.
    parts = (
        f"[{part}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        for part, values in options.items()
    )
    return "\n".join(parts)
