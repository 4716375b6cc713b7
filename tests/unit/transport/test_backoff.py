from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from restpipe.transport.backoff import MAX_TURN_S, RESTART_S, STEADY_S, Backoff, Redial


def test_pauses_double_up_to_their_most() -> None:
    backoff = Backoff(0.1, 5.0, draw=lambda: 1.0)
    pauses = [backoff.next_pause_s() for _ in range(8)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.attempts == 8


def test_success_begins_anew() -> None:
    backoff = Backoff(0.1, 5.0, draw=lambda: 1.0)
    for _ in range(5):
        backoff.next_pause_s()
    backoff.reset()
    assert backoff.attempts == 0
    assert backoff.next_pause_s() == 0.1


@given(st.floats(0.0, 1.0, exclude_max=True), st.integers(0, 20))
def test_pauses_are_drawn_from_the_whole_span(drawn: float, failures: int) -> None:
    backoff, most = Backoff(0.1, 5.0, lambda: drawn), Backoff(0.1, 5.0, lambda: 1.0)
    for _ in range(failures):
        backoff.next_pause_s()
        most.next_pause_s()
    assert backoff.next_pause_s() == drawn * most.next_pause_s()


def test_it_never_gives_up() -> None:
    backoff = Backoff(0.1, 5.0, draw=lambda: 1.0)
    backoff.attempts = 10**9
    assert backoff.next_pause_s() == 5.0


def test_two_who_failed_together_part_again() -> None:
    one, other = Backoff(0.1, 5.0), Backoff(0.1, 5.0)
    assert [one.next_pause_s() for _ in range(10)] != [other.next_pause_s() for _ in range(10)]


def redial(addresses: int = 1) -> Redial:
    return Redial(Backoff(0.1, 5.0, draw=lambda: 1.0), addresses)


def test_a_link_that_stood_is_dialed_again_at_once_and_one_that_flaps_is_not() -> None:
    dialing = redial()
    assert dialing.after_link_s(STEADY_S) == 0.0
    assert [dialing.after_link_s(0.0) for _ in range(3)] == [0.1, 0.2, 0.4]
    assert dialing.after_link_s(STEADY_S) == 0.0
    assert dialing.after_link_s(0.0) == 0.1


def test_who_was_told_its_turn_waits_for_it() -> None:
    dialing = redial()
    dialing.take_turn(1.25, 4.0)
    assert dialing.after_link_s(STEADY_S) == 1.25
    assert dialing.after_link_s(0.0) == 1.25
    assert [dialing.after_failure_s() for _ in range(8)] == [4.0] * 6 + [5.0] * 2


def test_who_lost_its_link_alone_waits_for_no_turn() -> None:
    dialing = redial()
    dialing.take_turn(1.25, 4.0)
    assert dialing.after_link_s(STEADY_S, alone=True) == 0.0
    assert [dialing.after_link_s(0.0, alone=True) for _ in range(3)] == [0.1, 0.2, 0.4]
    assert dialing.after_link_s(STEADY_S) == 1.25


def test_other_addresses_are_tried_before_the_next_round() -> None:
    dialing = redial(addresses=2)
    dialing.take_turn(1.25, 4.0)
    assert [dialing.after_failure_s() for _ in range(4)] == [0.1, 4.0, 0.4, 4.0]


def test_the_next_server_is_soon_there_where_one_stops() -> None:
    dialing = redial()
    for _ in range(6):
        dialing.after_failure_s()
    assert [dialing.while_it_stops_s() for _ in range(3)] == [RESTART_S] * 3
    assert dialing.after_failure_s() == 0.1
    dialing.take_turn(1.25, 4.0)
    assert dialing.while_it_stops_s() == 4.0


def test_no_server_can_send_a_client_away_for_long() -> None:
    dialing = redial()
    dialing.take_turn(10**6, 10**6)
    assert dialing.after_link_s(STEADY_S) == MAX_TURN_S
    assert dialing.after_failure_s() == 5.0
