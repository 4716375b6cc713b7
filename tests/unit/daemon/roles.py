"""Real daemons of both roles in one loop, with identities of their own, linked over TCP on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from restpipe_ca.profiles import Role as Use

from restpipe.daemon.client import ClientDaemon
from restpipe.daemon.daemon import Daemon
from restpipe.daemon.server import ServerDaemon
from restpipe.host.config import Config, Role, load
from restpipe.host.notify import Notifier
from restpipe.host.options import Statsd
from restpipe.host.socket_store import SocketStore
from restpipe.transport.tls import TlsFiles
from tests.support.nodes import free_port
from tests.unit.transport.kit import Identities


def configured(role: Role, folder: Path, files: TlsFiles, **pipe: Any) -> Config:
    """What a configuration file with these values under `pipe` would say."""
    empty = folder / "empty.toml"
    empty.touch()
    config = load(role, environ={"RP_RUNTIME_DIR": str(folder), "RP_CONFIG_FILE": str(empty)})
    key, certificate, ca, crl = files
    return dataclasses.replace(
        config,
        pipe=dataclasses.replace(config.pipe, **pipe),
        tls=dataclasses.replace(
            config.tls, key=key, certificate=certificate, ca=ca, crl=crl, ca_directory=folder / "none"
        ),
        state=dataclasses.replace(config.state, directory=folder / "state"),
        statsd=Statsd(host="", port=0),
    )


class Pair:
    """A server's configuration and that of clients, which find it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._identities = Identities.make(folder / "ca")
        self._port = free_port()
        self._files = self._identities.issue(["127.0.0.1"], Use.SERVER)

    def server_config(self, **pipe: Any) -> Config:
        pipe = {"bind": "127.0.0.1", "port": self._port, **pipe}
        return configured(Role.SERVER, self._folder, self._files, **pipe)

    def client_config(self, name: str = "alpha", **pipe: Any) -> Config:
        files = self._identities.issue([name], Use.CLIENT)
        address = f"127.0.0.1:{self._port}"
        pipe = {"servers": (address,), "reconnect_min_s": 0.01, "reconnect_max_s": 0.02, **pipe}
        return configured(Role.CLIENT, self._folder, files, **pipe)

    def server(self, **pipe: Any) -> ServerDaemon:
        return ServerDaemon(self.server_config(**pipe), SocketStore(Notifier(), {}))

    def client(self, name: str = "alpha", **pipe: Any) -> ClientDaemon:
        return ClientDaemon(self.client_config(name, **pipe))


@contextlib.asynccontextmanager
async def running(*daemons: Daemon) -> AsyncIterator[None]:
    """They serve meanwhile, and drain in the end, the last one first."""
    async with contextlib.AsyncExitStack() as stack:
        for daemon in daemons:
            await stack.enter_async_context(_running(daemon))
        yield


@contextlib.asynccontextmanager
async def _running(daemon: Daemon) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(task) for task in daemon.tasks()]
    try:
        yield
    finally:
        await daemon.drain()
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        daemon.deadlines.close()
        if isinstance(daemon, ServerDaemon):
            daemon._idleness.end()
        for timer in daemon.links._given_up.values():
            timer.cancel()
