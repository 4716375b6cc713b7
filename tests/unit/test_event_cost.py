"""What one short GET costs from the caller's socket to the method and back, counted: no clock, so no noise.

A web worker, both daemons and a handler worker run on one loop, with their real classes and real sockets, but
without TLS, whose calls are not Python's. The ceilings are there to be lowered.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import uvloop

import restpipe
from restpipe.daemon.channel import Channel
from restpipe.daemon.daemon import Daemon
from restpipe.daemon.local import LocalDoor
from restpipe.daemon.peers import Peer, PeerTable
from restpipe.handler.api import EventHandler
from restpipe.handler.dispatch import Dispatcher
from restpipe.handler.registry import Registry
from restpipe.host.config import Role, load
from restpipe.host.stats import Stats
from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side, new_session_id
from restpipe.protocol.frames import Frame
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_HANDLER, ROLE_PIPE, ROLE_WEB, Hello
from restpipe.protocol.session import Session
from restpipe.transport.daemon_link import DaemonLink
from restpipe.transport.link import Link
from restpipe.web import app
from restpipe.web.connections import Connections
from tests.unit.transport.kit import until

REQUEST = b"GET /client/web1/time HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n"
ROUNDS = 50
BUFFER = 1 << 24
PATIENCE_S = 30.0

CALLS = {1: 205, 16: 155}
"""Most Python calls of RestPipe's own an event, by how many are in flight."""
ALL_CALLS = {1: 235, 16: 185}
"""Most Python calls an event, those of libraries included."""
MADE = {"task": 2, "future": 1, "timer": 0}
"""Most of each that an event makes in the four processes: a task a request and one for the async method."""


class Clock(EventHandler):
    async def get_time(self, ctx: Any, post_data: Any) -> dict[str, int]:
        return {"time": 12}


class CountingLoop(uvloop.Loop):
    """Production's loop, which counts what is made on it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()

    def create_task(self, *args: Any, **kwargs: Any) -> Any:
        self.made["task"] += 1
        return super().create_task(*args, **kwargs)

    def create_future(self) -> Any:
        self.made["future"] += 1
        return super().create_future()

    def call_at(self, *args: Any, **kwargs: Any) -> Any:
        self.made["timer"] += 1
        return super().call_at(*args, **kwargs)

    def call_later(self, *args: Any, **kwargs: Any) -> Any:
        self.made["timer"] += 1
        return super().call_later(*args, **kwargs)


class PipeEnd:
    """Owner of a daemon's link to the other daemon, without certificates."""

    def __init__(self, daemon: Daemon, peer: Peer) -> None:
        self.daemon = daemon
        self.peer = peer

    def link_made(self, link: Link) -> None:
        if link.connection.side is Side.DIALER:
            link.connection.say_hello(ROLE_PIPE, buffer_size=BUFFER)

    def link_frame(self, link: Link, frame: Frame, now: float) -> None:
        if frame.kind == frames.HELLO:
            session = Session(new_session_id(), BUFFER)
            link.connection.accept(session, read_message(Hello(), frame), now=now)
        elif frame.kind != frames.WELCOME:
            return
        assert link.connection.session is not None
        channel = Channel(link.connection.session, link.connection.side, self.peer.name)
        self.daemon.links.join(link, self.peer, channel)

    def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
        self.daemon.links.stream_frames(link, received, now)

    def link_lost(self, link: Link, reason: str) -> None:
        self.daemon.links.lost(link, reason)


def connection(side: Side) -> Connection:
    now = asyncio.get_running_loop().time()
    return Connection(side, heartbeat_s=60.0, handshake_s=60.0, now=now)


async def serve(door: LocalDoor[Any], path: Path) -> asyncio.AbstractServer:
    loop = asyncio.get_running_loop()
    return await loop.create_unix_server(lambda: Link(connection(Side.LISTENER), door, loop), path)


async def join(server: Daemon, client: Daemon, client_end: Peer, server_end: Peer) -> None:
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    far = Link(connection(Side.LISTENER), PipeEnd(server, client_end), loop)
    near = Link(connection(Side.DIALER), PipeEnd(client, server_end), loop)
    await loop.create_connection(lambda: far, sock=left)
    await loop.create_connection(lambda: near, sock=right)
    await until(lambda: client_end.online and server_end.online)


@asynccontextmanager
async def chain(folder: Path) -> AsyncIterator[Path]:
    """The whole way of an event; its web socket."""
    loop = asyncio.get_running_loop()
    environ = {"RP_SOCKETS_DIRECTORY": str(folder), "RP_STATE_DIR": str(folder), "RP_STATSD_HOST": ""}
    config = load(Role.SERVER, environ | {"RP_STATSD_PORT": ""})
    server_end = Peer("server", 100)
    of_server, of_client = PeerTable(10, 100), PeerTable(1, 100)
    of_client.put(server_end)
    client_end = of_server.add("web1")
    assert client_end is not None
    server, client = Daemon(config, of_server), Daemon(config, of_client, server=server_end)
    servers = [
        await serve(server.events, folder / "events.sock"),
        await serve(client.handlers, folder / "handlers.sock"),
    ]
    await join(server, client, client_end, server_end)
    stats = Stats.off()
    dispatcher = Dispatcher(
        Registry.of(Clock()), threads=1, concurrency=64, max_body_bytes=1 << 20, stats=stats
    )
    handlers = DaemonLink(str(folder / "handlers.sock"), ROLE_HANDLER, capacity=64, on_event=dispatcher.take)
    web = DaemonLink(str(folder / "events.sock"), ROLE_WEB)
    running = [loop.create_task(link.run()) for link in (handlers, web)]
    await asyncio.gather(handlers.wait_connected(), web.wait_connected())
    connections = Connections(app.build(Role.SERVER, config.web, web, stats), most=100)
    servers.append(await loop.create_unix_server(connections.make, folder / "web.sock"))
    try:
        yield folder / "web.sock"
    finally:
        connections.abort()
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await dispatcher.close()
        for daemon in (server, client):
            for link in (*daemon.links.all(), *daemon.events.links, *daemon.handlers.links):
                link.abort()
        for one in servers:
            one.close()
        for name in ("web", "events", "handlers"):
            (folder / f"{name}.sock").unlink(missing_ok=True)
        await asyncio.sleep(0.01)


class Caller:
    """One HTTP connection, on a bare socket."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(str(path))
        self._sock.setblocking(False)

    async def ask(self, times: int) -> None:
        for _ in range(times):
            await self._loop.sock_sendall(self._sock, REQUEST)
            answer = b""
            while not answer.endswith(b'{"time": 12}'):
                answer += await self._loop.sock_recv(self._sock, 65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")

    def close(self) -> None:
        self._sock.close()


def run_counted(
    folder: Path, in_flight: int, begin: Callable[[CountingLoop], None], end: Callable[[CountingLoop], None]
) -> None:
    """Ask ROUNDS times over each of `in_flight` connections, between `begin` and `end`."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        async with asyncio.timeout(PATIENCE_S), chain(folder) as path:
            callers = [Caller(path) for _ in range(in_flight)]

            def all_ask(times: int) -> Awaitable[Any]:
                return asyncio.gather(*(caller.ask(times) for caller in callers))

            await all_ask(3)
            begin(loop)
            try:
                await all_ask(ROUNDS)
            finally:
                end(loop)
            for caller in callers:
                caller.close()

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(main())


@pytest.mark.skipif(
    restpipe.COMPILED, reason="calls of compiled functions are not seen, and cannot be counted"
)
@pytest.mark.parametrize("in_flight", [1, 16])
def test_python_calls_of_an_event(tmp_path: Path, in_flight: int) -> None:
    ours: Counter[str] = Counter()
    others: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename != __file__:
            name = f"{Path(code.co_filename).stem}.{code.co_qualname}"
            (ours if "/restpipe/" in code.co_filename else others)[name] += 1

    run_counted(tmp_path, in_flight, lambda _: sys.setprofile(count), lambda _: sys.setprofile(None))
    events = ROUNDS * in_flight
    assert ours.total() / events <= CALLS[in_flight], ours.most_common(60)
    assert (ours + others).total() / events <= ALL_CALLS[in_flight], others.most_common(60)
    # A count of nothing would be a count of the wrong code: compiled functions, for one, are not seen.
    assert ours.total() / events > 50


def test_tasks_futures_and_timers_of_an_event(tmp_path: Path) -> None:
    made: Counter[str] = Counter()
    run_counted(tmp_path, 1, lambda loop: loop.made.clear(), lambda loop: made.update(loop.made))
    # The caller of this test makes what it makes beside them.
    made.subtract({"task": 1})
    per_event = {kind: round(made[kind] / ROUNDS) for kind in MADE}
    assert per_event == MADE
