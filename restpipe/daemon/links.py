"""The links to other hosts: which peer has one at this moment, and what follows when one comes or goes."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from restpipe.daemon.channel import Channel
from restpipe.daemon.peers import Peer
from restpipe.daemon.router import STOPS, Router
from restpipe.errors import Code
from restpipe.host.config import Pipe
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.frames import GOAWAY, Frame
from restpipe.protocol.messages import encode_goaway, read_message
from restpipe.protocol.schema_pb2 import Goaway
from restpipe.transport.link import Link

_log = logging.getLogger(__name__)


class PeersOwner(Protocol):
    """Hears what becomes of peers."""

    def joined(self, peer: Peer) -> None:
        """The peer is connected, and knows of its session."""

    def left(self, peer: Peer, reason: str) -> None:
        """The link of a peer that had joined is gone. The peer may come back."""

    def gone(self, peer: Peer) -> None:
        """The peer is not expected back: its session is dropped."""


class PeerLinks:
    """Ties links to peers. A peer outlives its session, a session its links. To be made in its loop."""

    def __init__(self, router: Router, session_life_s: float, owner: PeersOwner) -> None:
        self._router = router
        self.session_life_s = session_life_s
        """May be changed at any time, for links that are lost from then on."""
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.stopping = False
        """This daemon closes its links: that they are lost is nothing to warn of."""
        self._peers: dict[Link, Peer] = {}
        self._links: dict[Peer, Link] = {}
        self._given_up: dict[Peer, asyncio.TimerHandle] = {}
        """Peers that are expected back, and when they no longer are."""
        self._unanswered: set[Link] = set()
        """Links whose other side may not have heard of their session yet."""

    def __len__(self) -> int:
        return len(self._links)

    @property
    def expected(self) -> int:
        """Peers that are connected, or expected back."""
        return len(self._links) + len(self._given_up)

    def peers(self) -> tuple[Peer, ...]:
        """Return the peers whose link is up."""
        return tuple(self._links)

    def recently_lost(self, within_s: float) -> list[Peer]:
        """Return the peers that are expected back and have had a link within that time."""
        since = self._loop.time() - within_s
        return [peer for peer in self._given_up if peer.lost_at >= since]

    def all(self) -> tuple[Link, ...]:
        return tuple(self._links.values())

    def peer(self, link: Link) -> Peer | None:
        """Return the peer that a link belongs to. None if its handshake is not over, or it was lost."""
        return self._peers.get(link)

    def link(self, peer: Peer) -> Link | None:
        """Return the peer's link. None if it is down."""
        return self._links.get(peer)

    def join(self, link: Link, peer: Peer, channel: Channel, *, known: bool = True) -> None:
        """The peer is connected and has this session: what waited for it goes on.

        Unless the peer is `known` to have the session, this waits for the first frame of the peer: if its
        WELCOME is lost, it opens another session, and what became of events in this one could not be told.
        """
        timer = self._given_up.pop(peer, None)
        if timer is not None:
            timer.cancel()
        self._peers[link] = peer
        self._links[peer] = link
        channel.session.attach(link.wake)
        peer.joined(channel, *link.peer_address)
        peer.online = known
        link.wake()
        how = "resumes its session" if link.connection.resumed else "begins a session"
        _log.info("%s at %s is connected and %s", peer.name, link, how, extra={"peer": peer.name})
        if link.connection.resumed:
            session = channel.session
            words = "%s: %d frames had come in; %d that were not acknowledged are sent again"
            _log.debug(words, peer.name, session.received, session.repeated, extra={"peer": peer.name})
        if known:
            self._go_on(peer, self._loop.time())
        else:
            self._unanswered.add(link)
            link.connection.ping(self._loop.time())

    def _go_on(self, peer: Peer, now: float) -> None:
        peer.online = True
        self._owner.joined(peer)
        link = self._links.get(peer)
        if self.stopping and link is not None:
            link.send_control(encode_goaway(Code.DRAINING, STOPS))
        self._router.peer_joined(peer, now)

    def link_frame(self, link: Link, peer: Peer, frame: Frame, now: float) -> None:
        """Take a frame of the link itself, once its handshake is over."""
        if link in self._unanswered:
            self._answered(link, peer, now)
        if frame.kind == GOAWAY:
            self._goes(peer, read_message(Goaway(), frame))

    def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
        """Take frames of streams. Those of a link that was lost are dropped."""
        peer = self._peers.get(link)
        if peer is None:
            return
        if self._unanswered and link in self._unanswered:
            self._answered(link, peer, now)
        channel = peer.channel
        if channel is not None:
            self._router.from_peer(peer, channel, received, now)

    def _answered(self, link: Link, peer: Peer, now: float) -> None:
        """The other side has heard of its session."""
        if not link.connection.peer_goes:
            self._unanswered.remove(link)
            self._go_on(peer, now)

    def _goes(self, peer: Peer, goaway: Goaway) -> None:
        """The peer takes no new events; those in flight go on until it closes the link.

        As long as it drains it can be found again. What it says last is SHUTDOWN.
        """
        if peer.online:
            _log.info("%s goes: %s", peer.name, goaway.detail, extra={"peer": peer.name})
        peer.online = False
        if goaway.code == Code.SHUTDOWN:
            peer.stops = True

    def lost(self, link: Link, reason: str) -> None:
        """The link is gone. Its session waits a while for a new one, unless the peer said that it stops."""
        peer = self._peers.pop(link, None)
        if peer is None or self._links.get(peer) is not link:
            return
        del self._links[peer]
        peer.online = False
        peer.lost_at = self._loop.time()
        level = logging.INFO if link.connection.peer_goes or self.stopping else logging.WARNING
        _log.log(
            level, "the link to %s at %s is gone: %s", peer.name, link, reason, extra={"peer": peer.name}
        )
        if link in self._unanswered:
            self._unanswered.remove(link)
        else:
            self._owner.left(peer, reason)
        if peer.stops:
            self._part(peer, f"{peer.name} has stopped")
            return
        self._given_up[peer] = self._loop.call_later(self.session_life_s, self._give_up, peer)

    def cut(self, link: Link, code: Code, detail: str) -> None:
        """End a link and tell both sides why. Its session waits for a new one, as always."""
        link.close(code, detail)
        self.lost(link, detail)

    def replace(self, peer: Peer, reason: str) -> None:
        """End the peer's link, if it has one, in favour of a newer one."""
        link = self._links.get(peer)
        if link is not None:
            link.close(Code.REPLACED, reason)
            link.abort()
            self.lost(link, reason)

    def forget_session(self, peer: Peer, detail: str) -> None:
        """The peer's session cannot go on: its events are answered for."""
        channel, peer.channel = peer.channel, None
        if channel is not None:
            self._router.lose(channel, detail, self._loop.time())

    def _give_up(self, peer: Peer) -> None:
        self._given_up.pop(peer, None)
        detail = f"{peer.name} did not come back within {self.session_life_s:g} s"
        _log.warning("%s; its session is given up", detail, extra={"peer": peer.name})
        self._part(peer, detail)

    def _part(self, peer: Peer, detail: str) -> None:
        self.forget_session(peer, detail)
        self._owner.gone(peer)


def peer_connection(side: Side, pipe: Pipe, now: float) -> Connection:
    """Return the connection of a new link to another host."""
    return Connection(
        side, heartbeat_s=pipe.heartbeat_interval_s, handshake_s=pipe.handshake_timeout_s, now=now
    )
