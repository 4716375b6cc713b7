"""What a worker says it can take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from restpipe.handler.capacity import Capacity


def test_plain_methods_are_bounded_by_threads() -> None:
    assert Capacity(8, 100, plain=True, async_=False).told == 8


def test_async_methods_have_a_bound_of_their_own() -> None:
    assert Capacity(8, 100, plain=False, async_=True).told == 100


def test_a_handler_without_methods_still_says_so_to_callers() -> None:
    assert Capacity(8, 100, plain=False, async_=False).told == 8


def test_stuck_threads_are_no_capacity() -> None:
    capacity = Capacity(2, 100, plain=True, async_=False)
    assert [capacity.held_changed(n, 0) for n in (1, 2, 2, 1, 0)] == [1, 0, None, 1, 2]


def test_async_events_under_way_take_no_threads_away() -> None:
    capacity = Capacity(4, 100, plain=True, async_=True)
    told = [capacity.async_changed(n) for n in (1, 2, 3, 4, 3, 0)]
    assert told == [None, 6, None, 8, 6, 4]


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.tuples(st.booleans(), st.integers(0, 80)), max_size=30),
)
def test_what_comes_next_can_always_begin(
    threads: int, concurrency: int, changes: list[tuple[bool, int]]
) -> None:
    """However many are in flight: all events beyond the async ones find a thread that is not stuck."""
    capacity = Capacity(threads, concurrency, plain=True, async_=True)
    stuck = under_way = 0
    for of_threads, count in changes:
        if of_threads:
            stuck = min(count, threads)
            capacity.held_changed(stuck, 0)
        else:
            under_way = min(count, concurrency)
            capacity.async_changed(under_way)
        assert capacity.told - under_way <= threads - stuck
        assert capacity.told >= threads - stuck
