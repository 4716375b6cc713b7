from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.transport.handshakes import Handshakes, network_of

GRACE_S = 2.0


def names(handshakes: Handshakes[str], now: float) -> list[tuple[str, str | None]]:
    return [tuple(begun) for begun in handshakes.begin(now)]  # type: ignore[misc]


def begun(handshakes: Handshakes[str], *addresses: str, now: float = 0.0) -> None:
    """These are under way, in this order."""
    for address in addresses:
        assert handshakes.come(address, address) is None
        assert names(handshakes, now) == [(address, None)]


def test_whoever_comes_while_there_is_room_begins_at_once() -> None:
    handshakes: Handshakes[str] = Handshakes(2, 5, GRACE_S)
    begun(handshakes, "192.0.2.1", "192.0.2.2")
    assert (len(handshakes), handshakes.waiting, handshakes.next_at) == (2, 0, None)


def test_the_young_are_not_given_up_for_a_newcomer() -> None:
    handshakes: Handshakes[str] = Handshakes(2, 5, GRACE_S)
    begun(handshakes, "192.0.2.1", now=10.0)
    begun(handshakes, "192.0.2.2", now=11.0)
    assert handshakes.come("new", "192.0.2.3") is None
    assert names(handshakes, 11.9) == []
    assert (handshakes.waiting, handshakes.next_at) == (1, 12.0)
    assert names(handshakes, 12.0) == [("new", "192.0.2.1")]
    assert (len(handshakes), handshakes.waiting, handshakes.next_at) == (2, 0, None)


def test_one_that_is_over_makes_room_whatever_its_age() -> None:
    handshakes: Handshakes[str] = Handshakes(1, 5, GRACE_S)
    begun(handshakes, "192.0.2.1")
    handshakes.come("new", "192.0.2.3")
    handshakes.over("192.0.2.1")
    assert names(handshakes, 0.1) == [("new", None)]
    handshakes.over("192.0.2.1")
    assert len(handshakes) == 1


def test_a_flood_makes_room_at_its_own_expense() -> None:
    handshakes: Handshakes[str] = Handshakes(5, 5, GRACE_S)
    begun(handshakes, "192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2", "2001:db8::3")
    handshakes.come("new", "192.0.2.3")
    assert names(handshakes, GRACE_S) == [("new", "2001:db8::1")]


def test_networks_take_turns() -> None:
    """Whoever comes behind a flood waits for one of its handshakes, not for all who came before him."""
    handshakes: Handshakes[str] = Handshakes(1, 100, GRACE_S)
    begun(handshakes, "192.0.2.1")
    for number in range(50):
        handshakes.come(f"flood-{number}", "192.0.2.1")
    handshakes.come("honest", "192.0.2.2")
    handshakes.come("another", "192.0.2.3")
    came = []
    for number in range(1, 5):
        came += [name for name, _ in names(handshakes, GRACE_S * number)]
    assert came == ["flood-0", "honest", "another", "flood-1"]


def test_whoever_has_most_of_those_who_wait_loses_his_newest() -> None:
    handshakes: Handshakes[str] = Handshakes(1, 3, GRACE_S)
    begun(handshakes, "192.0.2.1")
    for number in range(3):
        assert handshakes.come(f"flood-{number}", "192.0.2.1") is None
    assert handshakes.come("honest", "192.0.2.2") == "flood-2"
    assert handshakes.come("flood-3", "192.0.2.1") == "flood-3"
    assert handshakes.leave() == ["flood-0", "flood-1", "honest"]
    assert handshakes.waiting == 0
    assert names(handshakes, 100.0) == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("come"), st.integers(1, 4)),
            st.tuples(st.just("over"), st.integers(0, 9)),
            st.tuples(st.just("time"), st.floats(0, 3)),
        )
    )
)
def test_nobody_is_forgotten_and_no_bound_is_passed(steps: list[tuple[str, float]]) -> None:
    handshakes: Handshakes[int] = Handshakes(3, 4, GRACE_S)
    now, came, gone = 0.0, 0, set[int]()
    since: dict[int, float] = {}
    for what, value in steps:
        if what == "come":
            came += 1
            turned_away = handshakes.come(came, f"192.0.2.{value}")
            gone |= {turned_away} if turned_away is not None else set()
        elif what == "over" and since:
            one = sorted(since)[int(value) % len(since)]
            handshakes.over(one)
            since.pop(one)
            gone.add(one)
        elif what == "time":
            now += value
        for newcomer, given_up in handshakes.begin(now):
            if given_up is not None:
                assert now - since.pop(given_up) >= GRACE_S
                gone.add(given_up)
            assert newcomer not in gone
            since[newcomer] = now
        assert len(handshakes) == len(since) <= 3
        assert handshakes.waiting <= 4
        assert came == len(gone) + len(since) + handshakes.waiting
        if handshakes.waiting:
            assert len(since) == 3
            assert handshakes.next_at is not None
            assert handshakes.next_at > now


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("nonsense", "nonsense"),
    ],
)
def test_callers_are_counted_by_network(address: str, network: str) -> None:
    assert network_of(address) == network
