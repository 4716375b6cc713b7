"""The handler workers of this host, and which of them takes the next event."""

from __future__ import annotations

from restpipe.daemon.channel import Channel
from restpipe.daemon.waiting import WaitingLine
from restpipe.errors import Code
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.session import Session

OVERDUE_S = 0.5
"""A worker that answers no heartbeat for so long hangs: what it is given would be stuck with it."""


class Worker(Channel):
    """One handler worker: it can have `capacity` events under way."""

    def __init__(self, session: Session, connection: Connection, capacity: int, name: str = "") -> None:
        super().__init__(session, Side.LISTENER, name)
        self.capacity = capacity
        self._connection = connection

    def room(self, now: float) -> int:
        """How many events it can take now: none while it leaves a heartbeat unanswered, or is leaving."""
        if self._connection.peer_goes:
            return 0
        pinged_at = self._connection.pinged_at
        if pinged_at is not None and now - pinged_at > OVERDUE_S:
            return 0
        return self.capacity - len(self.routes)


class HandlerPool:
    """Gives each event to the worker with the most room; events wait in `line` while there is none."""

    def __init__(self, max_waiting: int) -> None:
        self.workers: set[Worker] = set()
        self.line = WaitingLine(max_waiting, Code.NO_HANDLER, "no handler worker was free in time")

    def pick(self, now: float) -> Worker | None:
        """Whoever has most room, None when nobody has any."""
        best, most = None, 0
        for worker in self.workers:
            room = worker.room(now)
            if room > most:
                best, most = worker, room
        return best
