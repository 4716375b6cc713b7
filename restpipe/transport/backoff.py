"""Pauses between attempts: exponential with full jitter, so that many who failed together part again."""

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

    def reset(self) -> None:
        """An attempt succeeded."""
        self.attempts = 0
