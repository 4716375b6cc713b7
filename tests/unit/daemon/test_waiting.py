from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restpipe.daemon.router import Route, Waiting
from restpipe.daemon.waiting import MIN_COMPACTED, WARM_UP, Deadlines, WaitingLine, give_up_at
from restpipe.errors import Code
from tests.unit.daemon.kit import event, event_of, waiting_route


@pytest.mark.parametrize(("timeout_s", "margin"), [(0.0, 0.0), (1.0, 0.1), (2.5, 0.25), (30.0, 0.25)])
def test_it_is_given_up_a_little_before_the_deadline(timeout_s: float, margin: float) -> None:
    assert give_up_at(100.0, timeout_s) == pytest.approx(100.0 + timeout_s - margin)


def test_a_line_is_served_in_order_and_is_bounded() -> None:
    line = WaitingLine(3, Code.NO_HANDLER, "none was free")
    routes = [waiting_route(number) for number in range(3)]
    for route in routes:
        assert not line.full
        line.add(route)
    assert line.full
    line.remove(routes[1])
    line.remove(routes[1])
    assert (len(line), line.full) == (2, False)
    assert [line.pop(), line.pop()] == [routes[0], routes[2]]
    with pytest.raises(KeyError):
        line.pop()


def test_the_time_left_is_counted_from_when_it_came() -> None:
    came = event(1, timeout_s=10, body=b"abc")
    waiting = Waiting(event_of(came), came, b"", 100.0)
    renewed = waiting.renewed(103.5)
    assert (event_of(renewed).timeout_ms, renewed.body, renewed.ends) == (6500, b"abc", True)
    assert event_of(waiting.renewed(500.0)).timeout_ms == 1


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "stop", "pass"]), st.integers(0, 100)),
        max_size=3 * MIN_COMPACTED,
    )
)
def test_whoever_still_waits_is_named_once_his_time_has_come(moves: list[tuple[str, int]]) -> None:
    armed: list[float] = []
    deadlines = Deadlines(armed.append)
    now = 0.0
    waiting: list[tuple[float, Route]] = []
    for move, amount in moves:
        if move == "add":
            route = waiting_route()
            at = now + amount
            nearest = min((at for at, _ in waiting), default=float("inf"))
            deadlines.add(at, route)
            waiting.append((at, route))
            if at < nearest:
                # The timer must not be later than this. Earlier it may be, for one who waits no more.
                assert min(armed) <= at
        elif move == "stop" and waiting:
            waiting.pop(amount % len(waiting))[1].waiting = None
        else:
            now += amount
            due = deadlines.pop_due(now)
            assert sorted(map(id, due)) == sorted(id(route) for at, route in waiting if at <= now)
            waiting = [(at, route) for at, route in waiting if at > now]
        assert deadlines.next_at == min((at for at, _ in waiting), default=None)


def test_long_deadlines_of_short_waits_do_not_pile_up() -> None:
    deadlines = Deadlines(lambda at: None)
    kept = waiting_route()
    deadlines.add(1.0, kept)
    for _ in range(100 * MIN_COMPACTED):
        route = waiting_route()
        deadlines.add(3600.0, route)
        route.waiting = None
    assert len(deadlines._heap) <= 2 * MIN_COMPACTED
    assert deadlines.pop_due(2.0) == [kept]


def saturated(departures: int, interval_s: float) -> WaitingLine:
    """A line of 100 that moved on so often."""
    line = WaitingLine(1000, Code.NO_HANDLER, "none was free")
    for number in range(100 + departures):
        line.add(waiting_route(number))
    for number in range(departures):
        line.pop()
        line.moved(50.0 + number * interval_s)
    return line


def test_nobody_is_refused_before_the_pace_is_known() -> None:
    assert not saturated(WARM_UP, 10.0).is_too_long(1.0)


def test_who_would_spend_too_much_of_his_time_in_line_is_refused() -> None:
    line = saturated(50, 0.1)
    assert line.is_too_long(39.0)
    assert not line.is_too_long(41.0)


def test_who_would_wait_in_vain_is_told_as_soon_as_the_pace_is_known() -> None:
    assert saturated(WARM_UP, 0.1).hopeless(0.0) is None
    line = saturated(50, 0.1)
    assert line.hopeless(-20.0) is None
    told = []
    # 5.05 s before the deadlines of all.
    while (last := line.hopeless(-4.05)) is not None:
        told.append(last)
        line.remove(last)
    assert (len(told), len(line)) == (50, 50)


def test_the_pace_follows_what_happens() -> None:
    line = saturated(50, 0.1)
    for number in range(90):
        line.pop()
        line.moved(60.0 + number)
    assert line.is_too_long(39.0)
    assert not line.is_too_long(50.0)


def test_an_empty_line_takes_anybody() -> None:
    line = saturated(50, 1000.0)
    while line:
        line.pop()
    assert not line.is_too_long(0.001)


def test_the_time_in_which_nobody_could_be_served_is_not_counted() -> None:
    line = saturated(50, 0.1)
    line.stall()
    line.pop()
    line.moved(5000.0)
    assert not line.is_too_long(41.0)
    for _ in range(len(line)):
        line.pop()
    line.add(waiting_route(1))
    line.moved(9000.0)
    assert not line.is_too_long(0.41)
