"""Whether an event may be sent again after it came to nothing, and when. Pure."""

from __future__ import annotations

import dataclasses

from restpipe.errors import Code, Delivered, StreamReset

REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
"""Verbs that may run twice (RFC 9110, section 9.2.2)."""
MAX_RUNS = 6
"""Sends that may have run, one of them at the most to its end."""
MAX_SENDS_AFTER_DEATH = 2
"""An event that kills its handler must not be let loose on many."""
FIRST_PAUSE_S = 0.02
PAUSE_GROWTH = 5
MAX_PAUSE_S = 1.0


@dataclasses.dataclass
class History:
    """What has become of an event so far."""

    repeatable: bool
    """It may run twice: by its verb, or because the caller gave it an Idempotency-Key."""
    sends: int = 0
    deaths: int = 0
    """Sends whose outcome is unknown although the link stayed: whoever ran the event is gone."""
    runs: int = 0
    """Sends of which nobody can say that they did not run."""

    def record(self, reset: StreamReset, *, link_lost: bool) -> None:
        """Takes note of how the latest send ended."""
        if reset.delivered == Delivered.NO:
            return
        self.runs += 1
        if reset.code == Code.OUTCOME_UNKNOWN and not link_lost:
            self.deaths += 1


def pause_s(history: History, reset: StreamReset, *, body_at_hand: bool, remaining_s: float) -> float | None:
    """How long to pause before the event is sent again, in seconds; None when it must not be.

    `history` has `reset` recorded already.
    """
    # What was not delivered is sent again until its deadline: a daemon's restart may take its time.
    pause = min(FIRST_PAUSE_S * PAUSE_GROWTH ** min(history.sends - 1, 9), MAX_PAUSE_S)
    allowed = (
        body_at_hand
        and history.runs < MAX_RUNS
        and history.deaths <= MAX_SENDS_AFTER_DEATH
        and pause < remaining_s
        and _is_harmless(history, reset)
    )
    return pause if allowed else None


def _is_harmless(history: History, reset: StreamReset) -> bool:
    if reset.code not in (Code.DRAINING, Code.OUTCOME_UNKNOWN):
        return False
    return reset.delivered == Delivered.NO or history.repeatable


def verdict(history: History, reset: StreamReset) -> StreamReset:
    """What the caller is told: that the last send was not delivered says nothing about those before it."""
    if reset.delivered != Delivered.NO or not history.runs:
        return reset
    detail = f"sent {history.sends} times; an earlier one may have run, the last did not: {reset}"
    return StreamReset(Code.OUTCOME_UNKNOWN, detail)
