"""The body of a reply on its way to the caller."""

from __future__ import annotations

from typing import Protocol

from restpipe.errors import Code, Delivered, StreamReset
from restpipe.protocol.frames import MAX_BODY


class Pieces(Protocol):
    """What is needed of `restpipe.transport.exchange.Exchange`."""

    @property
    def closed(self) -> bool: ...
    async def read(self) -> bytes: ...


class Patience(Protocol):
    """What is needed of `restpipe.web.call.Call`."""

    def allow(self, seconds: float) -> float: ...


def is_short(pieces: Pieces, length: int | None) -> bool:
    """Whether to have the whole body before the response begins: it is here, or it is but one piece."""
    return pieces.closed or (length is not None and length <= MAX_BODY)


async def whole_body(pieces: Pieces, length: int | None) -> bytes:
    """A short body. `StreamReset` when it broke off or is not as long as it says."""
    body = await pieces.read()
    while body and (piece := await pieces.read()):
        body += piece
    if length is not None and len(body) != length:
        raise StreamReset(Code.REPLY_BROKEN, "the reply is not as long as it says", Delivered.YES)
    return body


class ReplyBody:
    """Iterates over a body that goes on, as Falcon's `Response.stream`.

    Each piece is one that the exchange's credit has room for, so memory stays bounded however slow the caller
    is. Raises `StreamReset` when the body breaks off or is not as long as it says. Each piece allows another
    `idle_s`.
    """

    def __init__(self, pieces: Pieces, length: int | None, patience: Patience, idle_s: float) -> None:
        self._pieces = pieces
        self._left = length
        self._patience = patience
        self._idle_s = idle_s

    def __aiter__(self) -> ReplyBody:
        return self

    async def __anext__(self) -> bytes:
        self._patience.allow(self._idle_s)
        piece = await self._pieces.read()
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0 or (not piece and self._left):
                raise StreamReset(Code.REPLY_BROKEN, "the reply is not as long as it says", Delivered.YES)
        if not piece:
            raise StopAsyncIteration
        return piece
