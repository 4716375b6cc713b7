"""The daemon's side of its Unix sockets. Which socket a worker came in by decides what it may do."""

from __future__ import annotations

import itertools
import logging
from typing import Generic, TypeVar

from restpipe.daemon.channel import Channel
from restpipe.daemon.clock import now
from restpipe.daemon.notices import Notices
from restpipe.daemon.pool import HandlerPool, Worker
from restpipe.daemon.router import Router
from restpipe.errors import Code, ProtocolError
from restpipe.protocol import frames
from restpipe.protocol.connection import Side, new_session_id
from restpipe.protocol.frames import Frame, Kind
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_HANDLER, ROLE_WEB, Hello, Role
from restpipe.protocol.session import Session
from restpipe.transport.link import Link

MAX_LINKS = 512
"""Workers at one socket."""
MAX_CAPACITY = 1 << 20

ChannelT = TypeVar("ChannelT", bound=Channel)

_log = logging.getLogger(__name__)


class LocalDoor(Generic[ChannelT]):
    """What both sockets have in common: the handshake, and a session that ends with its link."""

    role: Role

    def __init__(self, router: Router) -> None:
        self._router = router
        self._channels: dict[Link, ChannelT] = {}
        self._links: set[Link] = set()
        self._count = itertools.count(1)
        self.closed = False
        """Nobody new is let in."""

    @property
    def links(self) -> tuple[Link, ...]:
        """All links at this socket."""
        return tuple(self._links)

    @property
    def under_way(self) -> int:
        """Events that these workers have under way."""
        return sum(len(channel.routes) for channel in self._channels.values())

    def link_made(self, link: Link) -> None:
        self._links.add(link)
        if self.closed:
            link.close(Code.SHUTDOWN, "the daemon stops")
        elif len(self._links) > MAX_LINKS:
            link.close(Code.TOO_MANY_LINKS, f"{MAX_LINKS} workers are here already")

    def frames_received(self, link: Link, received: list[Frame]) -> None:
        channel = self._channels.get(link)
        if channel is None:
            self._greet(link, received[0])
        else:
            self._handle(channel, received, now())

    def link_lost(self, link: Link, reason: str) -> None:
        self._links.discard(link)
        channel = self._channels.pop(link, None)
        if channel is not None:
            self._leave(link, channel, reason)

    def _greet(self, link: Link, frame: Frame) -> None:
        if frame.kind != Kind.HELLO:
            link.close(Code.SHUTDOWN, "gone before the handshake")
            return
        hello = read_message(Hello(), frame)
        if hello.role != self.role:
            raise ProtocolError(Code.HANDSHAKE, f"role {hello.role} came in by the wrong socket")
        session = Session(new_session_id(), 0)
        link.connection.accept(session, hello, now=now())
        session.attach(link.wake)
        self._channels[link] = self._join(link, session, hello)

    def _join(self, link: Link, session: Session, hello: Hello) -> ChannelT:
        raise NotImplementedError

    def _handle(self, channel: ChannelT, received: list[Frame], at: float) -> None:
        raise NotImplementedError

    def _leave(self, link: Link, channel: ChannelT, reason: str) -> None:
        self._router.lose(channel, reason, now())


class EventsDoor(LocalDoor[Channel]):
    """`events.sock`: whoever comes in here may send events."""

    role = ROLE_WEB

    def _join(self, link: Link, session: Session, hello: Hello) -> Channel:
        channel = Channel(session, Side.LISTENER, f"web {next(self._count)}")
        _log.debug("%s: a web worker has come", channel.name)
        return channel

    def _handle(self, channel: Channel, received: list[Frame], at: float) -> None:
        self._router.from_sender(channel, received, at)

    def _leave(self, link: Link, channel: Channel, reason: str) -> None:
        _log.debug("%s: a web worker has left: %s", channel.name, reason)
        super()._leave(link, channel, reason)


class HandlersDoor(LocalDoor[Worker]):
    """`handlers.sock`: whoever comes in here may answer events."""

    role = ROLE_HANDLER

    def __init__(self, router: Router, pool: HandlerPool, notices: Notices) -> None:
        super().__init__(router)
        self._pool = pool
        self._notices = notices

    def _join(self, link: Link, session: Session, hello: Hello) -> Worker:
        name = f"handlers {next(self._count)}"
        worker = Worker(session, link.connection, min(hello.capacity, MAX_CAPACITY), name)
        self._pool.workers.add(worker)
        self._notices.subscribe(link)
        self._router.feed_workers(now())
        _log.info("a handler worker has come; it takes %d events at once", worker.capacity)
        return worker

    def _handle(self, channel: Worker, received: list[Frame], at: float) -> None:
        for frame in received:
            if frame.kind == Kind.CAPACITY:
                channel.capacity = min(frames.decode_credit(frame), MAX_CAPACITY)
        self._router.relay(channel, received, at)
        # Capacity may have grown, or a late heartbeat been answered.
        self._router.feed_workers(at)

    def _leave(self, link: Link, channel: Worker, reason: str) -> None:
        self._pool.workers.discard(channel)
        if not self._pool.workers:
            # Whatever happens until one is back says nothing of how fast events are handled.
            self._pool.line.stall()
        self._notices.unsubscribe(link)
        _log.info("a handler worker has left: %s", reason)
        super()._leave(link, channel, f"the handler worker is gone: {reason}")
