"""When each client reconnects if all links break at once: the server tells them in advance. Pure."""

from __future__ import annotations

from collections.abc import Iterator

CLIENTS_PER_S = 35
"""Clients that may dial in a second, while the round is at most `SPREAD_S` long..."""
SPREAD_S = 5.0
"""...which is as long as a backoff would let a client wait at most..."""
MOST_CLIENTS_PER_S = 200
"""...unless then more clients would dial in a second than the server can shake hands with."""
STALE = 0.1
"""Part by which the length of the round may change before all clients are told again."""
_GOLDEN = 0.6180339887498949


def round_s(clients: int) -> float:
    """Return the seconds in which so many clients reconnect."""
    return max(min((clients - 1) / CLIENTS_PER_S, SPREAD_S), clients / MOST_CLIENTS_PER_S - 1, 0.0)


def places() -> Iterator[float]:
    """Yield places in a round, from 0 to 1: any run of them is spread evenly over it."""
    place = 0.0
    while True:
        yield place
        place = (place + _GOLDEN) % 1.0


class Turns:
    """Tells when a round has changed so much that all clients must be told."""

    def __init__(self) -> None:
        self.round_s = 0.0
        """Length of the round as clients were last told it."""

    def changed(self, clients: int) -> bool:
        """Tell whether to tell all clients now that there are so many, rather than the newest alone."""
        now_s = round_s(clients)
        if abs(now_s - self.round_s) <= STALE * self.round_s:
            return False
        self.round_s = now_s
        return True
