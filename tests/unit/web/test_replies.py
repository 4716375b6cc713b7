from __future__ import annotations

import asyncio

import pytest

from restpipe.errors import Code, StreamReset
from restpipe.web.replies import ReplyBody, is_short, whole_body


class Pieces:
    """A reply's body; ends with a fault where one is given."""

    def __init__(self, *pieces: bytes, closed: bool = False, fault: StreamReset | None = None) -> None:
        self.closed = closed
        self._pieces = list(pieces)
        self._fault = fault

    async def read(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        if self._fault is not None:
            raise self._fault
        return b""


class Patience:
    def __init__(self) -> None:
        self.allowed: list[float] = []

    def allow(self, seconds: float) -> float:
        self.allowed.append(seconds)
        return seconds


async def drain(body: ReplyBody) -> list[bytes]:
    return [piece async for piece in body]


@pytest.mark.parametrize(
    ("closed", "length", "short"),
    [
        (True, None, True),
        (True, 10**9, True),
        (False, None, False),
        (False, 65536, True),
        (False, 65537, False),
    ],
)
def test_what_is_short(closed: bool, length: int | None, short: bool) -> None:
    assert is_short(Pieces(closed=closed), length) is short


@pytest.mark.parametrize("length", [None, 4])
def test_a_short_body_whole(length: int | None) -> None:
    assert asyncio.run(whole_body(Pieces(b"ab", b"cd"), length)) == b"abcd"


@pytest.mark.parametrize("length", [0, 3, 5])
def test_a_short_body_of_another_length(length: int) -> None:
    with pytest.raises(StreamReset) as fault:
        asyncio.run(whole_body(Pieces(b"ab", b"cd"), length))
    assert fault.value.code == Code.REPLY_BROKEN


@pytest.mark.parametrize("length", [None, 4])
def test_a_body_that_goes_on(length: int | None) -> None:
    patience = Patience()
    assert asyncio.run(drain(ReplyBody(Pieces(b"ab", b"cd"), length, patience, 7.0))) == [b"ab", b"cd"]
    assert patience.allowed == [7.0, 7.0, 7.0]


@pytest.mark.parametrize("length", [0, 3, 5])
def test_a_body_of_another_length(length: int) -> None:
    with pytest.raises(StreamReset) as fault:
        asyncio.run(drain(ReplyBody(Pieces(b"ab", b"cd"), length, Patience(), 7.0)))
    assert fault.value.code == Code.REPLY_BROKEN


def test_a_body_that_breaks_off() -> None:
    fault = StreamReset(Code.OUTCOME_UNKNOWN)
    for attempt in (
        lambda: whole_body(Pieces(b"ab", fault=fault), None),
        lambda: drain(ReplyBody(Pieces(b"ab", fault=fault), None, Patience(), 7.0)),
    ):
        with pytest.raises(StreamReset) as raised:
            asyncio.run(attempt())
        assert raised.value is fault
