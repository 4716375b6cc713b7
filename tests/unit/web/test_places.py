from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from restpipe.web.places import Places


def test_all_places_and_no_more() -> None:
    places = Places(3)
    assert [places.take(to) for to in ("a", "b", "c")] == [""] * 3
    assert "3 requests" in places.take("d")
    places.leave("a", answered=False)
    assert places.take("d") == ""


def test_one_client_that_does_not_answer_has_half_of_them() -> None:
    places = Places(10)
    assert [places.take("a") for _ in range(5)] == [""] * 5
    assert "wait for this client" in places.take("a")
    assert places.take("b") == ""


def test_one_client_that_answers_may_have_all() -> None:
    places = Places(10)
    for _ in range(10):
        assert places.take("a") == ""
        places.answered("a")
    assert "in flight" in places.take("a")


def test_the_one_destination_of_a_client_may_have_all() -> None:
    places = Places(10)
    assert [places.take("") for _ in range(10)] == [""] * 10
    assert places.take("") != ""


def test_one_place_is_for_any() -> None:
    places = Places(1)
    assert places.take("a") == ""
    places.leave("a", answered=False)
    assert places.take("b") == ""


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["take", "answer", "leave"]))),
)
def test_nothing_is_counted_twice(most: int, steps: list[tuple[str, str]]) -> None:
    places = Places(most)
    waiting: Counter[str] = Counter()
    begun: Counter[str] = Counter()
    for to, step in steps:
        if step == "take":
            refused = places.take(to)
            full = waiting.total() + begun.total() >= most or waiting[to] >= (most + 1) // 2
            assert bool(refused) is full
            waiting[to] += not full
        elif step == "answer" and waiting[to]:
            places.answered(to)
            waiting[to] -= 1
            begun[to] += 1
        elif step == "leave" and (waiting[to] or begun[to]):
            answered = begun[to] > 0
            places.leave(to, answered=answered)
            (begun if answered else waiting)[to] -= 1
    assert places.taken == waiting.total() + begun.total()
    for counter, answered in ((waiting, False), (begun, True)):
        for to in counter.elements():
            places.leave(to, answered=answered)
    assert (places.taken, places._waiting) == (0, {})
