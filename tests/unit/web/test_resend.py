from __future__ import annotations

import pytest

from restpipe.errors import Code, Delivered, Reset
from restpipe.web import resend
from restpipe.web.resend import History

NO, YES, UNKNOWN = Delivered.NO, Delivered.YES, Delivered.UNKNOWN


def decide(
    reset: Reset,
    *,
    repeatable: bool,
    sends: int = 1,
    deaths: int = 0,
    runs: int = 0,
    at_hand: bool = True,
    remaining_s: float = 30.0,
    link_lost: bool = False,
) -> float | None:
    history = History(repeatable, sends, deaths, runs)
    history.record(reset, link_lost=link_lost)
    return resend.pause_s(history, reset, body_at_hand=at_hand, remaining_s=remaining_s)


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("delivered", Delivered)
@pytest.mark.parametrize("repeatable", [True, False])
def test_who_is_sent_again(code: Code, delivered: Delivered, repeatable: bool) -> None:
    again = {
        (Code.DRAINING, NO, True),
        (Code.DRAINING, NO, False),
        (Code.DRAINING, UNKNOWN, True),
        (Code.DRAINING, YES, True),
        (Code.OUTCOME_UNKNOWN, NO, True),
        (Code.OUTCOME_UNKNOWN, NO, False),
        (Code.OUTCOME_UNKNOWN, UNKNOWN, True),
        (Code.OUTCOME_UNKNOWN, YES, True),
    }
    pause = decide(Reset(code, delivered=delivered), repeatable=repeatable)
    assert (pause is not None) is ((code, delivered, repeatable) in again)


@pytest.mark.parametrize("reset", [Reset(Code.DRAINING, delivered=NO), Reset(Code.OUTCOME_UNKNOWN)])
def test_only_with_the_whole_body_and_time(reset: Reset) -> None:
    assert decide(reset, repeatable=True) is not None
    assert decide(reset, repeatable=True, at_hand=False) is None
    assert decide(reset, repeatable=True, remaining_s=0.01) is None


def test_what_was_not_delivered_is_sent_until_its_deadline_with_growing_pauses() -> None:
    reset = Reset(Code.DRAINING, delivered=NO)
    pauses = [decide(reset, repeatable=False, sends=sends) for sends in (1, 2, 3, 4, 100, 100_000)]
    assert pauses == [0.02, 0.1, 0.5, 1.0, 1.0, 1.0]
    assert decide(reset, repeatable=False, sends=4, remaining_s=1.0) is None


def test_what_may_have_run_is_not_sent_for_ever() -> None:
    reset = Reset(Code.OUTCOME_UNKNOWN)
    again = [decide(reset, repeatable=True, runs=runs, link_lost=True) is not None for runs in range(7)]
    assert again == [True, True, True, True, True, False, False]


def test_two_sends_after_deaths_at_most() -> None:
    reset = Reset(Code.OUTCOME_UNKNOWN, delivered=YES)
    assert decide(reset, repeatable=True, sends=2, deaths=1) is not None
    assert decide(reset, repeatable=True, sends=3, deaths=2) is None
    assert decide(reset, repeatable=True, sends=3, deaths=2, link_lost=True) is not None


@pytest.mark.parametrize(
    ("earlier", "last", "expected"),
    [
        (NO, NO, NO),
        (NO, UNKNOWN, UNKNOWN),
        (UNKNOWN, NO, UNKNOWN),
        (YES, NO, UNKNOWN),
        (UNKNOWN, YES, YES),
    ],
)
def test_the_last_send_does_not_hide_what_an_earlier_one_may_have_done(
    earlier: Delivered, last: Delivered, expected: Delivered
) -> None:
    history = History(repeatable=True, sends=2)
    history.record(Reset(Code.OUTCOME_UNKNOWN, delivered=earlier), link_lost=False)
    reset = Reset(Code.UNREACHABLE, delivered=last)
    history.record(reset, link_lost=False)
    told = resend.verdict(history, reset)
    assert told.delivered == expected
    if expected != last:
        assert told.code == Code.OUTCOME_UNKNOWN
