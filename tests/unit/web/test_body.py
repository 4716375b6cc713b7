"""The body of a request, without a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from restpipe.errors import Code, Delivered, Reset
from restpipe.host.limits import Budget
from restpipe.web.body import RequestBody


def put(body: RequestBody, piece: bytes, *, end: bool = False) -> None:
    """As the connection does."""
    body.arrived.append(piece)
    body.buffered += len(piece)
    body.ended = end
    body.wake()


def upload(
    *pieces: bytes,
    length: int | None = None,
    most: int = 100,
    keep: int = 10,
    end: bool = True,
    room: Budget | None = None,
) -> RequestBody:
    """A body of these pieces, each of which arrives when the one before has been read."""
    rest = list(pieces)
    loop = asyncio.get_running_loop()

    def next_piece() -> None:
        if rest:
            put(body, rest.pop(0), end=end and not rest)

    body = RequestBody(length, ask=lambda: None, read_on=lambda: loop.call_soon(next_piece) and None)
    body.limit(most=most, keep=keep, room=room or Budget(10**9))
    next_piece()
    return body


async def read_all(body: RequestBody) -> bytes:
    data = b""
    while not body.complete and body.failure is None:
        data += await body.read()
    return data


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_the_caller_is_asked_once_and_read_on_from_after_each_piece() -> None:
    async def main() -> None:
        heard: list[str] = []
        body = RequestBody(None, ask=lambda: heard.append("ask"), read_on=lambda: heard.append("on"))
        body.limit(most=10, keep=10, room=Budget(10))
        put(body, b"ab")
        assert heard == []
        assert await body.read() == b"ab"
        put(body, b"c")
        put(body, b"d", end=True)
        assert await body.read() == b"cd"
        assert (heard, body.complete, body.buffered) == (["ask", "on", "on"], True, 0)

    run(main())


def test_the_whole_is_kept_while_it_is_small() -> None:
    async def main() -> None:
        room = Budget(100)
        body = upload(b"01234", b"56789", room=room)
        assert await read_all(body) == b"0123456789"
        assert b"".join(body.kept or ()) == b"0123456789"
        assert room.left == 90
        body.forget()
        body.forget()
        assert (body.kept, room.left) == (None, 100)

    run(main())


def test_what_is_too_much_to_keep_is_not_kept_in_part() -> None:
    async def main() -> None:
        room = Budget(100)
        body = upload(b"01234", b"56789", b"x", room=room)
        assert await read_all(body) == b"0123456789x"
        assert (body.kept, room.left) == (None, 100)

    run(main())


def test_what_finds_no_room_beside_the_others_is_not_kept() -> None:
    async def main() -> None:
        room = Budget(12)
        one, other = (upload(b"0123", b"4567", room=room) for _ in range(2))
        assert await read_all(one) == b"01234567"
        assert await read_all(other) == b"01234567"
        assert (one.kept, other.kept, room.left) == ([b"0123", b"4567"], None, 4)
        one.forget()
        assert room.left == 12

    run(main())


def test_the_limit_is_the_last_byte_allowed() -> None:
    async def main() -> None:
        assert await read_all(upload(b"a" * 60, b"b" * 40)) == b"a" * 60 + b"b" * 40
        room = Budget(1000)
        body = upload(b"a" * 60, b"b" * 41, keep=1000, room=room)
        assert await read_all(body) == b"a" * 60
        assert body.failure == Reset(Code.BODY_TOO_LARGE, delivered=Delivered.NO)
        body.forget()
        assert room.left == 1000

    run(main())


def test_a_body_that_fails_wakes_its_reader() -> None:
    async def main() -> None:
        body = upload(b"a", end=False)
        reading = asyncio.ensure_future(read_all(body))
        await asyncio.sleep(0.01)
        gone = Reset(Code.CANCELLED, "gone")
        body.fail(gone)
        body.fail(Reset(Code.DEADLINE))
        assert await reading == b"a"
        assert (body.complete, body.failure) == (False, gone)
        assert await body.read() == b""

    run(main())


def test_a_body_that_is_complete_cannot_fail() -> None:
    async def main() -> None:
        body = upload(b"a")
        await read_all(body)
        body.fail(Reset(Code.CANCELLED))
        assert body.failure is None

    run(main())


@pytest.mark.parametrize(("length", "begun"), [(4, b"abcd"), (None, b"ab"), (70_000, b"ab")])
def test_a_small_body_is_gathered_before_the_event_leaves(length: int | None, begun: bytes) -> None:
    async def main() -> None:
        body = upload(b"ab", b"cd", length=length, end=length == 4)
        assert await body.begin() == begun
        assert await body.begin() == begun
        assert body.complete is (begun == b"abcd")

    run(main())


def test_a_start_that_is_too_much_to_keep_is_not_lost() -> None:
    async def main() -> None:
        body = upload(b"ab", b"cd", keep=1)
        assert await body.begin() == b"ab"
        assert body.kept is None

    run(main())
