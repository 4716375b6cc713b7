"""What came with an event: who sent it, and its body, which may still be coming."""

from __future__ import annotations

from restpipe.errors import Code, Delivered, Reset, StreamReset
from restpipe.host.limits import Budget
from restpipe.transport.exchange import Exchange

HELD_BODIES = 16
"""Of the largest size that is taken, or many more of usual size: what all methods hold at once."""


def peer_of(exchange: Exchange) -> str:
    """Return the name of the event's sender."""
    return exchange.origin.peer if exchange.origin else ""


class Bodies:
    """How large a body may be, and all that are held whole together."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.room = Budget(HELD_BODIES * max_bytes)

    def check(self, size: int) -> None:
        """Raise `StreamReset` if a body of this size is too large."""
        if size > self.max_bytes:
            detail = f"the handler takes at most {self.max_bytes} bytes"
            raise StreamReset(Reset(Code.BODY_TOO_LARGE, detail, Delivered.NO))

    def hold(self, size: int) -> None:
        """Count so many bytes more, to be given back to `room`. Raises `StreamReset` if too many are held."""
        if not self.room.take(size):
            detail = "the handler worker holds as many bodies as it may"
            raise StreamReset(Reset(Code.OVERLOADED, detail, Delivered.NO))


async def receive_body(exchange: Exchange, bodies: Bodies) -> bytes:
    """Wait for all of a body, which is held in `bodies` from then on.

    Raises `StreamReset` if it is too large or breaks off, or if too much is held already.
    """
    bodies.check(exchange.event.body_length)
    gathered: list[bytes] = []
    size = 0
    try:
        while piece := await exchange.read():
            bodies.check(size + len(piece))
            bodies.hold(len(piece))
            size += len(piece)
            gathered.append(piece)
    except BaseException:
        bodies.room.give_back(size)
        raise
    return gathered[0] if len(gathered) == 1 else b"".join(gathered)
