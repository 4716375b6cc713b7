"""The client's link to the server: dials it, and dials again, forever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable

from restpipe.daemon.channel import Channel
from restpipe.daemon.links import PeerLinks, peer_connection
from restpipe.daemon.peers import Peer
from restpipe.daemon.trust import Refused, Trust
from restpipe.errors import Code
from restpipe.host import stats as metrics
from restpipe.host.config import Address, Pipe, join_address
from restpipe.host.stats import Stats
from restpipe.protocol import frames
from restpipe.protocol.connection import Side
from restpipe.protocol.frames import GOAWAY, PONG, TURN, Frame
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Goaway
from restpipe.transport.backoff import Backoff, Redial
from restpipe.transport.dialer import Disappointments, dial
from restpipe.transport.link import Link
from restpipe.transport.lookups import Lookups
from restpipe.transport.tls import SILENT, SILENT_WHY, handshake_failure

CONCERN_ALL = frozenset((Code.SHUTDOWN, Code.DRAINING, Code.HEARTBEAT, Code.AUTHORITY_GONE))
"""Reasons for which a server closes the links of all clients at once. All others concern one client."""

_log = logging.getLogger(__name__)


class Dialing:
    """Owns the one link to the server."""

    def __init__(
        self,
        server: Peer,
        links: PeerLinks,
        trust: Trust,
        stats: Stats,
        pipe: Pipe,
        *,
        failed: Callable[[int, float], None],
    ) -> None:
        self._server = server
        self._links = links
        self._trust = trust
        self._stats = stats
        self._pipe = pipe
        self._addresses = deque(pipe.addresses)
        self._backoff = Backoff(pipe.reconnect_min_s, pipe.reconnect_max_s)
        self._redial = Redial(self._backoff, len(self._addresses))
        self._disappointments = Disappointments()
        self._lookups = Lookups()
        self._failed = failed
        """Told of each failed attempt: how many in a row, and the Unix time of the last break (0: never)."""
        self._over: asyncio.Future[None] | None = None
        self._joined_at: float | None = None
        """When this attempt became a link, by the loop's clock."""
        self._alone = False
        """The server has closed the link for a reason that concerns this client alone."""
        self._stops = False
        """The server has sent this client away because it stops."""
        self._broken_at = 0.0
        self._reason = ""
        self._stopping = False
        self._hurry = asyncio.Event()
        """Set to dial now instead of after the pause."""

    def configure(self, pipe: Pipe) -> None:
        """Use other values from now on. A link that is up stays, wherever it goes; otherwise dial now."""
        before, self._pipe = self._pipe, pipe
        if pipe.addresses != before.addresses:
            self._addresses = deque(pipe.addresses)
        self._backoff = Backoff(pipe.reconnect_min_s, pipe.reconnect_max_s)
        self._redial.configure(self._backoff, len(self._addresses))
        self._reason = ""
        self._hurry.set()

    def hurry(self) -> None:
        """Dial at once if the link is down, without a turn: time is short, and others have lost no link."""
        self._backoff.reset()
        self._redial.take_turn(0.0, 0.0)
        self._hurry.set()

    def stop(self) -> None:
        """Dial no more; a link that is up stays."""
        self._stopping = True

    @property
    def attempts(self) -> int:
        """Failures in a row."""
        return self._backoff.attempts

    @property
    def broken_at(self) -> float:
        """Unix time of the last break, 0 if there was none."""
        return self._broken_at

    async def run(self) -> None:
        """Keep the link up until cancelled or stopped."""
        while not self._stopping:
            self._stats.tick(metrics.CONNECT_NEW)
            if await self._connect(self._addresses[0]):
                await self._hold()
            else:
                self._failed(self._backoff.attempts + 1, self._broken_at)
            await self._pause(self._next_pause_s())

    async def _pause(self, pause_s: float) -> None:
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._hurry.wait()

    def _next_pause_s(self) -> float:
        if self._joined_at is not None:
            # The same address again: the server there may still know the session.
            stood_s = asyncio.get_running_loop().time() - self._joined_at
            return self._redial.after_link_s(stood_s, alone=self._alone)
        # Also after a name that could not be looked up: the next one may be known, or need no look-up.
        self._addresses.rotate(-1)
        return self._redial.while_it_stops_s() if self._stops else self._redial.after_failure_s()

    async def _connect(self, address: Address) -> bool:
        loop, pipe = asyncio.get_running_loop(), self._pipe
        self._over = loop.create_future()
        self._joined_at = None
        self._alone = False
        self._stops = False
        began = loop.time()
        _log.debug("dialing %s", join_address(*address))
        try:
            await dial(
                address.host,
                address.port,
                self._trust.context,
                lambda: Link(peer_connection(Side.DIALER, pipe, loop.time()), self, loop),
                # TLS checks host names only.
                server_name="" if "://" in pipe.server_name else pipe.server_name,
                timeout_s=pipe.handshake_timeout_s,
                disappointments=self._disappointments,
                lookups=self._lookups,
            )
        except OSError as error:
            reason = handshake_failure(error)
            self._report(f"{reason}: {SILENT_WHY}" if reason == SILENT else reason)
            return False
        self._stats.timing(metrics.CONNECT_ATTEMPT_TIME, loop.time() - began)
        return True

    def _report(self, reason: str) -> None:
        """Log a failure, at DEBUG if it is the same again. That a server stops is none."""
        level = logging.INFO if self._stops else logging.WARNING
        if reason == self._reason:
            level = logging.DEBUG
        self._reason = reason
        _log.log(level, "cannot connect to %s: %s", join_address(*self._addresses[0]), reason)

    async def _hold(self) -> None:
        """Return once the link is lost."""
        if self._over is not None:
            await self._over

    # LinkOwner.

    def link_made(self, link: Link) -> None:
        try:
            self._trust.admit(link)
        except Refused as refused:
            link.close(refused.code, f"the server is refused: {refused}")
            return
        channel = self._server.channel
        session = channel.session if channel is not None and not channel.session.broken else None
        link.connection.say_hello(ROLE_PIPE, session=session, buffer_size=self._pipe.session_buffer_bytes)

    def link_frame(self, link: Link, frame: Frame, now: float) -> None:
        if self._links.peer(link) is None:
            if not link.closing:
                self._welcome(link, frame, now)
            return
        if frame.kind == PONG:
            self._heartbeat(link)
        elif frame.kind == TURN:
            self._redial.take_turn(*frames.decode_turn(frame))
        elif frame.kind == GOAWAY:
            self._alone = read_message(Goaway(), frame).code not in CONCERN_ALL
        self._links.link_frame(link, self._server, frame, now)

    def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
        self._links.stream_frames(link, received, now)

    def link_lost(self, link: Link, reason: str) -> None:
        self._trust.forget(link)
        if link.connection.session is not None:
            self._broken_at = time.time()
            self._stats.tick(metrics.BROKEN)
            if link.connection.pinged_at is not None:
                self._stats.tick(metrics.HEARTBEAT_FAIL)
            self._links.lost(link, reason)
        else:
            self._disappointments.add(link.peer_address)
            self._report(reason)
            if not self._stops:
                self._failed(self._backoff.attempts + 1, self._broken_at)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _welcome(self, link: Link, frame: Frame, now: float) -> None:
        session = link.connection.session
        if frame.kind == GOAWAY or session is None:
            goaway = read_message(Goaway(), frame)
            self._stops = goaway.code == Code.SHUTDOWN
            link.close(Code.SHUTDOWN, f"refused by the server: {goaway.detail}")
            return
        channel = self._server.channel
        if link.connection.resumed:
            if channel is None or channel.session is not session:
                link.close(Code.HANDSHAKE, "the session was given up while it was about to be resumed")
                return
        else:
            self._links.forget_session(self._server, "the server began a new session")
            channel = self._server.channel = Channel(session, Side.DIALER, self._server.name)
        self._joined_at = now
        self._disappointments.forget(link.peer_address)
        self._reason = ""
        self._stats.tick(metrics.CONNECTED)
        self._trust.joined(link, self._server)
        self._links.join(link, self._server, channel)
        self._backoff.reset()

    def _heartbeat(self, link: Link) -> None:
        self._stats.tick(metrics.HEARTBEAT_SUCCESS)
        if link.connection.round_trip_s is not None:
            self._stats.timing(metrics.HEARTBEAT_TIME, link.connection.round_trip_s)
            _log.debug("heartbeat answered after %.4f s", link.connection.round_trip_s)
