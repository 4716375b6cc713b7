"""Who may shake hands now, and who waits for that. Pure: the time is passed in."""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter, OrderedDict, deque
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_V6_NETWORK = 64
_KNOWN = 4096
"""Addresses whose network is remembered: clients come back from where they were."""


class Begun(NamedTuple, Generic[T]):
    """Whose turn has come, and whom it was given in place of."""

    newcomer: T
    given_up: T | None


class _UnderWay(NamedTuple):
    network: str
    since: float


class Handshakes(Generic[T]):
    """At most `limit` under way, at most `room` waiting, each counted against the network it comes from.

    Where all are taken, whoever has the most of them loses his oldest, but none younger than `grace_s`: an
    honest one needs its time on a busy machine, and a newcomer can wait. Networks take turns, so that a flood
    from one of them keeps only its own waiting.
    """

    def __init__(self, limit: int, room: int, grace_s: float) -> None:
        self._limit = limit
        self._room = room
        self._grace_s = grace_s
        self._under_way: dict[T, _UnderWay] = {}
        self._count: Counter[str] = Counter()
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()
        self._waiting = 0

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._waiting

    def come(self, newcomer: T, address: str) -> T | None:
        """Has a newcomer wait; returns whom to turn away because there is no room for more."""
        self._lines.setdefault(network_of(address), deque()).append(newcomer)
        self._waiting += 1
        if self._waiting <= self._room:
            return None
        crowd = max(self._lines, key=lambda network: len(self._lines[network]))
        self._waiting -= 1
        return self._leave_line(crowd, newest=True)

    def begin(self, now: float) -> list[Begun[T]]:
        """Those whose turn has come. `over` must be called for each, unless it is given up later on."""
        begun: list[Begun[T]] = []
        while self._waiting:
            given_up = None
            if len(self._under_way) >= self._limit:
                given_up = self._oldest_of_the_crowd()
                if now < self._under_way[given_up].since + self._grace_s:
                    break
                self.over(given_up)
            begun.append(Begun(self._next(now), given_up))
        return begun

    @property
    def next_at(self) -> float | None:
        """When `begin` is to be called again if nothing is over before; None when nobody waits."""
        if not self._waiting or len(self._under_way) < self._limit:
            return None
        return self._under_way[self._oldest_of_the_crowd()].since + self._grace_s

    def over(self, one: T) -> None:
        """It shakes hands no more. Without effect for those who were given up."""
        under_way = self._under_way.pop(one, None)
        if under_way is not None:
            self._count[under_way.network] -= 1
            if not self._count[under_way.network]:
                del self._count[under_way.network]

    def leave(self) -> list[T]:
        """Removes and returns all who wait."""
        left = [one for line in self._lines.values() for one in line]
        self._lines.clear()
        self._waiting = 0
        return left

    def _oldest_of_the_crowd(self) -> T:
        crowd, _ = self._count.most_common(1)[0]
        return next(one for one, under_way in self._under_way.items() if under_way.network == crowd)

    def _next(self, now: float) -> T:
        network = next(iter(self._lines))
        one = self._leave_line(network)
        if network in self._lines:
            self._lines.move_to_end(network)
        self._waiting -= 1
        self._under_way[one] = _UnderWay(network, now)
        self._count[network] += 1
        return one

    def _leave_line(self, network: str, *, newest: bool = False) -> T:
        line = self._lines[network]
        one = line.pop() if newest else line.popleft()
        if not line:
            del self._lines[network]
        return one


@functools.lru_cache(maxsize=_KNOWN)
def network_of(address: str) -> str:
    """Whom a connection is counted against: an IPv4 address, or an IPv6 host's whole network."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    if parsed.version == 4 or mapped is not None:
        return str(mapped or parsed)
    return str(ipaddress.ip_network((parsed, _V6_NETWORK), strict=False))
