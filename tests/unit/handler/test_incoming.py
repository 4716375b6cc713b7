"""The bodies of requests."""

from __future__ import annotations

import asyncio

import pytest

from restpipe.errors import Code, Delivered, Reset, StreamReset
from restpipe.handler.incoming import HELD_BODIES, Bodies, receive_body
from restpipe.protocol.schema_pb2 import Event
from restpipe.protocol.session import Session
from restpipe.transport.exchange import Exchange


class Brought(Exchange):
    """Brings these pieces, then ends or fails."""

    def __init__(self, *pieces: bytes, failure: Reset | None = None, length: int = 0) -> None:
        event = Event(content_type="text/plain", body_length=length)
        session = Session(bytes(16), 0)
        super().__init__(session, 1, event, loop=None, forget=lambda number: None)  # type: ignore[arg-type]
        self.pieces = list(pieces)
        self.end = failure

    async def read(self) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if self.end is not None:
            raise StreamReset(self.end)
        return b""


def receive(bodies: Bodies, exchange: Exchange) -> bytes:
    return asyncio.run(receive_body(exchange, bodies))


def test_what_all_bodies_hold_together_is_bounded() -> None:
    bodies = Bodies(10)
    room = bodies.room.left
    held = [receive(bodies, Brought(b"01234", b"56789")) for _ in range(HELD_BODIES - 1)]
    held.append(receive(bodies, Brought(b"01234")))
    with pytest.raises(StreamReset) as told:
        receive(bodies, Brought(b"0123", b"4567"))
    assert (told.value.code, told.value.reset.delivered) == (Code.OVERLOADED, Delivered.NO)
    assert bodies.room.left == 5
    for body in held:
        bodies.room.give_back(len(body))
    assert bodies.room.left == room


@pytest.mark.parametrize(
    ("exchange", "code"),
    [
        (Brought(b"01234", b"567890"), Code.BODY_TOO_LARGE),
        (Brought(length=11), Code.BODY_TOO_LARGE),
        (Brought(b"01234", failure=Reset(Code.CANCELLED)), Code.CANCELLED),
    ],
)
def test_what_is_not_taken_holds_nothing(exchange: Exchange, code: Code) -> None:
    bodies = Bodies(10)
    room = bodies.room.left
    with pytest.raises(StreamReset) as told:
        receive(bodies, exchange)
    assert told.value.code is code
    assert bodies.room.left == room
