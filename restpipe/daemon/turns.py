"""Who comes back when, if all links break at once: a server's clients are told while all is well. Pure."""

from __future__ import annotations

from collections.abc import Iterator

CLIENTS_PER_S = 35
"""As many may dial in a second, up to `SPREAD_S`."""
SPREAD_S = 5.0
"""No client waits longer for its turn than a backoff would have it wait..."""
MOST_CLIENTS_PER_S = 200
"""...unless more would come than handshakes can be made."""
STALE = 0.1
"""Part by which the round may have changed before all are told anew."""
_GOLDEN = 0.6180339887498949


def round_s(clients: int) -> float:
    """In how many seconds all of so many clients come back."""
    return max(min((clients - 1) / CLIENTS_PER_S, SPREAD_S), clients / MOST_CLIENTS_PER_S - 1, 0.0)


def places() -> Iterator[float]:
    """Places in a round, from 0 to 1: any run of them is spread evenly over it."""
    place = 0.0
    while True:
        yield place
        place = (place + _GOLDEN) % 1.0


class Turns:
    """Says when a round has changed so much that all clients are to be told."""

    def __init__(self) -> None:
        self.round_s = 0.0
        """As it was told last."""

    def changed(self, clients: int) -> bool:
        """So many clients are connected now: whether to tell all of them, or only who is new."""
        now_s = round_s(clients)
        if abs(now_s - self.round_s) <= STALE * self.round_s:
            return False
        self.round_s = now_s
        return True
