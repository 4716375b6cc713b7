"""The other hosts of the pipe: on a server its clients, on a client the one server. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from restpipe.daemon.channel import Channel, Route
from restpipe.daemon.turns import places
from restpipe.daemon.waiting import WaitingQueue
from restpipe.errors import Code
from restpipe.names import spellings
from restpipe.protocol.schema_pb2 import Origin
from restpipe.transport.certificates import Certificate


class Peer:
    """One other host, by the name in its certificate. It stays known when its link is down."""

    def __init__(self, name: str, max_waiting: int) -> None:
        self.name = name
        self.address = ""
        """Its current address, or the last one."""
        self.port = 0
        self.channel: Channel | None = None
        """Its session and streams; outlives links, until the session is given up."""
        self.certificate: Certificate | None = None
        """The last one that it proved its name with."""
        self.online = False
        """Its link is up and takes new events."""
        self.lost_at = 0.0
        """When its last link was lost, by the loop's clock."""
        self.stops = False
        """It has said that it stops: no other link will go on with its session."""
        self.queue: WaitingQueue[Channel, Route] = WaitingQueue(
            max_waiting, Code.UNREACHABLE, f"the link to {name} stayed down"
        )
        """Events that wait for its link."""
        self.origin = b""
        """The head of the ORIGIN frame of its events."""
        self.place = 0.0
        """Its place among all clients when they reconnect at once, from 0 to 1."""

    def joined(self, channel: Channel, address: str, port: int) -> None:
        """Its link is up."""
        self.channel = channel
        self.online = True
        self.stops = False
        # A socket for both families shows IPv4 addresses in the form of IPv6.
        self.address = canonical_address(address) or address
        self.port = port
        self.origin = Origin(peer=self.name, address=self.address, port=port).SerializeToString()


class PeerTable:
    """All peers by name, at most `limit`: the one that has been away longest makes room."""

    def __init__(self, limit: int, max_waiting: int) -> None:
        self.limit = limit
        """May be changed at any time. Peers that are known stay."""
        self._max_waiting = max_waiting
        self._peers: dict[str, Peer] = {}
        self._places = places()

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def online(self) -> int:
        """How many peers have their link up."""
        return sum(peer.online for peer in self._peers.values())

    def set_max_waiting(self, max_waiting: int) -> None:
        """Let so many events wait for each peer from now on. Those that wait stay."""
        self._max_waiting = max_waiting
        for peer in self:
            peer.queue.limit = max_waiting

    def get(self, name: str) -> Peer | None:
        """Return the peer that a caller means by `name`, however it is spelled."""
        peer = self._peers.get(name)
        if peer is None:
            known = (self._peers.get(spelling) for spelling in spellings(name))
            peer = next(filter(None, known), None)
        return peer

    def add(self, name: str) -> Peer | None:
        """Return the peer of that canonical name (see `restpipe.names`), a new one if need be.

        None if there is no room for another.
        """
        peer = self._peers.pop(name, None)
        if peer is None and self._make_room():
            peer = Peer(name, self._max_waiting)
            peer.place = next(self._places)
        if peer is not None:
            # At the end: the peer that has been away longest is forgotten first.
            self._peers[name] = peer
        return peer

    def put(self, peer: Peer) -> None:
        """Add a peer that is known from the start."""
        self._peers[peer.name] = peer

    def at(self, addresses: Iterable[str]) -> list[Peer]:
        """Return the peers connected from one of these addresses, otherwise those last seen there."""
        wanted = set(addresses)
        matches = [peer for peer in self._peers.values() if peer.address in wanted]
        return [peer for peer in matches if peer.online] or matches

    def _make_room(self) -> bool:
        if len(self._peers) < self.limit:
            return True
        for name, peer in self._peers.items():
            if peer.channel is None and not peer.queue:
                del self._peers[name]
                return True
        return False


def canonical_address(text: str) -> str | None:
    """Return an IP address in its canonical spelling, IPv4-mapped ones as IPv4. None if `text` is not one."""
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
