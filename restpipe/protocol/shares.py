"""How much of something bounded one of several may take, so that the others always find some. Pure.

A fixed part for each would leave most of it idle while few ask. Instead the bound for one moves with what is
free: it may take more as long as it holds no more than ALPHA times what would then be left (the dynamic
thresholds of shared buffers, Choudhury and Hahne 1998). One that asks alone gets ALPHA parts of ALPHA + 1,
two get ALPHA parts of 2 * ALPHA + 1 each, and so on. The last part is left for the next one that comes: only
one that holds nothing may take it.
"""

from __future__ import annotations

from typing import Final

ALPHA: Final = 8
"""Times of what is left that one may hold: 8 of 9 parts if it asks alone."""


def may_take(held: int, free: int, alpha: int = ALPHA) -> bool:
    """Tell whether one that holds `held` of something may take one more, while `free` of it are left."""
    return free > 0 and (held == 0 or held <= alpha * (free - 1))


class Shares:
    """Places that peers hold by name."""

    def __init__(self, size: int, alpha: int = 1) -> None:
        """Share `size` places; `alpha` is how many times of what is left one may hold (see `may_take`).

        With 1, one that asks alone gets half of the places, two get a third each.
        """
        self.size = size
        self._alpha = alpha
        self.taken = 0
        self._held: dict[str, int] = {}

    def has_room(self, peer: str) -> bool:
        """Tell whether `peer` may take one more."""
        return may_take(self._held.get(peer, 0), self.size - self.taken, self._alpha)

    def take(self, peer: str) -> None:
        """Count one more for `peer`, whether or not there is room: what has begun goes on."""
        self.taken += 1
        self._held[peer] = self._held.get(peer, 0) + 1

    def give_back(self, peer: str) -> None:
        """Count one less for `peer`, which must hold one."""
        self.taken -= 1
        held = self._held[peer] - 1
        if held:
            self._held[peer] = held
        else:
            del self._held[peer]
