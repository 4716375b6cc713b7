"""The handler workers of this host, and which of them takes the next event. Pure.

A worker's places are held by work: an event takes one from when it is sent until its reply begins. A reply
that waits for its reader keeps no other event from being worked on, but a worker has at most MAX_REPLIES more
events than places. Both bounds are shared by the channels that open events (see `shares`).
"""

from __future__ import annotations

from typing import Final

from restpipe.daemon.channel import Channel, Route
from restpipe.daemon.waiting import WaitingQueue
from restpipe.errors import Code
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.messages import MAX_REPLIES
from restpipe.protocol.session import Session
from restpipe.protocol.shares import may_take

OVERDUE_S: Final = 0.5
"""A worker that answers no heartbeat for so long hangs: what it is given would be stuck with it."""


class Worker(Channel):
    """One handler worker: it can work on `capacity` events at once."""

    def __init__(self, session: Session, connection: Connection, capacity: int, name: str = "") -> None:
        super().__init__(session, Side.LISTENER, name)
        self.capacity = capacity
        self._connection = connection

    def room(self, now: float) -> int:
        """Return how many events it can take now: none while a heartbeat is overdue, or if it is leaving."""
        connection = self._connection
        if connection.peer_goes:
            return 0
        pinged_at = connection.pinged_at
        if pinged_at is not None and now - pinged_at > OVERDUE_S:
            return 0
        return min(self.capacity - self.places, self.capacity + MAX_REPLIES - len(self.routes))


class HandlerPool:
    """Gives each event to the worker with the most room; events wait in `queue` while there is none."""

    def __init__(self, max_waiting: int) -> None:
        self.workers: set[Worker] = set()
        self.openers: set[Channel] = set()
        """Peers whose session may open events."""
        self.queue: WaitingQueue[Channel, Route] = WaitingQueue(
            max_waiting, Code.NO_HANDLER, "no handler worker was free in time"
        )
        self.free = 0
        """Places that were free when `pick` was last called."""

    def pick(self, opener: Channel, now: float, *, whole: bool) -> Worker | None:
        """Return the worker with the most room. None if there is none, or if `opener` has used up its share.

        `whole` says whether all of the event's body is here.
        """
        best = None
        most = free = 0
        for worker in self.workers:
            room = worker.room(now)
            if room > 0:
                free += room
                if room > most:
                    best, most = worker, room
        self.free = free
        if best is None:
            return None
        # Work ends by itself: a peer that is alone may take all places. An upload may stand still forever.
        if opener.places and (not whole or len(self.openers) > 1) and not may_take(opener.places, free):
            return None
        if opener.replies and not self._may_have_more(opener):
            return None
        return best

    def _may_have_more(self, opener: Channel) -> bool:
        """Tell whether the workers may have more events of one to which they are replying already."""
        left = sum(worker.capacity + MAX_REPLIES - len(worker.routes) for worker in self.workers)
        return may_take(opener.places + opener.replies, left)
