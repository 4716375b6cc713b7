"""Pauses before a link is dialed again: short for one who lost its link, spread for many who did at once."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """The n-th pause is drawn evenly from 0 to `least_s * 2**n`, but never beyond `most_s`."""

    def __init__(self, least_s: float, most_s: float, draw: Callable[[], float] = random.random) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._draw = draw
        self.attempts = 0
        """Failures in a row."""

    def next_pause_s(self) -> float:
        """Counts one more failure and says how long to wait after it, in seconds."""
        # 2.0 ** 1024 overflows: a peer may be away for years.
        ceiling = min(self._most_s, self._least_s * 2.0 ** min(self.attempts, 64))
        self.attempts += 1
        return self._draw() * ceiling

    def within_s(self, ceiling_s: float) -> float:
        """Return a pause of at most `ceiling_s`, in seconds, that counts no failure."""
        return self._draw() * min(self._most_s, ceiling_s)

    def reset(self) -> None:
        """An attempt succeeded."""
        self.attempts = 0

    def another(self) -> Backoff:
        """One that counts other failures by the same rule."""
        return Backoff(self._least_s, self._most_s, self._draw)

    @property
    def most_s(self) -> float:
        return self._most_s


STEADY_S = 1.0
"""A link that stood for less has not proved that dialing is of use."""
RESTART_S = 1.0
"""The longest pause while a server stops: the next is there soon, and each attempt costs a handshake."""
MAX_TURN_S = 60.0
"""However long a server wishes its clients to wait."""


class Redial:
    """When a client dials again.

    At once after a link that stood, with a backoff after failures. A client cannot know how many others lost
    their links together with it, but the server does: it tells each one its turn while all is well. Where
    the end of a link concerned this client alone, there is nobody to take turns with.

    Whoever has a turn keeps it: where a round is as long as the longest pause, all pauses are a round, for
    the turns are what spreads the attempts. Drawn anew each time they would meet by chance.
    """

    def __init__(self, backoff: Backoff, addresses: int = 1) -> None:
        """`addresses`: how many are tried one after the other."""
        self._turn_s = 0.0
        self._round_s = 0.0
        self.configure(backoff, addresses)

    def configure(self, backoff: Backoff, addresses: int) -> None:
        """Another rule and other addresses, while the server's word still holds."""
        self._backoff = backoff
        self._flaps = backoff.another()
        self._addresses = addresses

    def take_turn(self, turn_s: float, round_s: float) -> None:
        """What the server told: when to come back after a break, and how long all of its clients take."""
        self._turn_s = min(turn_s, MAX_TURN_S)
        self._round_s = min(round_s, self._backoff.most_s)

    def after_failure_s(self) -> float:
        """How long to wait after one more failure, in seconds."""
        pause_s = self._backoff.next_pause_s()
        # A whole round keeps the order in which the clients came; the other addresses need not wait for it.
        return pause_s if self._backoff.attempts % self._addresses else max(pause_s, self._round_s)

    def while_it_stops_s(self) -> float:
        """How long to wait for the next daemon where one stops and takes nobody new: that is no failure."""
        self._backoff.reset()
        return max(self._backoff.within_s(RESTART_S), self._round_s)

    def after_link_s(self, stood_s: float, *, alone: bool = False) -> float:
        """How long to wait after a link that stood for `stood_s`, and was ended for this client `alone`."""
        turn_s = 0.0 if alone else self._turn_s
        if stood_s >= STEADY_S:
            self._flaps.reset()
            return turn_s
        return max(self._flaps.next_pause_s(), turn_s)
