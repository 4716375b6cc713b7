"""One neighbour of the router: a local worker, or the daemon of another host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from restpipe.protocol.connection import Side
from restpipe.protocol.session import Session

if TYPE_CHECKING:
    from restpipe.daemon.router import Route


class Channel:
    """A session and the events that are under way over it, in either direction."""

    def __init__(self, session: Session, side: Side, name: str = "") -> None:
        self.session = session
        self.name = name
        """What the log calls the neighbour."""
        self.routes: dict[int, Route] = {}
        self._next_number = 1 if side is Side.DIALER else 2

    def may_open(self, number: int) -> bool:
        """Whether the neighbour may open a stream of this number: it is one of its own, and free."""
        return number not in self.routes and number % 2 != self._next_number % 2

    def new_number(self) -> int:
        """The number of the next stream that this side opens."""
        number = self._next_number
        self._next_number += 2
        return number
