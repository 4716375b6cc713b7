"""A bounded number of places, shared by peers so that no peer can hold all of them. Pure."""

from __future__ import annotations


class Shares:
    """Places that peers hold. Each may take one more as long as it holds less than is left for all others.

    A peer that is alone gets half of them, two get a third each: however many are held, there is room for a
    newcomer. (Dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on Networking, 1998.)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        self._held: dict[str, int] = {}

    def has_room(self, peer: str) -> bool:
        """Tell whether `peer` may take one more."""
        return self._held.get(peer, 0) < self.size - self.taken

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
