"""Places that peers share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from restpipe.handler.shares import Shares


def fill(shares: Shares, peers: list[str]) -> dict[str, int]:
    """Let peers take places by turns, until none of them may take more."""
    held = dict.fromkeys(peers, 0)
    while hungry := [peer for peer in peers if shares.has_room(peer)]:
        for peer in hungry:
            if shares.has_room(peer):
                shares.take(peer)
                held[peer] += 1
    return held


def test_one_peer_gets_half_and_two_a_third_each() -> None:
    assert fill(Shares(60), ["a"]) == {"a": 30}
    assert fill(Shares(60), ["a", "b"]) == {"a": 20, "b": 20}


@given(st.integers(1, 100), st.lists(st.sampled_from("abcdef"), max_size=200))
def test_there_is_room_for_a_newcomer_until_every_place_is_taken(size: int, wishes: list[str]) -> None:
    shares = Shares(size)
    for peer in wishes:
        if shares.has_room(peer):
            shares.take(peer)
    assert shares.taken <= size
    assert shares.has_room("newcomer") == (shares.taken < size)


@given(st.lists(st.sampled_from("abc")))
def test_what_is_given_back_is_as_if_it_had_never_been_taken(peers: list[str]) -> None:
    shares = Shares(10)
    for peer in peers:
        shares.take(peer)
    for peer in peers:
        shares.give_back(peer)
    assert shares.taken == 0
    assert fill(shares, ["a"]) == {"a": 5}
