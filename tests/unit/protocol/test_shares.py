from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.protocol.shares import Shares, may_take


def taken(total: int, askers: int) -> list[int]:
    """What each has when none may take more. They ask one after the other."""
    held = [0] * askers
    while True:
        before = sum(held)
        for number in range(askers):
            if may_take(held[number], total - sum(held)):
                held[number] += 1
        if sum(held) == before:
            return held


def test_one_that_asks_alone_gets_most() -> None:
    assert taken(900, 1) == [800]


@pytest.mark.parametrize("total", [1, 2, 3, 4, 10, 32, 1024])
@pytest.mark.parametrize("askers", [1, 2, 3, 10, 40])
def test_the_last_part_is_left_for_one_that_has_none(total: int, askers: int) -> None:
    held = taken(total, askers)
    free = total - sum(held)
    assert max(held) - min(held) <= 1
    assert free == 0 if total <= askers else free >= 1
    assert may_take(0, free) is (free > 0)


def test_nothing_is_taken_of_nothing() -> None:
    assert not may_take(0, 0)
    assert not may_take(0, -5)
    assert not may_take(5, -5)


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
