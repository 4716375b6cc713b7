from __future__ import annotations

from restpipe.daemon.channel import NOTHING, PLACE, REPLYING, WAITING_COST, Channel, Route, Waiting
from restpipe.protocol.connection import Side
from restpipe.protocol.frames import HEADER_SIZE
from restpipe.protocol.streams import FRAME_COST
from tests.unit.daemon.kit import data, event, event_of, opener, session, waiting_route, window


def test_each_side_opens_streams_of_its_own_numbers() -> None:
    dialed, listened = Channel(session(), Side.DIALER), Channel(session(), Side.LISTENER)
    for side, numbers in ((dialed, [1, 3, 5]), (listened, [2, 4, 6])):
        assert [Route(opener(), number).connect(side) for number in numbers] == numbers
        assert list(side.routes) == numbers


def test_a_route_is_known_to_both_of_its_sides() -> None:
    one, other = opener(), opener()
    route = Route(one, 7)
    assert one.routes == {7: route}
    assert route.connect(other) == 2
    assert other.routes == {2: route}
    assert (route.answerer, route.answerer_number) == (other, 2)


def test_what_a_route_takes_of_a_worker_is_counted_on_both_sides() -> None:
    one, other = opener(), opener()
    route = Route(one, 7)
    route.go_on(NOTHING)
    route.connect(other, PLACE)
    assert (one.places, other.places, route.holds) == (1, 1, PLACE)
    for what, counts in ((REPLYING, (0, 1)), (NOTHING, (0, 0)), (NOTHING, (0, 0))):
        route.go_on(what)
        assert route.holds == what
        for end in (one, other):
            assert (end.places, end.replies) == counts
    Route(one, 9).connect(other)
    assert (one.places, other.places) == (0, 0)


def test_a_route_waits_as_long_as_there_is_something_to_go_on_with() -> None:
    route = waiting_route()
    assert route.waits
    route.waiting = None
    assert not route.waits


def test_the_time_left_is_counted_from_when_it_came() -> None:
    came = event(1, timeout_s=10, body=b"abc")
    waiting = Waiting(event_of(came), came, b"", 100.0)
    renewed = waiting.renewed(103.5)
    assert (event_of(renewed).timeout_ms, renewed.body, renewed.ends) == (6500, b"abc", True)
    assert event_of(waiting.renewed(500.0)).timeout_ms == 1


def test_while_the_body_comes_an_event_keeps_its_time() -> None:
    came = event(1, timeout_s=10, body=b"abc", end=False)
    waiting = Waiting(event_of(came), came, b"", 100.0)
    assert event_of(waiting.renewed(103.5)).timeout_ms == 10_000
    waiting.hold(data(1, b"d", end=True))
    assert event_of(waiting.renewed(103.5)).timeout_ms == 6500


def test_what_waits_is_counted_at_what_it_costs() -> None:
    came = event(1, body=bytes(1000), end=False)
    waiting = Waiting(event_of(came), came, b"", 0.0)
    assert waiting.size == WAITING_COST + 2 * came.head_size + 1000
    # An empty frame costs memory, and its sender's credit, all the same.
    assert waiting.hold(data(1)) == FRAME_COST
    assert waiting.hold(data(1, bytes(50))) == FRAME_COST + 50
    assert waiting.held_size == 2 * HEADER_SIZE + 50
    assert waiting.size == WAITING_COST + 2 * came.head_size + 1050 + 2 * FRAME_COST


def test_an_event_is_whole_once_its_end_is_here() -> None:
    came = event(1, end=False)
    waiting = Waiting(event_of(came), came, b"", 0.0)
    waiting.hold(data(1))
    assert not waiting.whole
    waiting.hold(data(1, end=True))
    waiting.hold(window(1))
    assert waiting.whole
    whole = event(1)
    assert Waiting(event_of(whole), whole, b"", 0.0).whole
