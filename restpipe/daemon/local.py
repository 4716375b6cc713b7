"""The daemon's Unix sockets. What a worker may do depends on the socket that it connects to."""

from __future__ import annotations

import itertools
import logging
from typing import Generic, TypeVar

from restpipe.daemon.channel import Channel
from restpipe.daemon.notices import Notices
from restpipe.daemon.pool import HandlerPool, Worker
from restpipe.daemon.router import Router
from restpipe.errors import Code, ProtocolError
from restpipe.protocol import frames
from restpipe.protocol.connection import Side, new_session_id
from restpipe.protocol.frames import CAPACITY, HELLO, Frame
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_HANDLER, ROLE_WEB, Hello, Role
from restpipe.protocol.session import Session
from restpipe.transport.link import Link

MAX_LINKS = 512
"""Workers connected to one socket."""
MAX_CAPACITY = 1 << 20

ChannelT = TypeVar("ChannelT", bound=Channel)

_log = logging.getLogger(__name__)


class LocalDoor(Generic[ChannelT]):
    """One socket: the handshake, and a session that ends with its link."""

    role: Role

    def __init__(self, router: Router) -> None:
        self._router = router
        self._channels: dict[Link, ChannelT] = {}
        self._links: set[Link] = set()
        self._count = itertools.count(1)
        self.closed = False
        """No more workers are let in."""

    @property
    def links(self) -> tuple[Link, ...]:
        """All links to this socket."""
        return tuple(self._links)

    @property
    def in_flight(self) -> int:
        """Events in flight with these workers."""
        return sum(len(channel.routes) for channel in self._channels.values())

    def link_made(self, link: Link) -> None:
        self._links.add(link)
        if self.closed:
            link.close(Code.SHUTDOWN, "the daemon stops")
        elif len(self._links) > MAX_LINKS:
            link.close(Code.TOO_MANY_LINKS, f"{MAX_LINKS} workers are here already")

    def link_frame(self, link: Link, frame: Frame, now: float) -> None:
        channel = self._channels.get(link)
        if channel is None:
            self._greet(link, frame, now)
        else:
            self._handle(channel, frame, now)

    def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
        raise NotImplementedError

    def link_lost(self, link: Link, reason: str) -> None:
        self._links.discard(link)
        channel = self._channels.pop(link, None)
        if channel is not None:
            self._leave(link, channel, reason)

    def _greet(self, link: Link, frame: Frame, now: float) -> None:
        if frame.kind != HELLO:
            link.close(Code.SHUTDOWN, "gone before the handshake")
            return
        hello = read_message(Hello(), frame)
        if hello.role != self.role:
            raise ProtocolError(Code.HANDSHAKE, f"role {hello.role} came in by the wrong socket")
        session = Session(new_session_id(), 0)
        link.connection.accept(session, hello, now=now)
        session.attach(link.wake)
        self._channels[link] = self._join(link, session, hello, now)

    def _join(self, link: Link, session: Session, hello: Hello, now: float) -> ChannelT:
        """Return the channel of a worker that has connected."""
        raise NotImplementedError

    def _handle(self, channel: ChannelT, frame: Frame, now: float) -> None:
        """Take a frame of the link itself."""

    def _leave(self, link: Link, channel: ChannelT, reason: str) -> None:
        """The worker is gone."""
        self._router.lose(channel, reason, link.loop.time())


class EventsDoor(LocalDoor[Channel]):
    """`events.sock`: workers that connect here may send events."""

    role = ROLE_WEB

    def _join(self, link: Link, session: Session, hello: Hello, now: float) -> Channel:
        channel = Channel(session, Side.LISTENER, f"web {next(self._count)}")
        _log.debug("%s: a web worker has come", channel.name)
        return channel

    def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
        channel = self._channels.get(link)
        if channel is not None:
            self._router.from_sender(channel, received, now)

    def _leave(self, link: Link, channel: Channel, reason: str) -> None:
        _log.debug("%s: a web worker has left: %s", channel.name, reason)
        super()._leave(link, channel, reason)


class HandlersDoor(LocalDoor[Worker]):
    """`handlers.sock`: workers that connect here may answer events."""

    role = ROLE_HANDLER

    def __init__(self, router: Router, pool: HandlerPool, notices: Notices) -> None:
        super().__init__(router)
        self._pool = pool
        self._notices = notices

    def _join(self, link: Link, session: Session, hello: Hello, now: float) -> Worker:
        name = f"handlers {next(self._count)}"
        worker = Worker(session, link.connection, min(hello.capacity, MAX_CAPACITY), name)
        self._pool.workers.add(worker)
        self._notices.subscribe(link)
        self._router.feed_workers(now)
        _log.info("a handler worker has come; it takes %d events at once", worker.capacity)
        return worker

    def _handle(self, channel: Worker, frame: Frame, now: float) -> None:
        if frame.kind == CAPACITY:
            channel.capacity = min(frames.decode_credit(frame), MAX_CAPACITY)
        # Its capacity may have grown, or it has answered a late heartbeat.
        self._router.feed_workers(now)

    def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
        channel = self._channels.get(link)
        if channel is not None:
            self._router.relay(channel, received, now)

    def _leave(self, link: Link, channel: Worker, reason: str) -> None:
        self._pool.workers.discard(channel)
        if not self._pool.workers:
            # The time until another is here says nothing about how fast events are handled.
            self._pool.queue.stall()
        self._notices.unsubscribe(link)
        _log.info("a handler worker has left: %s", reason)
        super()._leave(link, channel, f"the handler worker is gone: {reason}")
