"""Ends of a web worker in memory: a link whose exchanges the test answers, and a transport that records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from restpipe.errors import NotConnected, Reset
from restpipe.host.config import Role, Web
from restpipe.host.stats import Stats
from restpipe.protocol import frames
from restpipe.protocol.frames import END, Frame, FrameDecoder
from restpipe.protocol.messages import encode_reset
from restpipe.protocol.schema_pb2 import ROLE_WEB, Event, Reply
from restpipe.protocol.session import Session
from restpipe.transport.daemon_link import DaemonLink
from restpipe.transport.exchange import Exchange
from restpipe.web import app
from restpipe.web.connections import Connections
from restpipe.web.http1 import HttpConnection


class Sent:
    """One event as it left, and the test's means to answer it."""

    def __init__(self, exchange: Exchange, event: Event, body: bytes, *, end: bool) -> None:
        self.exchange = exchange
        self.id = event.id
        self.verb = event.verb
        self.timeout_ms = event.timeout_ms
        self.body = body
        self.end = end

    def reply(self, reply: Reply, body: bytes = b"", *, end: bool = True) -> None:
        self._receive(frames.encode(frames.REPLY, 1, reply.SerializeToString(), body, flags=end * END))

    def data(self, body: bytes, *, end: bool = False) -> None:
        self._receive(frames.encode(frames.DATA, 1, b"", body, flags=end * END))

    def fail(self, reset: Reset) -> None:
        self._receive(encode_reset(1, reset))

    def grant(self, credit: int) -> None:
        self._receive(frames.encode_credit(frames.WINDOW, 1, credit))

    def _receive(self, data: bytes) -> None:
        (frame,) = FrameDecoder().feed(data)
        self.exchange.receive(frame, asyncio.get_running_loop().time())


class MemoryLink(DaemonLink):
    """A `DaemonLink` without a daemon: `on_open` is called with each event that leaves."""

    def __init__(self, on_open: Callable[[Sent], None] = lambda sent: None) -> None:
        super().__init__("", ROLE_WEB)
        self.sent: list[Sent] = []
        self.on_open = on_open
        self.session = Session(bytes(16), 0)
        self._connected.set()

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    @connected.setter
    def connected(self, connected: bool) -> None:
        if connected:
            self._connected.set()
        else:
            self._connected.clear()

    def open(self, event: Event, body: bytes = b"", *, end: bool) -> Exchange:
        if not self.connected:
            raise NotConnected("no link")
        exchange = Exchange(
            self.session, 1, event, loop=asyncio.get_running_loop(), forget=lambda number: None
        )
        exchange.sent_with_opening(len(body))
        self.sent.append(Sent(exchange, event, body, end=end))
        self.session.send(1, frames.encode(frames.EVENT, 1, event.SerializeToString(), body, flags=end * END))
        self.on_open(self.sent[-1])
        return exchange

    def written(self) -> list[Frame]:
        """Return the frames that have been sent since the last call; from now on they have left."""
        return FrameDecoder().feed(b"".join(self.session.take(1 << 24)))


def answer(reply: Reply, body: bytes = b"") -> Callable[[Sent], None]:
    """Answer each event in the next turn of the loop."""

    def on_open(sent: Sent) -> None:
        asyncio.get_running_loop().call_soon(sent.reply, reply, body)

    return on_open


class MemoryTransport:
    """A transport that records what is written, as if the caller read all of it at once."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False
        self.aborted = False
        self.ended = False
        self.reading = True
        self.buffered = 0
        self.socket: Any = None

    def write(self, data: bytes) -> None:
        assert not self.closed
        assert data
        self.written += data

    def writelines(self, parts: list[bytes]) -> None:
        for part in parts:
            self.write(part)

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket or default


class Caller:
    """A connection in memory, and its caller."""

    def __init__(self, connections: Connections) -> None:
        self.transport = MemoryTransport()
        self.connection: HttpConnection = connections.make()
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    def take(self) -> bytes:
        """Return what has been written since the last call."""
        written = bytes(self.transport.written)
        self.transport.written.clear()
        return written

    def hang_up(self) -> None:
        self.connection.connection_lost(None)


async def turns(count: int = 6) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


def worker(link: MemoryLink, *, role: Role = Role.SERVER, most: int = 100, **limits: Any) -> Connections:
    """Return the connections of a worker whose events leave through `link`."""
    web = Web(**limits)
    return Connections(app.build(role, web, link, NoStats()), most=most)


class NoStats(Stats):
    """Statistics that go nowhere."""

    def __init__(self) -> None: ...

    def tick(self, name: str, n: int = 1) -> None: ...

    def timing(self, name: str, seconds: float) -> None: ...
