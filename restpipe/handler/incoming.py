"""What came with an event: who sent it, and its body, which may still be coming."""

from __future__ import annotations

from restpipe.errors import Code, Delivered, Reset, StreamReset
from restpipe.host.limits import Budget
from restpipe.transport.exchange import Exchange

HELD_BODIES = 16
"""Of the largest size that is taken, or many more of usual size: what all methods hold at once."""
PLAIN = 4
"""Bytes of memory that a byte of a body counts for: text outside of ASCII may take as much."""
OBJECTS = ((b"{", 160), (b"[", 96), (b",", 36), (b":", 56), (b'"', 32))
"""What JSON becomes: about the bytes of memory for each of these, with what stands between them.

A place in a dictionary that has just grown takes 44, a text of one character outside of the BMP 80.
"""
ONE_BODY = 2
"""A body counts for no more than all that there is by this: it can be taken when it comes alone."""


def peer_of(exchange: Exchange) -> str:
    """Return the name of the event's sender."""
    return exchange.origin.peer if exchange.origin else ""


class Bodies:
    """How large a body may be, and all that are held whole together."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.room = Budget(PLAIN * HELD_BODIES * max_bytes)
        """Bytes of memory that may be taken."""
        self._most = self.room.left // ONE_BODY

    def check(self, size: int) -> None:
        """Raise `StreamReset` if a body of this size is too large."""
        if size > self.max_bytes:
            detail = f"the handler takes at most {self.max_bytes} bytes"
            raise StreamReset(Reset(Code.BODY_TOO_LARGE, detail, Delivered.NO))

    def hold(self, piece: bytes, held: int, *, json: bool) -> int:
        """Count a piece of a body of which `held` is counted already; the sum is to be given back to `room`.

        JSON counts as what it becomes. Raises `StreamReset` if too much is held by all.
        """
        weight = PLAIN * len(piece)
        if json:
            weight = max(weight, len(piece) + sum(each * piece.count(sign) for sign, each in OBJECTS))
        weight = min(weight, max(0, self._most - held))
        if not self.room.take(weight):
            detail = "the handler worker holds as many bodies as it may"
            raise StreamReset(Reset(Code.OVERLOADED, detail, Delivered.NO))
        return held + weight


async def receive_body(exchange: Exchange, bodies: Bodies, *, json: bool) -> tuple[bytes, int]:
    """Wait for all of a body. Return it, and for how much it is held in `bodies` from then on.

    Raises `StreamReset` if it is too large or breaks off, or if too much is held already.
    """
    bodies.check(exchange.event.body_length)
    gathered: list[bytes] = []
    size = held = 0
    try:
        while piece := await exchange.read():
            size += len(piece)
            bodies.check(size)
            held = bodies.hold(piece, held, json=json)
            gathered.append(piece)
    except BaseException:
        bodies.room.give_back(held)
        raise
    return gathered[0] if len(gathered) == 1 else b"".join(gathered), held
