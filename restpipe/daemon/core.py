"""The parts that the daemons of both roles have in common, tied together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from restpipe.daemon.clock import now
from restpipe.daemon.links import PeerLinks
from restpipe.daemon.local import EventsDoor, HandlersDoor
from restpipe.daemon.names import Resolver
from restpipe.daemon.notices import Notices
from restpipe.daemon.peers import Peer, PeerTable
from restpipe.daemon.pool import HandlerPool
from restpipe.daemon.router import Limits, Router
from restpipe.daemon.waiting import Deadlines
from restpipe.host.config import Pipe
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.schema_pb2 import Notice


class Core:
    """Peers, pool, router and doors of one daemon. To be made in its loop."""

    def __init__(
        self,
        pipe: Pipe,
        peers: PeerTable,
        *,
        server: Peer | None,
        joined: Callable[[Peer], None],
        left: Callable[[Peer, str], None],
        present: Callable[[], Iterable[Notice]],
        gone: Callable[[], object] = lambda: None,
    ) -> None:
        self.pipe = pipe
        self.peers = peers
        self._expiry: asyncio.TimerHandle | None = None
        limits = Limits(pipe.max_streams, pipe.backlog_bytes)
        pool = self._pool = HandlerPool(pipe.max_waiting)
        self.router = Router(peers, pool, limits, Resolver().resolve, Deadlines(self._arm), server=server)
        self.notices = Notices(present)
        self.links = PeerLinks(self.router, pipe.session_life_s, joined=joined, left=left, gone=gone)
        self.events = EventsDoor(self.router)
        self.handlers = HandlersDoor(self.router, pool, self.notices)

    def configure(self, pipe: Pipe, max_peers: int) -> None:
        """Other values while it runs: for what comes from now on, and for the heartbeats of all links."""
        self.pipe = pipe
        self.router.limits = Limits(pipe.max_streams, pipe.backlog_bytes)
        self.peers.set_limits(max_peers, pipe.max_waiting)
        self._pool.line.limit = pipe.max_waiting
        self.links.session_life_s = pipe.session_life_s
        for link in self.links.all():
            link.set_heartbeat(pipe.heartbeat_interval_s)

    def make_connection(self, side: Side) -> Connection:
        """For a link to another host."""
        return Connection(
            side,
            heartbeat_s=self.pipe.heartbeat_interval_s,
            handshake_s=self.pipe.handshake_timeout_s,
            now=now(),
        )

    @property
    def under_way(self) -> int:
        """Events that this daemon carries at this moment."""
        return self.events.under_way + sum(
            len(peer.channel.routes) for peer in self.peers if peer.channel is not None
        )

    def _arm(self, at: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_at(at, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self.router.expire(now())
        next_at = self.router.deadlines.next_at
        if next_at is not None:
            self._arm(next_at)
