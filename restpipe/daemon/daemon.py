"""What the daemons of both roles have in common: peers, workers, and the router between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

from restpipe.daemon.channel import Route
from restpipe.daemon.links import PeerLinks
from restpipe.daemon.local import EventsDoor, HandlersDoor
from restpipe.daemon.notices import Notices
from restpipe.daemon.peers import Peer, PeerTable
from restpipe.daemon.pool import HandlerPool
from restpipe.daemon.resolver import Resolver
from restpipe.daemon.router import STOPS, Limits, Router
from restpipe.errors import Code
from restpipe.host.config import Config
from restpipe.protocol.messages import encode_goaway
from restpipe.protocol.schema_pb2 import Notice
from restpipe.transport.timer import DeadlineQueue
from restpipe.transport.tls import TlsFiles

DRAIN_POLL_S = 0.05
RETURN_S = 6.0
"""How long a peer that has lost its link is waited for at the end, to take what is sent to it: a round of
turns, and some. An event that is not over is waited for however long its peer is away, within
`pipe.drain_timeout_s`.
"""
TOLD = 10
"""Names in one line of the log."""

_log = logging.getLogger(__name__)


class Daemon:
    """One end of the pipe, to be made in its loop. `ServerDaemon` and `ClientDaemon` link it to peers."""

    def __init__(self, config: Config, peers: PeerTable, *, server: Peer | None = None) -> None:
        """`server` is the one peer of a client, which is then in `peers`."""
        pipe = self.pipe = config.pipe
        self.peers = peers
        self.pool = HandlerPool(pipe.max_waiting)
        self.deadlines = DeadlineQueue[Route](asyncio.get_running_loop(), self._give_up)
        self.router = Router(
            peers,
            self.pool,
            Limits(pipe.max_streams, pipe.backlog_bytes),
            Resolver().resolve,
            self.deadlines.add,
            server=server,
        )
        self.router.debug = config.log.debug
        self.links = PeerLinks(self.router, pipe.session_life_s, self)
        self.notices = Notices(self.present)
        self.events = EventsDoor(self.router)
        self.handlers = HandlersDoor(self.router, self.pool, self.notices)

    # What the roles say of it.

    def tasks(self) -> Iterator[Coroutine[Any, Any, None]]:
        """Yield what runs as long as the daemon serves. Raises `RestPipeError` if it cannot start."""
        yield from ()

    def stop_taking_newcomers(self) -> None:
        """Make no new links to peers but those that go on with a session, without delay."""

    def stop(self) -> None:
        """Make no new links to peers."""

    @property
    def status(self) -> str:
        """One line for the administrator."""
        return ""

    def joined(self, peer: Peer) -> None:
        """The peer is connected, and knows of its session."""

    def left(self, peer: Peer, reason: str) -> None:
        """The link of a peer that had joined is gone. The peer may come back."""

    def gone(self, peer: Peer) -> None:
        """The peer is not expected back: its session is dropped."""

    def present(self) -> Iterable[Notice]:
        """Return what a handler worker is told when it connects."""
        return ()

    # Its life.

    def reload(self, config: Config) -> None:
        """Go on with other values: for what comes from now on, and for the heartbeats of all links.

        Raises `ConfigError` if they cannot be used: those before stay in force.
        """
        pipe = self.pipe = config.pipe
        self.router.limits = Limits(pipe.max_streams, pipe.backlog_bytes)
        self.router.debug = config.log.debug
        self.peers.set_max_waiting(pipe.max_waiting)
        self.pool.queue.limit = pipe.max_waiting
        self.links.session_life_s = pipe.session_life_s
        for link in self.links.all():
            link.set_heartbeat(pipe.heartbeat_interval_s)

    @property
    def in_flight(self) -> int:
        """Events that this daemon carries at this moment."""
        return self.events.in_flight + sum(
            len(peer.channel.routes) for peer in self.peers if peer.channel is not None
        )

    async def drain(self) -> None:
        """Take nothing new, give events in flight `pipe.drain_timeout_s` to finish, then close all links.

        A link to a peer that breaks meanwhile, or has done so just before, may be made anew: what is owed
        over it is not lost with it.
        """
        self.links.stopping = True
        self.stop_taking_newcomers()
        self.events.closed = True
        self.router.drain()
        for link in self.events.links:
            link.send_control(encode_goaway(Code.SHUTDOWN, STOPS))
        for link in self.links.all():
            link.send_control(encode_goaway(Code.DRAINING, STOPS))
        timeout_s = self.pipe.drain_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._wait_finished()
        except TimeoutError:
            _log.warning("%s after %g s", self._unfinished(), timeout_s)
        self.stop()
        self.handlers.closed = True
        links = (*self.events.links, *self.links.all(), *self.handlers.links)
        for link in links:
            link.close(Code.SHUTDOWN, STOPS)
        for link in links:
            await link.wait_closed()

    async def _wait_finished(self) -> None:
        """Return once all events have ended, and all peers that are there, or soon back, know of it."""
        # What was sent before the GOAWAY came through is here then: nothing is lost on the way.
        links = (*self.events.links, *self.links.all())
        await asyncio.gather(*(link.wait_answered() for link in links))
        while True:
            # Polled, so that the router need not look for the last event.
            while self.in_flight:  # noqa: ASYNC110
                await asyncio.sleep(DRAIN_POLL_S)
            links = (*self.events.links, *self.links.all())
            await asyncio.gather(*(link.wait_written() for link in links))
            if not self.in_flight and not self._owed():
                return
            await asyncio.sleep(DRAIN_POLL_S)

    def _owed(self) -> list[Peer]:
        """Return the peers that have not acknowledged all that is for them, and are there or soon back."""
        peers = (*self.links.peers(), *self.links.recently_lost(RETURN_S))
        return [peer for peer in peers if peer.channel is not None and peer.channel.session.pending]

    def _unfinished(self) -> str:
        if self.in_flight:
            return f"{self.in_flight} events were still under way"
        owed = ", ".join(sorted(peer.name for peer in self._owed())[:TOLD])
        return f"what was sent to {owed or 'local workers'} was still not taken over"

    def _give_up(self, route: Route) -> None:
        self.router.give_up(route)


def tls_files(config: Config) -> TlsFiles:
    tls = config.tls
    return TlsFiles(tls.key, tls.certificate, tls.ca, tls.crl)
