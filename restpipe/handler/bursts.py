"""Which threads are not free for methods that begin, and for which peers they work. Pure.

A plain generator holds a thread for as long as it takes to make its next pieces (a burst), and a method holds
one on when its event was given up. Many of one peer would hold all threads, some for ever, and no method of
anybody could begin. So some threads are never taken by streams, and the others are shared by the peers.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from restpipe.protocol.shares import ALPHA, Shares, may_take

KEPT_FREE = 8
"""One in so many threads is for methods alone, and at least one where there are more."""

JobT = TypeVar("JobT")


class Bursts(Generic[JobT]):
    """Streams of all peers, each of which needs a thread for a moment. Peers take turns."""

    def __init__(self, threads: int, begin: Callable[[JobT], None]) -> None:
        """`begin` has a thread work on a stream."""
        self._threads = threads
        self._begin = begin
        self._shares = Shares(max(1, threads - max(1, threads // KEPT_FREE)), ALPHA)
        self.held: dict[JobT, tuple[str, float]] = {}
        """What holds a thread, for which peer, and since when."""
        self._lines: OrderedDict[str, deque[JobT]] = OrderedDict()
        """What waits, by peer; whose turn was longest ago comes first."""

    def held_since(self, moment: float) -> list[JobT]:
        """Return what has held a thread since before that, and still does."""
        return [job for job, (_, since) in self.held.items() if since <= moment]

    def leaves_thread_to(self, peer: str, since: float) -> bool:
        """Tell whether a method of `peer` may begin: not if its share is held since then, and one is left."""
        peers = [self.held[job][0] for job in self.held_since(since)]
        free, held = self._threads - len(peers), peers.count(peer)
        return not held or free <= 0 or may_take(held, free, ALPHA)

    def ask(self, job: JobT, peer: str, now: float) -> None:
        """Have a stream begin as soon as it may have a thread. `end` must follow, or `withdraw`."""
        if peer not in self._lines and self._shares.has_room(peer):
            self.hold(job, peer, now)
            self._begin(job)
        else:
            self._lines.setdefault(peer, deque()).append(job)

    def withdraw(self, job: JobT, peer: str) -> bool:
        """Take a stream out of its line. False if it is not in it any more."""
        line = self._lines.get(peer)
        if line is None or job not in line:
            return False
        line.remove(job)
        if not line:
            del self._lines[peer]
        return True

    def hold(self, job: JobT, peer: str, now: float) -> None:
        """Count a thread that works for `peer`, whether or not there is room; the same job once at a time."""
        if job not in self.held:
            self.held[job] = (peer, now)
            self._shares.take(peer)

    def end(self, job: JobT, now: float) -> None:
        """A job holds its thread no more, if it did."""
        held = self.held.pop(job, None)
        if held is None:
            return
        self._shares.give_back(held[0])
        for peer in list(self._lines):
            if self._shares.has_room(peer):
                self._go_on(peer, now)

    def _go_on(self, peer: str, now: float) -> None:
        line = self._lines[peer]
        job = line.popleft()
        if line:
            self._lines.move_to_end(peer)
        else:
            del self._lines[peer]
        self.hold(job, peer, now)
        self._begin(job)
