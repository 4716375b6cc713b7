from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.web import prefer


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["wait=10"], 10),
        (["WAIT=10"], 10),
        (["wait = 10"], 10),
        (['wait="10"'], 10),
        (["wait=2.5"], 2.5),
        (["respond-async, wait=10"], 10),
        (["respond-async", "wait=10"], 10),
        (["wait=10; strict"], 10),
        (["wait=10, wait=20"], 10),
        (["wait=0, wait=20"], 20),
        (["wait=9999999"], 3600),
        (["wait=" + "9" * 500], 3600),
        (['foo="a, wait=5", wait=7'], 7),
        (['foo="a\\", wait=5", wait=7'], 7),
        ([], None),
        ([""], None),
        (["wait"], None),
        (["wait="], None),
        (["wait=0"], None),
        (["wait=0.0"], None),
        (["wait=-1"], None),
        (["wait=soon"], None),
        (["wait=1e3"], None),
        (["wait=10s"], None),
        (["wait=\u0661"], None),
        (["await=10"], None),
        (["foo; wait=10"], None),
        (['foo="wait=10'], None),
    ],
)
def test_wait(fields: list[str], expected: float | None) -> None:
    assert prefer.wait_s(fields, 3600) == expected


@given(st.lists(st.text()))
def test_nothing_makes_it_fail(fields: list[str]) -> None:
    seconds = prefer.wait_s(fields, 60)
    assert seconds is None or 0 < seconds <= 60


@pytest.mark.parametrize(
    ("seconds", "expected"), [(10, "wait=10"), (10.0, "wait=10"), (0.5, "wait=0.5"), (3600.0, "wait=3600")]
)
def test_applied(seconds: float, expected: str) -> None:
    assert prefer.applied(seconds) == expected
