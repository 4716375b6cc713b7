"""The links to other hosts: which peer has one at this moment, and what follows when one comes or goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from restpipe.daemon.channel import Channel
from restpipe.daemon.clock import now
from restpipe.daemon.peers import Peer
from restpipe.daemon.router import Router
from restpipe.errors import Code
from restpipe.protocol.frames import FIRST_LINK_KIND, Frame, Kind
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import Goaway
from restpipe.transport.link import Link

_log = logging.getLogger(__name__)


class PeerLinks:
    """Ties links to peers. A peer outlives its session, a session its links."""

    def __init__(
        self,
        router: Router,
        session_life_s: float,
        *,
        joined: Callable[[Peer], None],
        left: Callable[[Peer, str], None],
        gone: Callable[[], object] = lambda: None,
    ) -> None:
        """`gone` is called when a peer is not expected back any more."""
        self._router = router
        self.session_life_s = session_life_s
        """May be changed at any time, for links that are lost from then on."""
        self._joined = joined
        self._left = left
        self._gone = gone
        self.stopping = False
        """All are to go: that they do is nothing to worry about."""
        self._peers: dict[Link, Peer] = {}
        self._links: dict[Peer, Link] = {}
        self._given_up: dict[Peer, asyncio.TimerHandle] = {}
        self._unanswered: set[Link] = set()
        """Links whose other side may not have heard of their session yet."""

    def __len__(self) -> int:
        return len(self._links)

    @property
    def expected(self) -> int:
        """Peers that are here, or whose sessions wait for them."""
        return len(self._links) + len(self._given_up)

    def peers(self) -> tuple[Peer, ...]:
        """Those whose link is up."""
        return tuple(self._links)

    def all(self) -> tuple[Link, ...]:
        return tuple(self._links.values())

    def peer(self, link: Link) -> Peer | None:
        """Whose link this is, once the handshake is over."""
        return self._peers.get(link)

    def link(self, peer: Peer) -> Link | None:
        """The peer's link, while it is up."""
        return self._links.get(peer)

    def join(self, link: Link, peer: Peer, channel: Channel, *, known: bool = True) -> None:
        """The peer is here, with this session; whatever waited for it goes on.

        Not before its first word, unless the peer is `known` to have the session: were its WELCOME lost, it
        would begin another, and nobody could say what has become of the events in this one.
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
            self._go_on(peer)
        else:
            self._unanswered.add(link)
            link.connection.ping(now())

    def _go_on(self, peer: Peer) -> None:
        peer.online = True
        self._joined(peer)
        self._router.peer_joined(peer, now())

    def receive(self, link: Link, peer: Peer, received: list[Frame]) -> None:
        """Frames of a link whose handshake is over."""
        if link in self._unanswered and not link.connection.peer_goes:
            self._unanswered.remove(link)
            self._go_on(peer)
        for frame in received:
            if frame.kind >= FIRST_LINK_KIND and frame.kind == Kind.GOAWAY:
                self.goes(peer, read_message(Goaway(), frame))
        if peer.channel is not None:
            self._router.from_peer(peer, peer.channel, received, now())

    def goes(self, peer: Peer, goaway: Goaway) -> None:
        """It takes no new events; those under way go on until it closes the link."""
        # It is said once more when the link closes.
        if peer.online:
            _log.info("%s goes: %s", peer.name, goaway.detail, extra={"peer": peer.name})
        peer.online = False
        if goaway.code == Code.SHUTDOWN:
            peer.stops = True

    def lost(self, link: Link, reason: str) -> None:
        """The link is gone. Its session waits for another, but not for ever, and not for who has stopped."""
        peer = self._peers.pop(link, None)
        if peer is None or self._links.get(peer) is not link:
            return
        del self._links[peer]
        peer.online = False
        level = logging.INFO if link.connection.peer_goes or self.stopping else logging.WARNING
        _log.log(
            level, "the link to %s at %s is gone: %s", peer.name, link, reason, extra={"peer": peer.name}
        )
        if link in self._unanswered:
            self._unanswered.remove(link)
        else:
            self._left(peer, reason)
        if peer.stops:
            self._part(peer, f"{peer.name} has stopped")
            return
        loop = asyncio.get_running_loop()
        self._given_up[peer] = loop.call_later(self.session_life_s, self._give_up, peer)

    def cut(self, link: Link, code: Code, detail: str) -> None:
        """Ends a link and says why to both sides. Its session waits for another, as always."""
        link.close(code, detail)
        self.lost(link, detail)

    def replace(self, peer: Peer, reason: str) -> None:
        """Makes way for a newer link of the same peer."""
        link = self._links.get(peer)
        if link is not None:
            link.close(Code.REPLACED, reason)
            link.abort()
            self.lost(link, reason)

    def forget_session(self, peer: Peer, detail: str) -> None:
        """The peer's session cannot go on; what was under way in it is answered for."""
        channel, peer.channel = peer.channel, None
        if channel is not None:
            self._router.lose(channel, detail, now())

    def _give_up(self, peer: Peer) -> None:
        self._given_up.pop(peer, None)
        detail = f"{peer.name} did not come back within {self.session_life_s:g} s"
        _log.warning("%s; its session is given up", detail, extra={"peer": peer.name})
        self._part(peer, detail)

    def _part(self, peer: Peer, detail: str) -> None:
        self.forget_session(peer, detail)
        self._gone()
