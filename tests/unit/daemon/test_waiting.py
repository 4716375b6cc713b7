from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restpipe.daemon.waiting import WARM_UP, WaitingQueue, give_up_at
from restpipe.errors import Code

Queue = WaitingQueue[str, int]
"""Openers have names here, and what waits is a number."""


def queue(limit: int = 1000) -> Queue:
    return Queue(limit, Code.NO_HANDLER, "none was free")


@pytest.mark.parametrize(("timeout_s", "margin"), [(0.0, 0.0), (1.0, 0.1), (2.5, 0.25), (30.0, 0.25)])
def test_it_is_given_up_a_little_before_the_deadline(timeout_s: float, margin: float) -> None:
    assert give_up_at(100.0, timeout_s) == pytest.approx(100.0 + timeout_s - margin)


def test_events_of_one_opener_are_served_in_order_and_are_bounded() -> None:
    made = queue(3)
    for number in range(3):
        assert not made.full
        made.add("one", number, 1.0)
    assert made.full
    made.remove("one", 1)
    made.remove("one", 1)
    made.remove("other", 2)
    assert (len(made), made.full) == (2, False)
    assert made.turn() == ("one", 0)
    assert [made.pop(), made.pop()] == [0, 2]
    with pytest.raises(KeyError):
        made.pop()


# Turns.


def test_openers_take_turns() -> None:
    made = queue()
    for number in range(4):
        made.add("many", number, 1.0)
    made.add("few", 10, 1.0)
    made.add("one", 20, 1.0)
    made.add("few", 11, 1.0)
    assert made.openers == 3
    assert [made.pop() for _ in range(len(made))] == [0, 10, 20, 1, 11, 2, 3]
    assert made.openers == 0


def test_an_opener_that_may_have_nothing_now_is_passed_over() -> None:
    made = queue()
    for number, opener in enumerate(("one", "other", "one")):
        made.add(opener, number, 1.0)
    made.pass_turn()
    assert made.turn() == ("other", 1)
    assert [made.pop() for _ in range(3)] == [1, 0, 2]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "pop", "remove", "pass"]), st.sampled_from("abc"))))
def test_whatever_is_done_each_opener_is_served_in_order_and_none_twice_before_another(
    moves: list[tuple[str, str]],
) -> None:
    made = queue()
    model: dict[str, deque[int]] = {}
    for number, (move, opener) in enumerate(moves):
        if move == "add":
            made.add(opener, number, 1.0)
            model.setdefault(opener, deque()).append(number)
        elif move == "pop" and model:
            first = next(iter(model))
            assert made.turn() == (first, model[first][0])
            assert made.pop() == model[first].popleft()
            line = model.pop(first)
            if line:
                model[first] = line
        elif move == "remove" and opener in model:
            made.remove(opener, model[opener].pop())
            if not model[opener]:
                del model[opener]
        elif move == "pass" and model:
            made.pass_turn()
            first = next(iter(model))
            model[first] = model.pop(first)
        assert len(made) == sum(map(len, model.values()))
        assert made.openers == len(model)


# When it is full.


def test_the_newest_of_the_opener_with_the_most_makes_room() -> None:
    made = queue(6)
    for number in range(4):
        made.add("many", number, 1.0)
    made.add("few", 10, 1.0)
    made.add("few", 11, 1.0)
    assert made.full
    assert made.displace("new") == 3
    made.add("new", 20, 1.0)
    # One more or less makes no difference in fairness, and would never end.
    assert made.displace("few") is None
    assert made.displace("many") is None
    assert made.displace("new") == 2
    assert len(made) == 5


def test_an_opener_makes_no_room_for_itself() -> None:
    made = queue(2)
    assert made.displace("one") is None
    made.add("one", 1, 1.0)
    made.add("one", 2, 1.0)
    assert made.displace("one") is None
    assert made.displace("other") == 2


# The pace.


def saturated(departures: int, interval_s: float) -> Queue:
    """A queue with 100 events of one opener, of which so many more have left."""
    made = queue()
    for number in range(100 + departures):
        made.add("one", number, 1.0)
    for number in range(departures):
        made.pop()
        made.moved(50.0 + number * interval_s)
    return made


def test_no_event_is_refused_before_the_pace_is_known() -> None:
    assert not saturated(WARM_UP, 10.0).is_too_long("one", 1.0)


def test_an_event_that_would_spend_too_much_of_its_time_here_is_refused() -> None:
    made = saturated(50, 0.1)
    assert made.is_too_long("one", 39.0)
    assert not made.is_too_long("one", 41.0)


def test_an_event_of_another_opener_waits_for_its_own_turn_alone() -> None:
    made = saturated(50, 0.1)
    assert not made.is_too_long("other", 0.41)
    assert made.is_too_long("other", 0.39)
    for number in range(9):
        made.add("other", 1000 + number, 1.0)
    # Its own nine, and ten of the other one.
    assert not made.is_too_long("other", 19 * 0.4 + 0.1)
    assert made.is_too_long("other", 19 * 0.4 - 0.1)


def test_an_event_that_would_wait_in_vain_is_named_as_soon_as_the_pace_is_known() -> None:
    assert saturated(WARM_UP, 0.1).hopeless("one", 0.0) is None
    made = saturated(50, 0.1)
    assert made.hopeless("one", -20.0) is None
    assert made.hopeless("other", -4.05) is None
    told = []
    # 5.05 s before the deadlines of all.
    while (last := made.hopeless("one", -4.05)) is not None:
        told.append(last)
        made.remove("one", last)
    assert (len(told), len(made)) == (50, 50)
    assert told == sorted(told, reverse=True)


def test_the_pace_follows_what_happens() -> None:
    made = saturated(50, 0.1)
    for number in range(90):
        made.pop()
        made.moved(60.0 + number)
    assert made.is_too_long("one", 39.0)
    assert not made.is_too_long("one", 50.0)


def test_an_empty_queue_takes_any_event() -> None:
    made = saturated(50, 1000.0)
    while made:
        made.pop()
    assert not made.is_too_long("one", 0.001)


def test_the_time_in_which_no_event_could_be_served_is_not_counted() -> None:
    made = saturated(50, 0.1)
    made.stall()
    made.pop()
    made.moved(5000.0)
    assert not made.is_too_long("one", 41.0)
    for _ in range(len(made)):
        made.pop()
    made.add("one", 1, 1.0)
    made.moved(9000.0)
    assert not made.is_too_long("one", 0.41)
