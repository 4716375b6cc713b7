from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from restpipe.transport.backoff import Backoff


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
