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
from restpipe.daemon.local import LocalDoor
from restpipe.daemon.roles import PipeEnd, make_end
from restpipe.errors import Code, ConfigError, RestPipeError
from restpipe.host import logs, loop, memory
from restpipe.host.config import Config, renewed
from restpipe.host.notify import Notifier
from restpipe.host.socket_store import SocketStore
from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.frames import Kind
from restpipe.protocol.schema_pb2 import Goaway
from restpipe.transport.link import Link
from restpipe.transport.unix import inode_of, remove_own, unix_socket

LOCAL_HEARTBEAT_S = 1.0
LOCAL_DEAD_S = 10.0
"""A worker that was silent for so long is given up; one that was only busy is not."""
STATUS_EVERY_S = 1.0
DRAIN_POLL_S = 0.05
# From Python 3.13 on, loops remove a socket's file when they close it, whoever made it.
_LEAVE_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}

_log = logging.getLogger(__name__)


def main(config: Config) -> int:
    """Runs the daemon in the foreground until SIGTERM; returns the exit status.

    `ConfigError` when the identity cannot be used, `RestPipeError` when a socket cannot be listened at.
    """
    logs.configure(config.log, process="pipe")
    memory.keep_read_buffers()
    loop.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    notifier = Notifier()
    store = SocketStore(notifier)
    end = make_end(config, store)
    end.core.router.debug = config.log.debug
    # First of all: whoever finds the sockets may send the signal.
    _reload_on_hangup(end, config)
    sockets = config.sockets
    async with (
        _door(end.core.events, sockets.events, sockets.mode, store.take("events")),
        _door(end.core.handlers, sockets.handlers, sockets.mode, store.take("handlers")),
        _background(*end.tasks(), _report(end, notifier)),
    ):
        try:
            async with _background(watchdog.feed(notifier, sockets.events)):
                notifier.ready(end.status)
                await asyncio.get_running_loop().create_future()
        finally:
            notifier.stopping()
            await _drain(end, end.core.pipe.drain_timeout_s)


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
    """Runs tasks beside the body. A task that ends or fails brings the daemon down: none of them should."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _report(end: PipeEnd, notifier: Notifier) -> None:
    told = ""
    while True:
        if end.status != told:
            told = end.status
            notifier.status(told)
        await asyncio.sleep(STATUS_EVERY_S)


def _reload_on_hangup(end: PipeEnd, config: Config) -> None:
    in_force = config

    def reload() -> None:
        nonlocal in_force
        try:
            fresh, kept = renewed(in_force)
            end.reload(fresh)
        except ConfigError as error:
            _log.error("not reloaded, going on as before: %s", error)
            return
        in_force = fresh
        logs.set_level(fresh.log)
        end.core.router.debug = fresh.log.debug
        if kept:
            _log.warning("changed, but in force only after a restart: %s", ", ".join(kept))
        _log.info("configuration, certificates and revocation lists reloaded")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


async def _drain(end: PipeEnd, timeout_s: float) -> None:
    """Lets nobody new in, and those under way finish, for a while."""
    core = end.core
    end.stop()
    core.links.stopping = True
    core.events.closed = True
    core.router.drain()
    links = (*core.events.links, *core.links.all())
    goodbye = Goaway(code=Code.SHUTDOWN, detail="the daemon stops").SerializeToString()
    for link in links:
        link.connection.send_control(frames.encode(Kind.GOAWAY, head=goodbye))
        link.wake()
    try:
        async with asyncio.timeout(timeout_s):
            # What was sent before the word came through is in then: nothing is lost on the way.
            await asyncio.gather(*(link.wait_answered() for link in links))
            # Polled, so that the router need not look after whoever waits for the last event.
            while core.under_way:  # noqa: ASYNC110
                await asyncio.sleep(DRAIN_POLL_S)
            for link in links:
                await link.wait_written()
    except TimeoutError:
        _log.warning("%d events were still under way after %g s", core.under_way, timeout_s)
    core.handlers.closed = True
    links = (*core.events.links, *core.links.all(), *core.handlers.links)
    for link in links:
        link.close(Code.SHUTDOWN, "the daemon stops")
    for link in links:
        await link.wait_closed()
