"""The other hosts of the pipe: on a server its clients, on a client the one server."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from restpipe.daemon.channel import Channel
from restpipe.daemon.turns import places
from restpipe.daemon.waiting import WaitingLine
from restpipe.errors import Code
from restpipe.protocol.schema_pb2 import Origin
from restpipe.transport.certificates import Certificate


class Peer:
    """One other host, by the name in its certificate. It stays known when its link is down."""

    def __init__(self, name: str, max_waiting: int) -> None:
        self.name = name
        self.address = ""
        """Where it is connected from, or was last."""
        self.port = 0
        self.channel: Channel | None = None
        """Its session and streams; outlives links, until the session is given up."""
        self.certificate: Certificate | None = None
        """What it proved its name with, last."""
        self.online = False
        """Its link is up and takes new events."""
        self.stops = False
        """It has said that it stops: no other link will go on with its session."""
        self.line = WaitingLine(max_waiting, Code.UNREACHABLE, f"the link to {name} stayed down")
        self.origin = b""
        """The head of the ORIGIN frame of its events."""
        self.place = 0.0
        """Its place among all when they come back at once, from 0 to 1."""

    def joined(self, channel: Channel, address: str, port: int) -> None:
        """Its link is up."""
        self.channel = channel
        self.online = True
        self.stops = False
        # A socket for both families has IPv4 callers in the guise of IPv6.
        self.address = canonical_address(address) or address
        self.port = port
        self.origin = Origin(peer=self.name, address=self.address, port=port).SerializeToString()


class PeerTable:
    """The one place that knows where a peer is. Bounded: whoever was away longest makes room."""

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._limit = limit
        self._max_waiting = max_waiting
        self._peers: dict[str, Peer] = {}
        self._places = places()

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def online(self) -> int:
        """How many have their link up."""
        return sum(peer.online for peer in self._peers.values())

    def set_limits(self, limit: int, max_waiting: int) -> None:
        """For whoever comes from now on: nobody who is known is turned out, nor anything that waits."""
        self._limit = limit
        self._max_waiting = max_waiting
        for peer in self:
            peer.line.limit = max_waiting

    def get(self, name: str) -> Peer | None:
        return self._peers.get(name)

    def add(self, name: str) -> Peer | None:
        """The peer of that name, new if need be; None when there is no room for another."""
        peer = self._peers.pop(name, None)
        if peer is None and self._make_room():
            peer = Peer(name, self._max_waiting)
            peer.place = next(self._places)
        if peer is not None:
            self._peers[name] = peer  # last: whoever was here last goes last
        return peer

    def put(self, peer: Peer) -> None:
        """A peer that is there from the beginning."""
        self._peers[peer.name] = peer

    def at(self, addresses: Iterable[str]) -> list[Peer]:
        """Who is connected from one of these addresses; if nobody is, who last was."""
        wanted = set(addresses)
        matches = [peer for peer in self._peers.values() if peer.address in wanted]
        return [peer for peer in matches if peer.online] or matches

    def _make_room(self) -> bool:
        if len(self._peers) < self._limit:
            return True
        for name, peer in self._peers.items():
            if peer.channel is None and not peer.line:
                del self._peers[name]
                return True
        return False


def canonical_address(text: str) -> str | None:
    """An IP address in its one canonical spelling, IPv4-mapped ones as IPv4; None when `text` is none."""
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
