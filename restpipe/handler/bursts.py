"""Which streams are read in threads now, and which wait for that. Pure.

A plain generator holds a thread for as long as it takes to make its next pieces. Many slow ones of one peer
would hold all threads, one after the other and for ever, and no method of anybody could begin. So some
threads are never taken by streams, and the others are shared by the peers that the streams are for.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from restpipe.protocol.shares import ALPHA, Shares

KEPT_FREE = 8
"""One in so many threads is for methods alone, and at least one where there are more."""


class Bursts:
    """Streams of all peers, each of which needs a thread for a moment. Peers take turns."""

    def __init__(self, threads: int) -> None:
        self._shares = Shares(max(1, threads - max(1, threads // KEPT_FREE)), ALPHA)
        self._lines: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()
        """What waits, by peer; whose turn was longest ago comes first."""

    def ask(self, peer: str, begin: Callable[[], None]) -> None:
        """Have `begin` called as soon as a stream of `peer` may have a thread. `end` must follow in time."""
        if peer not in self._lines and self._shares.has_room(peer):
            self._shares.take(peer)
            begin()
        else:
            self._lines.setdefault(peer, deque()).append(begin)

    def end(self, peer: str) -> None:
        """A stream of `peer` needs its thread no more."""
        self._shares.give_back(peer)
        if self._lines:
            self._go_on()

    def _go_on(self) -> None:
        for peer in list(self._lines):
            if not self._shares.has_room(peer):
                continue
            line = self._lines[peer]
            begin = line.popleft()
            if line:
                self._lines.move_to_end(peer)
            else:
                del self._lines[peer]
            self._shares.take(peer)
            begin()
