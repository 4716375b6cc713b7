"""The places for requests in one web worker, shared between destinations. Pure."""

from __future__ import annotations


class Places:
    """Counts requests in flight.

    Requests that wait for one client's reply to begin hold at most half of the places, so that an absent
    client leaves the other half to the others. A client's web worker has only one destination, which may hold
    all.
    """

    def __init__(self, most: int) -> None:
        self.taken = 0
        self._most = most
        self._most_waiting = (most + 1) // 2
        self._waiting: dict[str, int] = {}
        """Requests that wait for the reply to begin, by destination."""

    def take(self, to: str) -> str:
        """Count a request to `to` in, or return why there is no place. `leave` must follow in the end."""
        if self.taken >= self._most:
            return f"{self.taken} requests are in flight in this web worker"
        if to:
            waiting = self._waiting.get(to, 0)
            if waiting >= self._most_waiting:
                return f"{waiting} requests wait for this client in this web worker"
            self._waiting[to] = waiting + 1
        self.taken += 1
        return ""

    def answered(self, to: str) -> None:
        """The reply to a request has begun, long before it leaves."""
        if to:
            waiting = self._waiting[to] - 1
            if waiting:
                self._waiting[to] = waiting
            else:
                del self._waiting[to]

    def leave(self, to: str, *, answered: bool) -> None:
        """Count a request out. `answered`: that has been told before."""
        self.taken -= 1
        if not answered:
            self.answered(to)
