from __future__ import annotations

import asyncio
from typing import Any

import pytest

from restpipe import Context, EventHandler
from restpipe.errors import Code, Delivered, StreamReset
from restpipe.handler.incoming import HELD_BODIES, Bodies, PostData, receive_body
from restpipe.handler.registry import Method, Registry
from restpipe.protocol.schema_pb2 import Event


class Handler(EventHandler):
    def post_item(self, ctx: Context, post_data: tuple[str, Any]) -> None:
        """Never called here."""


class Exchange:
    """Brings these pieces, then ends or fails."""

    def __init__(self, *pieces: bytes, failure: StreamReset | None = None, length: int = 0) -> None:
        self.event = Event(content_type="text/plain", body_length=length)
        self._pieces = list(pieces)
        self._failure = failure

    async def read(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        if self._failure is not None:
            raise self._failure
        return b""


def method() -> Method:
    found = Registry.of(Handler()).find("POST", ("item",))
    assert found is not None
    return found


def receive(bodies: Bodies, exchange: Exchange) -> PostData:
    return asyncio.run(receive_body(exchange, method(), bodies))  # type: ignore[arg-type]


def test_what_all_bodies_hold_together_is_bounded() -> None:
    bodies = Bodies(10)
    room = bodies.room.left
    held = [receive(bodies, Exchange(b"01234", b"56789")) for _ in range(HELD_BODIES - 1)]
    held.append(receive(bodies, Exchange(b"01234")))
    with pytest.raises(StreamReset) as told:
        receive(bodies, Exchange(b"0123", b"4567"))
    assert (told.value.code, told.value.delivered) == (Code.OVERLOADED, Delivered.NO)
    assert bodies.room.left == 5
    for post_data in held:
        bodies.release(post_data)
    assert bodies.room.left == room


@pytest.mark.parametrize(
    ("exchange", "code"),
    [
        (Exchange(b"01234", b"567890"), Code.BODY_TOO_LARGE),
        (Exchange(length=11), Code.BODY_TOO_LARGE),
        (Exchange(b"01234", failure=StreamReset(Code.CANCELLED)), Code.CANCELLED),
    ],
)
def test_what_is_not_taken_holds_nothing(exchange: Exchange, code: Code) -> None:
    bodies = Bodies(10)
    room = bodies.room.left
    with pytest.raises(StreamReset) as told:
        receive(bodies, exchange)
    assert told.value.code is code
    assert bodies.room.left == room
