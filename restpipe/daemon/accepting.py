"""The links that clients open: each proves its name, then resumes its session or begins one."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from restpipe.daemon.channel import Channel
from restpipe.daemon.links import PeerLinks
from restpipe.daemon.peers import Peer, PeerTable
from restpipe.daemon.router import STOPS
from restpipe.daemon.trust import Refused, Trust
from restpipe.errors import Code, ProtocolError
from restpipe.protocol.connection import Side, new_session_id
from restpipe.protocol.frames import GOAWAY, PONG, Frame
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Goaway, Hello
from restpipe.protocol.session import Session
from restpipe.transport.link import Link

CONFLICT_WAIT_S = 2.0
"""How long the older of two links of one name has to prove that it is alive."""
SPARE_LINKS = 256
"""Links beyond `max_clients`, for clients that are counted already: one that reconnects from elsewhere still
has an older link, which has not timed out yet.
"""

_log = logging.getLogger(__name__)


class Contender(NamedTuple):
    """A link with the name of a peer that seems to be connected already."""

    link: Link
    hello: Hello
    timer: asyncio.TimerHandle


class Accepting:
    """Owns the links that came in by the pipe's port."""

    def __init__(
        self, peers: PeerTable, links: PeerLinks, trust: Trust, *, buffer_size: int, max_clients: int
    ) -> None:
        self._peers = peers
        self._links = links
        self._trust = trust
        self.buffer_size = buffer_size
        self.max_clients = max_clients
        """Both may be changed at any time, for clients that connect from then on."""
        self._names: dict[Link, str] = {}
        self._contenders: dict[Peer, Contender] = {}
        self.draining = False
        """Only clients that go on with their session are let in."""
        self.conflicts = 0
        """Connections refused because their name is connected from elsewhere."""

    def link_made(self, link: Link) -> None:
        try:
            name = self._trust.admit(link).name
        except Refused as refused:
            self._refuse(link, refused.name, refused.code, str(refused))
            return
        if self._is_full(name):
            self._trust.forget(link)
            detail = f"{self.max_clients} clients are connected already"
            self._refuse(link, name, Code.TOO_MANY_LINKS, detail)
            return
        self._names[link] = name

    def _is_full(self, name: str) -> bool:
        """Tell whether there is no room for one more link of that name."""
        beyond = len(self._names) - self.max_clients
        if beyond < 0:
            return False
        peer = self._peers.get(name)
        return beyond >= SPARE_LINKS or peer is None or self._links.link(peer) is None

    def _refuse(self, link: Link, name: str, code: Code, detail: str) -> None:
        who = name or "a client without a name"
        _log.warning("%s: %s is refused: %s", link, who, detail, extra={"peer": name})
        link.close(code, detail)

    def link_frame(self, link: Link, frame: Frame, now: float) -> None:
        peer = self._links.peer(link)
        if peer is not None:
            if frame.kind == PONG and peer in self._contenders:
                self._refuse_contender(peer, link)
            self._links.link_frame(link, peer, frame, now)
        elif not link.closing:
            self._greet(link, frame, now)

    def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
        self._links.stream_frames(link, received, now)

    def link_lost(self, link: Link, reason: str) -> None:
        name = self._names.pop(link, "")
        self._trust.forget(link)
        peer = self._links.peer(link)
        if peer is None:
            self._withdraw(link, name)
            # Those without a name were refused, those with a session cut: both with a line of their own.
            if name and link.connection.session is None:
                words = "%s: %s left before the handshake: %s"
                level = logging.INFO if self.draining else logging.WARNING
                _log.log(level, words, link, name, reason, extra={"peer": name})
            return
        self._links.lost(link, reason)
        contender = self._contenders.pop(peer, None)
        if contender is not None:
            contender.timer.cancel()
            self._accept_late(peer, contender)

    def _greet(self, link: Link, frame: Frame, now: float) -> None:
        if frame.kind == GOAWAY:
            goaway = read_message(Goaway(), frame)
            link.close(Code.SHUTDOWN, f"it went: {goaway.detail}")
            return
        hello = read_message(Hello(), frame)
        if hello.role != ROLE_PIPE:
            raise ProtocolError(Code.HANDSHAKE, "only pipe daemons talk to this port")
        name = self._names[link]
        if self.draining and not self._goes_on(name, hello):
            link.close(Code.SHUTDOWN, STOPS)
            return
        peer = self._peers.add(name)
        if peer is None:
            link.close(Code.TOO_MANY_LINKS, "too many clients are known already")
            return
        older = self._links.link(peer)
        if older is None or _same_session(peer, hello):
            _check_count(peer, hello)
            if peer in self._contenders:
                # The older link is about to go, but not its owner: what contends with it is a copy.
                self._refuse_contender(peer, link)
            self._links.replace(peer, "the same client has connected anew")
            self._accept(link, peer, hello, now)
        else:
            self._contend(peer, older, link, hello, now)

    def _goes_on(self, name: str, hello: Hello) -> bool:
        """Tell whether it is about a session that is known here."""
        peer = self._peers.get(name)
        return peer is not None and _same_session(peer, hello)

    def _accept(self, link: Link, peer: Peer, hello: Hello, now: float) -> None:
        if not _same_session(peer, hello):
            self._links.forget_session(peer, f"{peer.name} began a new session")
        channel = peer.channel
        if channel is None:
            channel = Channel(Session(new_session_id(), self.buffer_size), Side.LISTENER, peer.name)
        link.connection.accept(channel.session, hello, now=now, name=peer.name)
        self._trust.joined(link, peer)
        self._links.join(link, peer, channel, known=link.connection.resumed)

    # Two links with one name.

    def _contend(self, peer: Peer, older: Link, link: Link, hello: Hello, now: float) -> None:
        """Ask the older link for a sign of life: the newer wins only if the older is dead, so that a copied
        certificate does not take a client's place unnoticed.
        """
        if peer in self._contenders:
            link.close(Code.NAME_IN_USE, f"another connection already waits to be {peer.name}")
            return
        older.connection.ping(now)
        older.wake()
        timer = link.loop.call_later(CONFLICT_WAIT_S, self._older_is_dead, peer)
        self._contenders[peer] = Contender(link, hello, timer)

    def _withdraw(self, link: Link, name: str) -> None:
        """A contender has left: the older link is not given up for it, nor is another contender refused."""
        peer = self._peers.get(name)
        if peer is not None and peer in self._contenders and self._contenders[peer].link is link:
            self._contenders.pop(peer).timer.cancel()

    def _refuse_contender(self, peer: Peer, older: Link) -> None:
        contender = self._contenders.pop(peer)
        contender.timer.cancel()
        self.conflicts += 1
        _log.error(
            "%s wants to be %s, who is connected from %s and alive: refused; "
            "two machines have the same certificate",
            contender.link,
            peer.name,
            older,
            extra={"peer": peer.name},
        )
        contender.link.close(Code.NAME_IN_USE, f"{peer.name} is connected from {older}")

    def _older_is_dead(self, peer: Peer) -> None:
        contender = self._contenders.pop(peer)
        self._links.replace(peer, "it no longer answers, and the same name has connected anew")
        self._accept_late(peer, contender)

    def _accept_late(self, peer: Peer, contender: Contender) -> None:
        """Accept a contender outside of `link_frame`, where the link does not catch faults."""
        if contender.link.closing:
            return
        try:
            self._accept(contender.link, peer, contender.hello, contender.link.loop.time())
        except ProtocolError as error:
            contender.link.close(error.code, error.detail)
        contender.link.wake()


def _check_count(peer: Peer, hello: Hello) -> None:
    """Check the count before the older link is closed: a HELLO that was delayed may be older still."""
    if peer.channel is not None and _same_session(peer, hello):
        peer.channel.session.check_count(hello.received)


def _same_session(peer: Peer, hello: Hello) -> bool:
    session = peer.channel.session if peer.channel is not None else None
    return session is not None and not session.broken and hello.session == session.id
