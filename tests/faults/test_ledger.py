"""The ledger finds what it is there to find, and excuses nothing without a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.ledger import Account, Death, Outcome, Verdict, compare

DIGEST = "d"
WEB = Death("client", "web", 4.0, 6.0)
OTHER_WEB = Death("server", "web", 4.0, 6.0)
DAEMON = Death("server", "pipe", 4.0, 6.0)
HANDLERS = Death("server", "handlers", 5.0, 5.5)
EARLIER = Death("server", "pipe", 1.0, 2.0)


def outcome(verb: str = "POST", **more: Any) -> Outcome:
    told = {"began": 3.0, "ended": 10.0, "status": 502} | more
    return Outcome("1", "client", verb, has_key=False, sent_digest=DIGEST, **told)


ANSWERED: dict[str, Any] = {"status": 200, "begun": 4.0, "answered": True, "right": True}
UNKNOWN: dict[str, Any] = {"begun": 9.0, "problem": "outcome-unknown", "delivered": "unknown"}
NO_WORD: dict[str, Any] = {"status": 0, "problem": "ReadError"}
BROKE_OFF: dict[str, Any] = {**NO_WORD, "begun": 4.0}


def judged(tmp_path: Path, one: Outcome, deaths: list[Death], runs: int) -> Verdict:
    record = tmp_path / "record"
    record.write_text("run 1 \n" * runs + f"body 1 {DIGEST}\n" * runs)
    return compare([one], Account([record]), deaths)


@pytest.mark.parametrize(
    ("told", "deaths"),
    [
        ({"overdue": True}, [WEB, DAEMON]),
        (NO_WORD, []),
        (NO_WORD, [DAEMON, HANDLERS, OTHER_WEB]),
        (BROKE_OFF, []),
        (BROKE_OFF, [EARLIER]),
        (UNKNOWN, []),
        (UNKNOWN, [EARLIER]),
        ({**UNKNOWN, "delivered": "yes"}, []),
    ],
)
def test_what_nobody_who_died_excuses_is_lost(
    tmp_path: Path, told: dict[str, Any], deaths: list[Death]
) -> None:
    verdict = judged(tmp_path, outcome(**told), deaths, runs=1)
    assert len(verdict.lost) == 1
    assert not verdict.good
    assert verdict.unknown == []


@pytest.mark.parametrize(
    ("told", "deaths"),
    [
        (NO_WORD, [WEB]),
        (BROKE_OFF, [HANDLERS]),
        (UNKNOWN, [DAEMON]),
        ({**UNKNOWN, "problem": "deadline"}, []),
    ],
)
def test_what_has_a_reason_is_unknown(tmp_path: Path, told: dict[str, Any], deaths: list[Death]) -> None:
    verdict = judged(tmp_path, outcome(**told), deaths, runs=1)
    assert verdict.good
    assert len(verdict.unknown) == 1


@pytest.mark.parametrize(
    ("verb", "deaths", "runs", "good"),
    [
        ("GET", [], 1, True),
        ("GET", [], 2, False),
        ("GET", [WEB], 2, False),
        ("GET", [EARLIER], 2, False),
        ("GET", [DAEMON], 2, True),
        ("GET", [DAEMON], 3, False),
        ("GET", [DAEMON, HANDLERS], 3, True),
        ("POST", [DAEMON, HANDLERS], 2, False),
        ("GET", [DAEMON], 0, False),
    ],
)
def test_an_event_runs_again_only_for_each_death(
    tmp_path: Path, verb: str, deaths: list[Death], runs: int, good: bool
) -> None:
    assert judged(tmp_path, outcome(verb, **ANSWERED), deaths, runs).good is good


@pytest.mark.parametrize(("runs", "good"), [(0, True), (1, False)])
def test_what_was_not_delivered_did_not_run(tmp_path: Path, runs: int, good: bool) -> None:
    told = outcome(status=503, begun=9.0, problem="unreachable", delivered="no")
    assert judged(tmp_path, told, [DAEMON], runs).good is good
