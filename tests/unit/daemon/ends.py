"""Real links, over socket pairs, between the daemon's owners of links and ends that the test plays."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from restpipe.daemon.channel import Channel, Route
from restpipe.daemon.links import PeerLinks
from restpipe.daemon.peers import Peer, PeerTable
from restpipe.daemon.pool import HandlerPool
from restpipe.daemon.router import Limits, Router
from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.deadlines import Deadlines
from restpipe.protocol.frames import END, Frame
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Event, Goaway, Reply, Role
from restpipe.protocol.session import Session
from restpipe.transport.link import Link, LinkOwner
from tests.unit.transport.kit import Recorder, connection, until

BUFFER = 1 << 20


async def linked(owner: LinkOwner, side: Side = Side.LISTENER, **how: Any) -> tuple[Link, socket.socket]:
    """A link of `owner`, and the bare other end of its socket."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    link = Link(connection(side, **how), owner, loop)
    await loop.create_connection(lambda: link, sock=near)
    far.setblocking(False)
    return link, far


class Caller(Recorder):
    """The end that dialed: a worker or another daemon, played by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.link: Link | None = None
        self.far: Link | None = None
        """The daemon's end."""

    @classmethod
    async def dial(
        cls, owner: LinkOwner, role: Role = ROLE_PIPE, *, session: Session | None = None, **hello: Any
    ) -> Caller:
        caller = cls()
        loop = asyncio.get_running_loop()
        caller.far, sock = await linked(owner)
        near = Connection(Side.DIALER, heartbeat_s=60.0, handshake_s=60.0, now=loop.time())
        near.say_hello(role, session=session, buffer_size=BUFFER, **hello)
        caller.link = Link(near, caller, loop)
        await loop.create_connection(lambda: caller.link, sock=sock)  # type: ignore[arg-type,return-value]
        return caller

    async def welcomed(self) -> Caller:
        assert self.link is not None
        await until(lambda: (self.link and self.link.connection.session) or self.lost)
        assert not self.lost, self.lost
        self.session.attach(self.link.wake)
        return self

    @property
    def session(self) -> Session:
        assert self.link is not None
        session = self.link.connection.session
        assert session is not None
        return session

    def send(
        self, kind: int, stream: int, head: bytes = b"", body: bytes = b"", *, end: bool = False
    ) -> None:
        self.session.send(stream, frames.encode(kind, stream, head, body, flags=END if end else 0))

    def open(self, stream: int, to: str = "", *, timeout_s: float = 30.0) -> None:
        head = Event(verb="GET", target="/x", to=to, timeout_ms=int(timeout_s * 1000))
        self.send(frames.EVENT, stream, head.SerializeToString(), end=True)

    def reply(self, stream: int, body: bytes = b"") -> None:
        self.send(frames.REPLY, stream, Reply().SerializeToString(), body, end=True)

    async def got(self, kind: int, count: int = 1) -> list[Frame]:
        def come() -> list[Frame]:
            return [frame for frame in self.frames if frame.kind == kind]

        await until(lambda: len(come()) >= count or self.lost)
        assert len(come()) >= count, self.lost
        return come()

    async def told_to_go(self) -> Goaway:
        await until(lambda: self.lost)
        assert self.frames[-1].kind == frames.GOAWAY, self.frames
        return read_message(Goaway(), self.frames[-1])

    async def leave(self) -> None:
        if self.link is not None:
            self.link.abort()
        await until(lambda: self.lost)


class House:
    """The parts of a daemon around its owners of links."""

    def __init__(self, *, client: bool = False, session_life_s: float = 300.0) -> None:
        self.peers = PeerTable(100, 20)
        self.pool = HandlerPool(20)
        self.server: Peer | None = None
        if client:
            self.server = Peer("server", 20)
            self.peers.put(self.server)
        self.lookups: dict[str, Any] = {}
        deadlines: Deadlines[Route] = Deadlines()
        self.router = Router(
            self.peers,
            self.pool,
            Limits(100, 1 << 20),
            self._look_up,
            deadlines.add,
            server=self.server,
        )
        self.news: list[str] = []
        self.links = PeerLinks(self.router, session_life_s, self)

    def _look_up(self, name: str, asker: Channel, answer: Any) -> None:
        self.lookups[name] = answer

    # PeersOwner.

    def joined(self, peer: Peer) -> None:
        self.news.append(f"{peer.name} joined")

    def left(self, peer: Peer, reason: str) -> None:
        self.news.append(f"{peer.name} left")

    def gone(self, peer: Peer) -> None:
        """Nothing to write down."""

    def channel(self, name: str) -> Channel:
        peer = self.peers.get(name)
        assert peer is not None
        assert peer.channel is not None
        return peer.channel

    def settled(self) -> bool:
        """No event is in flight between this house and its peers."""
        return not any(peer.channel.routes for peer in self.peers if peer.channel is not None)

    async def close(self) -> None:
        for timer in self.links._given_up.values():
            timer.cancel()
