"""Whether an event may be sent again after it came to nothing, and when. Pure."""

from __future__ import annotations

import dataclasses
from typing import Final

from restpipe.errors import Code, Delivered, Reset

MAX_RUNS: Final = 6
"""Attempts that may have run, of which at most one to its end."""
MAX_SENDS_AFTER_DEATH: Final = 2
"""An event that kills its handler must not reach many of them."""
FIRST_PAUSE_S: Final = 0.02
PAUSE_GROWTH: Final = 5
MAX_PAUSE_S: Final = 1.0


@dataclasses.dataclass
class History:
    """The attempts to send an event so far. Made when the first of them has failed."""

    repeatable: bool
    """It may run twice: by its verb, or because the caller gave it an Idempotency-Key."""
    sends: int = 0
    deaths: int = 0
    """Attempts whose outcome is unknown although the link stayed: the process that ran the event is gone."""
    runs: int = 0
    """Attempts that may have run."""

    def record(self, reset: Reset, *, link_lost: bool) -> None:
        """Note how the latest attempt ended."""
        if reset.delivered == Delivered.NO:
            return
        self.runs += 1
        if reset.code == Code.OUTCOME_UNKNOWN and not link_lost:
            self.deaths += 1


def pause_s(history: History, reset: Reset, *, body_at_hand: bool, remaining_s: float) -> float | None:
    """Return the seconds to pause before the event is sent again; None if it must not be sent again.

    `history` has `reset` recorded already.
    """
    # What was not delivered is sent again until its deadline: a daemon's restart may take long.
    pause = min(FIRST_PAUSE_S * PAUSE_GROWTH ** min(history.sends - 1, 9), MAX_PAUSE_S)
    allowed = (
        body_at_hand
        and history.runs < MAX_RUNS
        and history.deaths <= MAX_SENDS_AFTER_DEATH
        and pause < remaining_s
        and _is_harmless(history, reset)
    )
    return pause if allowed else None


def _is_harmless(history: History, reset: Reset) -> bool:
    if reset.code not in (Code.DRAINING, Code.OUTCOME_UNKNOWN):
        return False
    return reset.delivered == Delivered.NO or history.repeatable


def verdict(history: History, reset: Reset) -> Reset:
    """Return what the caller is told: a last attempt that was not delivered says nothing of those before."""
    if reset.delivered != Delivered.NO or not history.runs:
        return reset
    detail = f"sent {history.sends} times; an earlier one may have run, the last did not: {reset}"
    return Reset(Code.OUTCOME_UNKNOWN, detail)
