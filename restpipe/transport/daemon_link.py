"""A worker's link to its daemon, over one of the daemon's Unix sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from restpipe.errors import Code, Delivered, NotConnected, ProtocolError, Reset, StreamReset
from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.frames import CAPACITY, END, EVENT, ORIGIN, Frame
from restpipe.protocol.messages import encode_goaway, read_message
from restpipe.protocol.native import mypyc_attr
from restpipe.protocol.schema_pb2 import Event, Goaway, Notice, Origin, Role
from restpipe.protocol.session import Session
from restpipe.transport.backoff import Backoff
from restpipe.transport.exchange import Exchange
from restpipe.transport.link import Link

HEARTBEAT_S = 5.0
HANDSHAKE_S = 5.0
RESTART_S = 15.0
"""A daemon that stops in good order drains for a while; one that is not back by then is missed."""
MAX_EXCHANGES = 8192
"""Events under way on one worker's link; past it `open` refuses."""

_log = logging.getLogger(__name__)


@mypyc_attr(allow_interpreted_subclasses=True)
class DaemonLink:
    """Keeps a worker linked to its daemon, redialing for ever, and carries its exchanges.

    A web worker opens exchanges. A handler worker is handed those that others opened: `on_event` is called in
    the loop as soon as an event's head is in, `on_notice` with what the daemon tells of the pipe.
    """

    def __init__(
        self,
        path: str,
        role: Role,
        *,
        capacity: int = 0,
        on_event: Callable[[Exchange], None] | None = None,
        on_notice: Callable[[Notice], None] | None = None,
    ) -> None:
        self._path = path
        self._role = role
        self._capacity = capacity
        self._on_event = on_event
        self._on_notice = on_notice
        self._backoff = Backoff(0.1, 1.0)
        self._loop: asyncio.AbstractEventLoop
        self._link: Link | None = None
        self._session: Session | None = None
        """Where events can be opened; None while the daemon takes none."""
        self._exchanges: dict[int, Exchange] = {}
        self._origins: dict[int, Origin] = {}
        self._latest_origin = (b"", Origin())
        """As it came, and read: mostly the next is the same."""
        self._next_number = 1
        self._draining = False
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._idle = asyncio.Event()
        self._reason = ""
        self._level = 0
        """At which the reason was said."""
        self._patient_until = 0.0
        """The daemon has said that it stops: that it is gone until then is in good order."""

    # For the worker.

    async def run(self) -> None:
        """Dials, and dials again when the link breaks, until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while not self._draining:
                await self._dial()
                if not self._draining:
                    await asyncio.sleep(self._backoff.next_pause_s())
        finally:
            if self._link is not None:
                self._link.close(Code.SHUTDOWN, "the worker stops")

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    def fileno(self) -> int:
        """Return the descriptor of the connection, -1 if there is none."""
        link = self._link
        sock = (
            link.transport.get_extra_info("socket")
            if link is not None and link.transport is not None
            else None
        )
        return -1 if sock is None else int(sock.fileno())

    async def wait_connected(self) -> None:
        """Returns once events can be opened."""
        await self._connected.wait()

    def open(self, event: Event, body: bytes = b"", *, end: bool) -> Exchange:
        """Sends an event with the first of its body (at most 64 KiB); with `end` that is all of it.

        `NotConnected` while there is no link. `StreamReset` when the event cannot be sent at all: too many
        are under way (OVERLOADED), or its head is too large for a frame (BAD_REQUEST).
        """
        session = self._session
        if session is None:
            raise NotConnected(self._reason or "no link to the pipe daemon")
        if len(self._exchanges) >= MAX_EXCHANGES:
            detail = f"{MAX_EXCHANGES} events are in flight already"
            raise StreamReset(Reset(Code.OVERLOADED, detail, Delivered.NO))
        number = self._next_number
        try:
            frame = frames.encode(EVENT, number, event.SerializeToString(), body, flags=END if end else 0)
        except ValueError as error:
            raise StreamReset(Reset(Code.BAD_REQUEST, str(error), Delivered.NO)) from None
        self._next_number += 2
        exchange = Exchange(session, number, event, loop=self._loop, forget=self._forget)
        exchange.sent_with_opening(len(body))
        self._exchanges[number] = exchange
        session.send(number, frame)
        return exchange

    def set_capacity(self, capacity: int) -> None:
        """Handler workers: how many events in all this worker can have under way from now on."""
        self._capacity = capacity
        if self.connected and self._link is not None:
            self._link.send_control(frames.encode_credit(CAPACITY, 0, capacity))

    async def drain(self, timeout_s: float) -> None:
        """Takes no new events, waits at most `timeout_s` for those under way, then closes the link."""
        self._draining = True
        link = self._link
        if link is None:
            return
        if self.connected:
            self._disconnect()
            link.send_control(encode_goaway(Code.SHUTDOWN, "the worker stops"))
        try:
            async with asyncio.timeout(timeout_s):
                if self._on_event is not None:
                    # Events that crossed the word on their way are told to go elsewhere.
                    await link.wait_answered()
                await self._until_idle(link)
                if self._on_event is not None:
                    # A daemon that writes to a link that is closed never reads the last replies in it.
                    await link.wait_answered()
        except TimeoutError:
            _log.warning("%d events were still in flight after %g s", len(self._exchanges), timeout_s)
        link.close(Code.SHUTDOWN, "the worker stops")

    async def _until_idle(self, link: Link) -> None:
        while self._exchanges:
            self._idle.clear()
            await self._idle.wait()
        # The last reply may be complete for this side, but not yet written.
        await link.wait_written()

    # Dialing.

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        connection = Connection(
            Side.DIALER, heartbeat_s=HEARTBEAT_S, handshake_s=HANDSHAKE_S, now=loop.time()
        )
        connection.say_hello(self._role, capacity=self._capacity)
        self._lost.clear()
        try:
            await loop.create_unix_connection(lambda: Link(connection, self, loop), self._path)
        except OSError as error:
            self._report(f"cannot reach the pipe daemon at {self._path}: {error.strerror or error}")
            return
        except asyncio.CancelledError:
            # The loop has closed the transport, though nobody was told yet: there is nothing to write to.
            link, self._link = self._link, None
            if link is not None:
                link.abort()
            raise
        await self._lost.wait()

    def _report(self, reason: str) -> None:
        """The same failure again is no news, but that it lasts is."""
        expected = asyncio.get_running_loop().time() < self._patient_until
        level = logging.INFO if expected else logging.WARNING
        if reason != self._reason or level > self._level:
            _log.log(level, "%s", reason)
            self._level = level
        self._reason = reason

    # LinkOwner.

    def link_made(self, link: Link) -> None:
        self._link = link

    def link_frame(self, link: Link, frame: Frame, now: float) -> None:
        match frame.kind:
            case frames.WELCOME:
                self._welcome(link)
            case frames.GOAWAY:
                goaway = read_message(Goaway(), frame)
                if goaway.code == Code.SHUTDOWN:
                    self._patient_until = now + RESTART_S
                self._report(f"the pipe daemon is shutting down: {goaway.detail}")
                self._disconnect()
            case frames.NOTICE if self._on_notice is not None:
                self._on_notice(read_message(Notice(), frame))

    def _welcome(self, link: Link) -> None:
        self._reason = ""
        self._level = 0
        self._patient_until = 0.0
        self._backoff.reset()
        session = self._session = link.connection.session
        if session is not None:
            session.attach(link.wake)
        self._next_number = 1
        self._connected.set()

    def _disconnect(self) -> None:
        """Open no events from now on."""
        self._session = None
        self._connected.clear()

    def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
        exchanges = self._exchanges
        for frame in received:
            exchange = exchanges.get(frame.stream)
            if exchange is not None:
                exchange.receive(frame, now)
            elif self._on_event is not None:
                if frame.kind == ORIGIN:
                    self._take_origin(frame)
                elif frame.kind == EVENT:
                    self._take_event(link, frame, now)

    def link_lost(self, link: Link, reason: str) -> None:
        self._link = None
        self._disconnect()
        self._origins.clear()
        if not self._draining:
            self._report(f"the link to the pipe daemon broke: {reason}")
        for exchange in list(self._exchanges.values()):
            exchange.lose()
        self._lost.set()

    # Exchanges.

    def _take_origin(self, frame: Frame) -> None:
        if len(self._origins) < MAX_EXCHANGES:
            head = frame.head
            if head != self._latest_origin[0]:
                self._latest_origin = (head, read_message(Origin(), frame))
            self._origins[frame.stream] = self._latest_origin[1]

    def _take_event(self, link: Link, frame: Frame, now: float) -> None:
        session = link.connection.session
        origin = self._origins.pop(frame.stream, None)
        if session is None or origin is None or self._on_event is None:
            raise ProtocolError(Code.BAD_FRAME, "an event without an ORIGIN frame before it")
        exchange = Exchange(
            session, frame.stream, Event(), loop=link.loop, origin=origin, forget=self._forget
        )
        self._exchanges[frame.stream] = exchange
        try:
            read_message(exchange.event, frame)
        except ProtocolError as fault:
            exchange.reset(fault.code, fault.detail, Delivered.NO)
            return
        if self._draining:
            exchange.reset(Code.DRAINING, "the handler worker stops", Delivered.NO)
            return
        exchange.receive_body(frame.payload[frame.head_size :], now, end=frame.flags & END != 0)
        self._on_event(exchange)

    def _forget(self, number: int) -> None:
        self._exchanges.pop(number, None)
        if not self._exchanges:
            self._idle.set()
