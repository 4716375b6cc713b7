"""What became of numbered events, by both sides' accounts, and what the two together show."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})


@dataclasses.dataclass(frozen=True)
class Death:
    """A process that ended without a chance to finish what it had. Times are of the monotonic clock."""

    role: str
    part: str
    began: float
    ended: float

    def concerns(self, outcome: Outcome) -> bool:
        """Whether the request was under way then."""
        return outcome.began <= self.ended and self.began <= outcome.ended

    @property
    def of_web(self) -> bool:
        return self.part == "web"


@dataclasses.dataclass
class Outcome:
    """One request, as its caller saw it. Times are of the monotonic clock."""

    number: str
    role: str
    """Whose web worker was asked."""
    verb: str
    has_key: bool
    sent_digest: str
    began: float
    ended: float = 0.0
    begun: float = 0.0
    """When the head of a response had come; 0 when none did."""
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
    """Told, in one way or another, that the outcome is unknown: because somebody died, or at the deadline."""
    refused: list[str] = dataclasses.field(default_factory=list)
    """Told that they were not delivered, and they were not."""
    never_sent: int = 0
    """Not even accepted: nobody was there to take the connection. Not among those sent."""
    answered: int = 0
    slowest_s: float = 0.0
    """The longest that anybody waited for the head of a response."""

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


def compare(outcomes: Iterable[Outcome], account: Account, deaths: Sequence[Death] = ()) -> Verdict:
    """Only `deaths` excuse what is worse than an answer: who stops in good order finishes what it has."""
    verdict = Verdict()
    for outcome in outcomes:
        if outcome.never_sent:
            verdict.never_sent += 1
            continue
        verdict.sent += 1
        verdict.answered += outcome.answered
        verdict.slowest_s = max(verdict.slowest_s, (outcome.begun or outcome.ended) - outcome.began)
        runs = account.runs[outcome.number]
        concerned = [death for death in deaths if death.concerns(outcome)]
        if outcome.overdue or (outcome.answered and not runs):
            verdict.lost.append(f"{outcome} ({runs} runs)")
        if runs > _allowed_runs(outcome, concerned):
            verdict.twice.append(f"{outcome} ({runs} runs, {len(concerned)} deaths)")
        bodies = account.bodies.get(outcome.number, set())
        if (outcome.answered and not outcome.right) or bodies - {outcome.sent_digest}:
            verdict.wrong.append(str(outcome))
        if not outcome.answered and not outcome.overdue:
            _file_failure(verdict, outcome, runs, concerned)
    return verdict


def _allowed_runs(outcome: Outcome, deaths: Sequence[Death]) -> int:
    """What may run twice is sent again when whoever had it dies; a web worker has only its caller."""
    if outcome.verb not in IDEMPOTENT and not outcome.has_key:
        return 1
    return 1 + sum(not death.of_web for death in deaths)


def _may_be_unknown(outcome: Outcome, deaths: Sequence[Death]) -> bool:
    if outcome.status == 0 and not outcome.begun:
        # Nobody but the web worker could leave the caller without a word.
        return any(death.of_web and death.role == outcome.role for death in deaths)
    return outcome.problem == "deadline" or bool(deaths)


def _file_failure(verdict: Verdict, outcome: Outcome, runs: int, deaths: Sequence[Death]) -> None:
    if not _may_be_unknown(outcome, deaths) and outcome.delivered != "no":
        verdict.lost.append(f"{outcome}, for no reason ({runs} runs)")
    elif outcome.delivered == "no":
        if runs:
            verdict.twice.append(f"{outcome}, but it ran")
        else:
            verdict.refused.append(str(outcome))
    elif outcome.delivered == "yes" and not runs:
        verdict.lost.append(f"{outcome}, but it never ran")
    else:
        verdict.unknown.append(str(outcome))
