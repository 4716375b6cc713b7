"""The pipe daemon: serves until it is told to stop, then drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from restpipe.daemon import watchdog
from restpipe.daemon.client import ClientDaemon
from restpipe.daemon.daemon import Daemon
from restpipe.daemon.local import LocalDoor
from restpipe.daemon.server import ServerDaemon
from restpipe.errors import ConfigError, RestPipeError
from restpipe.host import logs, loop, memory
from restpipe.host.config import Config, Role, renewed
from restpipe.host.notify import Notifier
from restpipe.host.socket_store import SocketStore
from restpipe.protocol.connection import Connection, Side
from restpipe.transport.link import Link
from restpipe.transport.unix import inode_of, remove_own, unix_socket

LOCAL_HEARTBEAT_S = 1.0
LOCAL_DEAD_S = 10.0
"""Silence in seconds after which a worker is given up; one that was only busy is not."""
STATUS_EVERY_S = 1.0
# From Python 3.13 on, loops remove a socket's file when they close it, no matter what made it.
_LEAVE_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}

_log = logging.getLogger(__name__)


def main(config: Config) -> int:
    """Run the daemon in the foreground until SIGTERM; return the exit status.

    Raises `ConfigError` if the identity cannot be used, `RestPipeError` if a socket cannot be listened at.
    """
    logs.configure(config.log, process="pipe")
    memory.forbid_dumps()
    memory.keep_read_buffers()
    loop.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    notifier = Notifier()
    store = SocketStore(notifier)
    daemon: Daemon = ServerDaemon(config, store) if config.role is Role.SERVER else ClientDaemon(config)
    # First of all: a process that finds the sockets may send the signal.
    _reload_on_hangup(daemon, config)
    sockets = config.sockets
    async with (
        _door(daemon.events, sockets.events, sockets.mode, store.take("events")),
        _door(daemon.handlers, sockets.handlers, sockets.mode, store.take("handlers")),
        _background(*daemon.tasks(), _report(daemon, notifier)),
    ):
        try:
            async with _background(watchdog.feed(notifier, sockets.events)):
                notifier.ready(daemon.status)
                await asyncio.get_running_loop().create_future()
        finally:
            notifier.stopping()
            await daemon.drain()


@contextlib.asynccontextmanager
async def _door(
    door: LocalDoor[Any], path: Path, mode: int, inherited: socket.socket | None
) -> AsyncIterator[None]:
    event_loop = asyncio.get_running_loop()
    try:
        sock = inherited or unix_socket(path, mode)
        inode = inode_of(path)
    except OSError as error:
        raise RestPipeError(f"cannot listen at {path}: {error.strerror or error}") from error
    server = await event_loop.create_unix_server(
        lambda: Link(_local_connection(event_loop.time()), door, event_loop), sock=sock, **_LEAVE_FILE
    )
    try:
        yield
    finally:
        if inherited is None:
            remove_own(path, inode)
        server.close()


def _local_connection(now: float) -> Connection:
    return Connection(
        Side.LISTENER,
        heartbeat_s=LOCAL_HEARTBEAT_S,
        handshake_s=LOCAL_DEAD_S,
        dead_s=LOCAL_DEAD_S,
        now=now,
    )


@contextlib.asynccontextmanager
async def _background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run tasks beside the body. None of them should end: one that does brings the daemon down."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _report(daemon: Daemon, notifier: Notifier) -> None:
    told = ""
    while True:
        if daemon.status != told:
            told = daemon.status
            notifier.status(told)
        await asyncio.sleep(STATUS_EVERY_S)


def _reload_on_hangup(daemon: Daemon, config: Config) -> None:
    in_force = config

    def reload() -> None:
        nonlocal in_force
        try:
            fresh, kept = renewed(in_force)
            daemon.reload(fresh)
        except ConfigError as error:
            _log.error("not reloaded, going on as before: %s", error)
            return
        in_force = fresh
        logs.set_level(fresh.log)
        if kept:
            _log.warning("changed, but in force only after a restart: %s", ", ".join(kept))
        _log.info("configuration, certificates and revocation lists reloaded")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
