"""A client daemon of the test's own, which takes events and answers none."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.frames import Frame, Kind
from restpipe.protocol.schema_pb2 import ROLE_PIPE
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
            while not link.closing:
                link.connection.ping(loop.time())
                link.wake()
                await asyncio.sleep(SIGN_OF_LIFE_S)
        finally:
            link.abort()

    # LinkOwner.

    def link_made(self, link: Link) -> None:
        link.connection.say_hello(ROLE_PIPE, session=self._asked_for, buffer_size=BUFFER)

    def frames_received(self, link: Link, received: list[Frame]) -> None:
        session = link.connection.session
        for frame in received if session is not None else ():
            if frame.kind == Kind.WELCOME:
                session.attach(link.wake)
                self.resumed = link.connection.resumed
                self.session = session
            elif frame.kind == Kind.EVENT:
                self.events += 1
                credit = frames.encode_credit(Kind.WINDOW, frame.stream, MAX_CREDIT - INITIAL_CREDIT)
                session.send(frame.stream, credit)

    def link_lost(self, link: Link, reason: str) -> None:
        """The session stays, for another to go on with."""
