"""Client daemons of the test's own: one takes events and answers none, one sends them and reads no answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from typing import Any

from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.frames import Frame
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Event
from restpipe.protocol.session import Session
from restpipe.protocol.streams import INITIAL_CREDIT, MAX_CREDIT
from restpipe.transport.dialer import dial
from restpipe.transport.link import Link
from restpipe.transport.tls import TlsFiles, client_context
from tests.support.callers import Callers
from tests.support.identities import Identity

TIMEOUT_S = 10.0
BUFFER = 1 << 20
SIGN_OF_LIFE_S = 0.2
EVENTS_AT_ONCE = 500
NEVER_S = 1e6


class SilentPeer(Callers):
    """One link of one peer. It grants each event all the credit that there is, and can stop reading.

    It shows that it lives, but does not mind whether the server does. Leaving the `with`
    block breaks the link.
    """

    def __init__(self, identity: Identity, port: int, session: Session | None = None) -> None:
        """`session` is one to go on with."""
        super().__init__()
        self.events = 0
        """How many have come."""
        self.session: Session | None = None
        """What the server calls its session, once the link stands."""
        self.resumed = False
        self._link: Link | None = None
        self._identity = identity
        self._port = port
        self._asked_for = session

    def stop_reading(self) -> None:
        """Nothing that the server sends from now on is taken."""
        # Waited for: until then it takes as much as would have to wait at the server.
        asyncio.run_coroutine_threadsafe(self._pause_reading(), self._loop).result(TIMEOUT_S)

    async def _pause_reading(self) -> None:
        assert self._link is not None
        assert self._link.transport is not None
        self._link.transport.pause_reading()

    def _calls(self) -> Iterator[Coroutine[Any, Any, None]]:
        yield self._live()

    def _stop(self) -> None:
        self._hang_up()

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        directory = self._identity.directory
        files = TlsFiles(*(directory / f"{name}.pem" for name in ("key", "certificate", "ca", "crl")))
        link = self._link = await dial(
            "127.0.0.1",
            self._port,
            client_context(files),
            lambda: Link(
                Connection(Side.DIALER, heartbeat_s=NEVER_S, handshake_s=TIMEOUT_S, now=loop.time()),
                self,
                loop,
            ),
            server_name="localhost",
            timeout_s=TIMEOUT_S,
        )
        try:
            await self._stay(link)
        finally:
            link.abort()

    async def _stay(self, link: Link) -> None:
        while not link.closing:
            link.connection.ping(link.loop.time())
            link.wake()
            await asyncio.sleep(SIGN_OF_LIFE_S)

    # LinkOwner.

    def link_made(self, link: Link) -> None:
        link.connection.say_hello(ROLE_PIPE, session=self._asked_for, buffer_size=BUFFER)

    def link_frame(self, link: Link, frame: Frame, now: float) -> None:
        session = link.connection.session
        if frame.kind == frames.WELCOME and session is not None:
            session.attach(link.wake)
            self.resumed = link.connection.resumed
            self.session = session

    def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
        session = link.connection.session
        for frame in received if session is not None else ():
            if frame.kind == frames.EVENT:
                self.events += 1
                credit = frames.encode_credit(frames.WINDOW, frame.stream, MAX_CREDIT - INITIAL_CREDIT)
                session.send(frame.stream, credit)

    def link_lost(self, link: Link, reason: str) -> None:
        """The session stays, for another to go on with."""


class GreedyPeer(SilentPeer):
    """Asks for much, and takes nothing of it: no credit is granted beyond what each stream begins with."""

    def __init__(self, identity: Identity, port: int) -> None:
        super().__init__(identity, port)
        self.begun = 0
        """How many replies have begun."""
        self._numbers = itertools.count(1, 2)

    def ask(self, target: str, count: int, *, end: bool = True) -> None:
        """Sends so many events, of which more follows unless they `end`."""
        asyncio.run_coroutine_threadsafe(self._ask(target, count, end), self._loop).result(TIMEOUT_S)

    async def _ask(self, target: str, count: int, end: bool) -> None:
        session = self.session
        assert session is not None
        for number in itertools.islice(self._numbers, count):
            session.send(number, event(number, target, end=end))

    def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
        self.begun += sum(frame.kind == frames.REPLY for frame in received)


class FloodingPeer(SilentPeer):
    """Sends events as fast as the server takes them, and reads nothing of what becomes of them."""

    def __init__(self, identity: Identity, port: int, target: str) -> None:
        super().__init__(identity, port)
        self.sent = 0
        """Events that the server's host has taken."""
        self.cut_off = False
        """The server has closed the link."""
        self._target = target

    async def _stay(self, link: Link) -> None:
        transport = link.transport
        assert transport is not None
        while self.session is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        transport.pause_reading()
        numbers = itertools.count(1, 2)
        while not link.closing:
            # Not by way of the session, which would keep all of them.
            batch = itertools.islice(numbers, EVENTS_AT_ONCE)
            transport.write(b"".join(event(number, self._target) for number in batch))
            while transport.get_write_buffer_size() and not link.closing:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            self.sent += EVENTS_AT_ONCE
        self.cut_off = True


def event(number: int, target: str, *, end: bool = True) -> bytes:
    """The frame of a GET that waits long."""
    head = Event(id=number.to_bytes(16, "big"), verb="GET", target=target, timeout_ms=3_600_000)
    flags = frames.END if end else 0
    return frames.encode(frames.EVENT, number, head.SerializeToString(), flags=flags)
