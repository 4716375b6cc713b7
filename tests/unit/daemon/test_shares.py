from __future__ import annotations

import pytest

from restpipe.daemon.shares import may_take


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
