from __future__ import annotations

import pytest

from restpipe.daemon.channel import Channel
from restpipe.daemon.peers import Peer, PeerTable, canonical_address
from restpipe.protocol.connection import Side
from restpipe.protocol.schema_pb2 import Origin
from tests.unit.daemon.kit import session, waiting_route


def channel() -> Channel:
    return Channel(session(), Side.LISTENER)


def table(limit: int = 10) -> PeerTable:
    return PeerTable(limit, 5)


def added(peers: PeerTable, *names: str) -> list[Peer]:
    made = [peers.add(name) for name in names]
    assert None not in made
    return [peer for peer in made if peer is not None]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]", "::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("localhost", None),
        ("10.0.0", None),
        ("010.0.0.1", None),
        ("", None),
        ("\0", None),
    ],
)
def test_addresses_have_one_spelling(text: str, canonical: str | None) -> None:
    assert canonical_address(text) == canonical


def test_a_name_is_one_peer() -> None:
    peers = table()
    (alpha,) = added(peers, "alpha")
    assert peers.add("alpha") is alpha
    assert peers.get("alpha") is alpha
    assert peers.get("Alpha.") is alpha
    assert peers.get("alpha2") is None
    assert (len(peers), list(peers), peers.online) == (1, [alpha], 0)


@pytest.mark.parametrize("kept", ["bücher.example", "xn--bcher-kva.example"])
def test_a_name_in_unicode_is_found_as_it_is_kept(kept: str) -> None:
    peers = table()
    (peer,) = added(peers, kept)
    assert peers.get("BÜCHER.example.") is peer


def test_a_peer_that_joins_is_where_it_came_from() -> None:
    peers = table()
    (alpha,) = added(peers, "alpha")
    alpha.joined(channel(), "::ffff:10.0.0.1", 4000)
    origin = Origin.FromString(alpha.origin)
    assert (origin.peer, origin.address, origin.port) == ("alpha", "10.0.0.1", 4000)
    assert peers.online == 1
    assert peers.at(["10.0.0.1"]) == [alpha]
    alpha.joined(channel(), "fe80::1%eth0", 4000)
    assert alpha.address == "fe80::1%eth0"


def test_peers_that_are_connected_come_before_those_that_were() -> None:
    peers = table()
    here, there, gone = added(peers, "here", "there", "gone")
    for peer in (here, there, gone):
        peer.joined(channel(), "10.0.0.1" if peer is not there else "10.0.0.2", 1)
    gone.online = False
    assert peers.at(["10.0.0.1"]) == [here]
    here.online = False
    assert peers.at(["10.0.0.1"]) == [here, gone]
    assert peers.at(["10.0.0.1", "10.0.0.2"]) == [there]
    assert peers.at([]) == []


def test_the_peer_that_has_been_away_longest_makes_room() -> None:
    peers = table(3)
    added(peers, "a", "b", "c")
    added(peers, "a")  # has been here again since
    assert peers.add("d") is not None
    assert [peer.name for peer in peers] == ["c", "a", "d"]


def test_sessions_and_waiting_events_keep_their_peers() -> None:
    peers = table(3)
    a, b, _ = added(peers, "a", "b", "c")
    a.channel = channel()
    b.queue.add(channel(), waiting_route(), 1.0)
    assert peers.add("d") is not None
    assert peers.get("c") is None
    d = peers.get("d")
    assert d is not None
    d.channel = channel()
    assert peers.add("e") is None
    assert peers.get("a") is a
    assert len(peers) == 3


def test_each_has_a_place_of_its_own_and_keeps_it() -> None:
    table = PeerTable(100, 10)
    added = [table.add(f"client-{number}") for number in range(50)]
    places = [peer.place for peer in added if peer is not None]
    assert len(set(places)) == 50
    again = table.add("client-7")
    assert again is not None
    assert again.place == places[7]
