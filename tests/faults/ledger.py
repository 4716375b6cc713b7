"""What became of numbered events, by both sides' accounts, and what the two together show."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})


@dataclasses.dataclass
class Outcome:
    """One request, as its caller saw it. Times are of the monotonic clock."""

    number: str
    verb: str
    has_key: bool
    sent_digest: str
    began: float
    ended: float = 0.0
    status: int = 0
    """0: there was no (whole) response."""
    answered: bool = False
    """A handler has answered, whole."""
    right: bool = False
    """The answer's bytes are those that belong to the number."""
    delivered: str = ""
    """What the problem document said."""
    problem: str = ""
    overdue: bool = False
    """It ended neither by its deadline nor a grace after it."""
    never_sent: bool = False
    """The web worker's socket took no connection: the request was never accepted."""

    def __str__(self) -> str:
        what = self.problem or ("answered" if self.answered else "broke off")
        return (
            f"{self.verb} {self.number}: {self.status} {what} {self.delivered} "
            f"after {self.ended - self.began:.2f} s"
        )


@dataclasses.dataclass
class Verdict:
    """The two accounts compared."""

    sent: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    """Never ended in time, or said to have run and did not."""
    twice: list[str] = dataclasses.field(default_factory=list)
    """Ran more often than promised, or ran although the caller was told that it did not."""
    wrong: list[str] = dataclasses.field(default_factory=list)
    """Other bytes than were sent, in either direction."""
    unknown: list[str] = dataclasses.field(default_factory=list)
    """Told, in one way or another, that the outcome is unknown."""
    refused: list[str] = dataclasses.field(default_factory=list)
    """Told that they were not delivered, and they were not."""

    @property
    def good(self) -> bool:
        return not (self.lost or self.twice or self.wrong)

    @property
    def failed(self) -> list[str]:
        """Everything but a right answer."""
        return [*self.lost, *self.twice, *self.wrong, *self.unknown, *self.refused]

    def __str__(self) -> str:
        return (
            f"ledger: sent {self.sent}, lost {len(self.lost)}, twice {len(self.twice)}, "
            f"wrong bytes {len(self.wrong)}, unknown {len(self.unknown)}"
        )


class Account:
    """The handlers' side: what the files say that they wrote."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.runs: Counter[str] = Counter()
        self.bodies: dict[str, set[str]] = {}
        for file in files:
            for line in file.read_text().splitlines() if file.exists() else ():
                what, number, detail = line.split(" ", 2)
                if what == "run":
                    self.runs[number] += 1
                else:
                    self.bodies.setdefault(number, set()).add(detail)


def compare(outcomes: Iterable[Outcome], account: Account, deaths: Sequence[float] = ()) -> Verdict:
    """`deaths` are the moments at which a daemon or handler worker died: events under way then may run again,
    if they are idempotent or have a key.
    """
    verdict = Verdict()
    for outcome in outcomes:
        if outcome.never_sent:
            continue
        verdict.sent += 1
        runs = account.runs[outcome.number]
        if outcome.overdue or (outcome.answered and not runs):
            verdict.lost.append(f"{outcome} ({runs} runs)")
        if runs > 1 and not _may_repeat(outcome, deaths):
            verdict.twice.append(f"{outcome} ({runs} runs)")
        bodies = account.bodies.get(outcome.number, set())
        if (outcome.answered and not outcome.right) or bodies - {outcome.sent_digest}:
            verdict.wrong.append(str(outcome))
        if not outcome.answered and not outcome.overdue:
            _file_failure(verdict, outcome, runs)
    return verdict


def _may_repeat(outcome: Outcome, deaths: Sequence[float]) -> bool:
    died = any(outcome.began <= at <= outcome.ended for at in deaths)
    return died and (outcome.verb in IDEMPOTENT or outcome.has_key)


def _file_failure(verdict: Verdict, outcome: Outcome, runs: int) -> None:
    if outcome.delivered == "no":
        if runs:
            verdict.twice.append(f"{outcome}, but it ran")
        else:
            verdict.refused.append(str(outcome))
    elif outcome.delivered == "yes" and not runs:
        verdict.lost.append(f"{outcome}, but it never ran")
    else:
        verdict.unknown.append(str(outcome))
