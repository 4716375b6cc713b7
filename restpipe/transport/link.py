"""A live link: one connection on one asyncio transport."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Protocol, cast

from restpipe.errors import Code, ProtocolError
from restpipe.protocol.connection import Connection
from restpipe.protocol.frames import Frame
from restpipe.protocol.native import mypyc_attr
from restpipe.transport.tls import broken_off, tell_failures

POLL_S = 0.01
LAST_WORDS_S = 2.0
"""Time in seconds that a peer has to read what was written before the link was closed."""
WRITE_AT_ONCE = 65536
"""Bytes that are put on the transport in one go. What stands there cannot be overtaken, so it is little."""
GATHER = 32
"""Frames of one turn of the loop that leave without waiting for its end: in a long turn, the processes that
they are for would stand idle until its last, and then this process until all of them have answered."""
FRAMES_A_TURN = 64
"""Frames taken from one link in one turn of the loop. The others wait for the next, so that the frames of one
neighbour, however small and many, hold up those of all others by no more than this."""
MAX_RESETS = 4096
"""RESETs queued for a neighbour past which nothing more is read from it: it sends events that are refused,
and does not read the refusals."""

_log = logging.getLogger(__name__)


class LinkOwner(Protocol):
    """Handles what a link brings. All calls come in the loop, `link_lost` exactly once and last.

    A `ProtocolError` that `link_frame` or `stream_frames` raises ends the link.
    """

    def link_made(self, link: Link) -> None:
        """The transport is up; the handshake has not begun."""

    def link_frame(self, link: Link, frame: Frame, now: float) -> None:
        """A frame of the link itself: HELLO, WELCOME, GOAWAY, CAPACITY, NOTICE, TURN or PONG."""

    def stream_frames(self, link: Link, frames: list[Frame], now: float) -> None:
        """Frames of streams, in order: never none, and at most FRAMES_A_TURN."""

    def link_lost(self, link: Link, reason: str) -> None:
        """The link is gone, with one line that says why."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Link(asyncio.Protocol):
    """Binds a connection to its transport: bounded reads, gathered writes, one timer, one end."""

    def __init__(self, connection: Connection, owner: LinkOwner, loop: asyncio.AbstractEventLoop) -> None:
        self.connection = connection
        self.transport: asyncio.Transport | None = None
        self.peer_address: tuple[str, int] = ("", 0)
        self._owner = owner
        self.loop = loop
        self._writable = True
        self._woken = 0
        """Times in this turn of the loop that there was something to send."""
        self._reading = True
        self._behind = False
        """Frames of the last read are still to be taken, in the next turns of the loop."""
        self._held_back = False
        """Nothing is read until the neighbour has taken the refusals that wait for it."""
        self._closing = False
        self._reason = ""
        self._timer: asyncio.TimerHandle | None = None

    def __str__(self) -> str:
        return f"{self.peer_address[0]}:{self.peer_address[1]}" if self.peer_address[0] else "local link"

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_AT_ONCE)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            # None when the other side has already reset the connection.
            self.peer_address = (transport.get_extra_info("peername") or ("", 0))[:2]
            set_socket_options(sock, self.connection.dead_s)
            tell_failures(transport)
        self._arm_timer()
        self._owner.link_made(self)
        self.wake()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        connection = self.connection
        now = self.loop.time()
        try:
            streams = connection.receive(data, now, FRAMES_A_TURN)
            if connection.link_frames:
                self._hand_over_link_frames(now)
            if streams:
                self._owner.stream_frames(self, streams, now)
        except ProtocolError as error:
            self._break_off(error)
            return
        if connection.due:
            self.wake()
        if connection.behind:
            self._catch_up_later()
        session = connection.session
        # Where the session is full, only what the neighbour acknowledges lets the refusals leave.
        if session is not None and session.queue.resets > MAX_RESETS and not session.full:
            self._held_back = True
            self._pause_reading()

    def _hand_over_link_frames(self, now: float) -> None:
        connection = self.connection
        received, connection.link_frames = connection.link_frames, []
        for frame in received:
            self._owner.link_frame(self, frame, now)

    def _catch_up_later(self) -> None:
        self._behind = True
        self._pause_reading()
        self.loop.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        """Take the next frames of what has been read."""
        self._behind = False
        self.data_received(b"")
        self._resume_reading()

    def _take_what_is_left(self) -> None:
        """Take what the neighbour sent before its end: it is here alone, and is not sent again."""
        session = self.connection.session
        while self.connection.behind and not self._closing and session is not None and not session.durable:
            self.data_received(b"")

    def _pause_reading(self) -> None:
        if self._reading and self.transport is not None:
            self._reading = False
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if not (self._reading or self._behind or self._held_back or self._closing or self.transport is None):
            self._reading = True
            self.transport.resume_reading()

    def _break_off(self, error: ProtocolError) -> None:
        if self.connection.session is not None:
            self.connection.session.broken = True
        self.close(error.code, error.detail)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._write()

    def eof_received(self) -> None:
        self._reason = self._reason or "closed by the other side"

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_what_is_left()
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        session = self.connection.session
        if session is not None:
            session.detach(self.wake)
        self.transport = None
        self._owner.link_lost(self, self._reason or (broken_off(exc) if exc else "closed by the other side"))

    # Called by the owner.

    def wake(self) -> None:
        """There is something to send: it leaves with what else comes up in this turn of the loop."""
        if self._closing:
            return
        self._woken += 1
        if self._woken == 1:
            self.loop.call_soon(self._write)
        elif self._woken >= GATHER:
            self._write()

    def send_control(self, frame: bytes) -> None:
        """Send a frame of the link itself, before all streams."""
        self.connection.send_control(frame)
        self.wake()

    def set_heartbeat(self, heartbeat_s: float) -> None:
        """Another interval from now on, in all that goes by it."""
        self.connection.set_heartbeat(heartbeat_s, self.loop.time())
        if self._timer is not None and self.transport is not None:
            self._timer.cancel()
            self._arm_timer()
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            set_socket_options(sock, self.connection.dead_s)

    async def wait_written(self) -> None:
        """Returns once all that was queued is written, and taken over where the session is durable.

        Or once the link is gone.
        """
        session = self.connection.session
        # A PONG says what was taken over; without asking, the last frames are acknowledged late.
        self.connection.ping(self.loop.time())
        self.wake()
        # Polled: it is asked once in the life of a link, and the way of a frame stays as short as it is.
        while session is not None and session.pending and self.transport is not None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    async def wait_answered(self) -> None:
        """Returns once the other side has read what was put on the transport, and what it sent before it did
        so has come in; after a while in any case, which is longer where the way is known to be long.
        """
        patience_s = LAST_WORDS_S + 4 * (self.connection.round_trip_s or 0.0)
        # Twice: the answer to a ping that was under way says nothing of what was written behind it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._wait_pong()
                self.connection.ping(self.loop.time())
                self.wake()
                await self._wait_pong()

    async def _wait_pong(self) -> None:
        while self.connection.pinged_at is not None and self.transport is not None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    async def wait_closed(self) -> None:
        """Returns once the transport is gone, all that it held written or given up."""
        while self.transport is not None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    def close(self, code: Code, detail: str) -> None:
        """Says why, then closes. What was queued behind it stays in the session. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._reason = detail or code.name.lower()
        if self.transport is not None:
            self.transport.write(self.connection.goodbye(code, detail))
            self.transport.close()
            # A peer that reads nothing would keep the transport, and all that is in it, for ever.
            self.loop.call_later(LAST_WORDS_S, self.abort)

    def abort(self) -> None:
        """Drops the transport at once. Idempotent."""
        self._closing = True
        if self.transport is not None:
            self.transport.abort()

    @property
    def closing(self) -> bool:
        return self._closing

    # Inside.

    def _write(self) -> None:
        self._woken = 0
        transport = self.transport
        while self._writable and not self._closing and transport is not None:
            data = self.connection.data_to_send(WRITE_AT_ONCE)
            if data:
                transport.write(data)
            if len(data) < WRITE_AT_ONCE:
                break
        if self._held_back:
            self._let_go()

    def _let_go(self) -> None:
        session = self.connection.session
        if session is None or session.full or session.queue.resets <= MAX_RESETS // 2:
            self._held_back = False
            self._resume_reading()

    def _arm_timer(self) -> None:
        self._timer = self.loop.call_at(self.connection.next_tick, self._tick)

    def _tick(self) -> None:
        now = self.loop.time()
        # The handshake may have moved the moment since the timer was set.
        if now >= self.connection.next_tick:
            try:
                self.connection.tick(now)
            except ProtocolError as error:
                self.close(error.code, error.detail)
                self.abort()
                return
            self.wake()
        self._arm_timer()


def set_socket_options(sock: socket.socket, dead_s: float) -> None:
    """TCP: small frames leave at once, what is sent but not yet on the wire stays little, and a peer that
    takes nothing for `dead_s` is gone.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError, AttributeError):
        # Heartbeats find a silent peer; this finds one that sends but does not read.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_s * 1000))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, WRITE_AT_ONCE)
