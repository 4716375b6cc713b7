from __future__ import annotations

import asyncio
from typing import Any

import pytest

from restpipe.host.limits import Budget
from restpipe.web.framing import Framing
from restpipe.web.upload import HungUp, TooLarge, Upload


def upload(
    *pieces: bytes,
    length: int | None = None,
    most: int = 100,
    keep: int = 10,
    cut: bool = False,
    room: Budget | None = None,
) -> Upload:
    """An upload of these pieces; with `cut` the caller hangs up after them."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    if cut:
        messages.append({"type": "http.disconnect"})
    else:
        messages[-1]["more_body"] = False
    rest = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(rest)

    return Upload(receive, Framing(length, False), most=most, keep=keep, room=room or Budget(10**9))


async def read_all(body: Upload) -> bytes:
    data = b""
    while not body.complete:
        data += await body.read()
    return data


def test_a_body_that_is_not_there_is_complete_and_not_asked_for() -> None:
    body = Upload(lambda: pytest.fail("asked"), Framing(0, False), most=1, keep=1, room=Budget(0))
    assert asyncio.run(body.begin()) == b""
    assert body.complete
    assert not body.asked
    assert body.kept == b""


def test_the_whole_is_kept_while_it_is_small() -> None:
    body = upload(b"01234", b"56789")
    assert asyncio.run(read_all(body)) == b"0123456789"
    assert body.kept == b"0123456789"
    body.forget()
    assert body.kept is None


def test_what_is_too_much_to_keep_is_not_kept_in_part() -> None:
    body = upload(b"01234", b"56789", b"x")
    assert asyncio.run(read_all(body)) == b"0123456789x"
    assert body.kept is None


def test_what_finds_no_room_beside_the_others_is_not_kept() -> None:
    room = Budget(12)
    one, other, third = (upload(b"0123", b"4567", room=room) for _ in range(3))
    assert asyncio.run(read_all(one)) == asyncio.run(read_all(other)) == b"01234567"
    assert (one.kept, other.kept, room.left) == (b"01234567", None, 4)
    one.forget()
    one.forget()
    assert room.left == 12
    assert asyncio.run(read_all(third)) == b"01234567"
    assert third.kept == b"01234567"
    assert asyncio.run(read_all(upload(b"01234", b"56789", b"x", room=room))) == b"0123456789x"
    assert room.left == 4


def test_the_limit_is_the_last_byte_allowed() -> None:
    assert asyncio.run(read_all(upload(b"a" * 60, b"b" * 40))) == b"a" * 60 + b"b" * 40
    with pytest.raises(TooLarge):
        asyncio.run(read_all(upload(b"a" * 60, b"b" * 41)))


def test_a_caller_that_hangs_up() -> None:
    body = upload(b"a", cut=True)
    with pytest.raises(HungUp):
        asyncio.run(read_all(body))
    assert not body.complete


@pytest.mark.parametrize(("length", "begun"), [(4, b"abcd"), (None, b"ab")])
def test_a_small_body_is_gathered_before_the_event_leaves(length: int | None, begun: bytes) -> None:
    body = upload(b"ab", b"cd", length=length)
    assert asyncio.run(body.begin()) == begun
    assert asyncio.run(body.begin()) == begun
    assert body.complete is (begun == b"abcd")


def test_a_start_that_is_too_much_to_keep_is_not_lost() -> None:
    body = upload(b"ab", b"cd", keep=1)
    assert asyncio.run(body.begin()) == b"ab"
    assert body.kept is None
