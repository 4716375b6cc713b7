"""The bodies of requests."""

from __future__ import annotations

import asyncio
import json as json_
import tracemalloc

import pytest

from restpipe.errors import Code, Delivered, Reset, StreamReset
from restpipe.handler.incoming import HELD_BODIES, ONE_BODY, PLAIN, Bodies, receive_body
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


def receive(bodies: Bodies, exchange: Exchange, *, json: bool = False) -> tuple[bytes, int]:
    return asyncio.run(receive_body(exchange, bodies, json=json))


def test_what_all_bodies_hold_together_is_bounded() -> None:
    bodies = Bodies(10)
    room = bodies.room.left
    held = [receive(bodies, Brought(b"01234", b"56789"))[1] for _ in range(HELD_BODIES - 1)]
    held.append(receive(bodies, Brought(b"01234"))[1])
    with pytest.raises(StreamReset) as told:
        receive(bodies, Brought(b"0123", b"4567"))
    assert (told.value.code, told.value.reset.delivered) == (Code.OVERLOADED, Delivered.NO)
    assert bodies.room.left == 5 * PLAIN
    for weight in held:
        bodies.room.give_back(weight)
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


DOCUMENTS = {
    "lists": "[" + "[]," * 50_000 + "[]]",
    "records": json_.dumps([{"id": n, "name": f"name {n}", "at": n / 7} for n in range(5_000)]),
    "numbers": json_.dumps([n * 1000 for n in range(50_000)]),
    "texts": json_.dumps([f"text {n}" for n in range(50_000)]),
    "short keys": json_.dumps({f"{n:x}": n + 300 for n in range(44_000)}),
    "keys outside of the BMP": json_.dumps(
        {f"\U0001f600{n:x}": 1 for n in range(44_000)}, ensure_ascii=False
    ),
    "keys that are escaped": json_.dumps({f"\U0001f600{n:x}": 1 for n in range(44_000)}),
    "keys and texts outside of the BMP": json_.dumps(
        {f"\U0001f600{n:x}": "\U0001f600" for n in range(44_000)}, ensure_ascii=False
    ),
    "texts outside of the BMP": json_.dumps(["\U0001f600"] * 50_000, ensure_ascii=False),
    "short lists": json_.dumps([[n + 300] for n in range(30_000)]),
    "one text": json_.dumps("x" * 1_000_000),
    "other signs": json_.dumps("\u4e2d" * 300_000, ensure_ascii=False),
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_json_counts_as_what_it_becomes(document: str) -> None:
    body = DOCUMENTS[document].encode()
    pieces = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    bodies = Bodies(1 << 24)
    got, weight = receive(bodies, Brought(*pieces), json=True)
    assert got == body
    assert bodies.room.left == Bodies(1 << 24).room.left - weight
    tracemalloc.start()
    try:
        kept = json_.loads(body.decode())
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept
    assert size <= weight <= max(5 * size, PLAIN * len(body))


def test_a_body_that_comes_alone_is_taken_whatever_it_becomes() -> None:
    bodies = Bodies(1000)
    room = bodies.room.left
    held = [receive(bodies, Brought(b"[" * 900), json=True)[1] for _ in range(ONE_BODY)]
    assert bodies.room.left == 0
    with pytest.raises(StreamReset):
        receive(bodies, Brought(b"[" * 900), json=True)
    for weight in held:
        bodies.room.give_back(weight)
    assert bodies.room.left == room
