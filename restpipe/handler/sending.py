"""Sends an answer as the reply of an exchange."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable

from restpipe.errors import Code, Delivered, StreamReset
from restpipe.handler.faults import ends_task
from restpipe.handler.incoming import IncomingEvent
from restpipe.handler.results import Answer, Stream, answer_of_exception
from restpipe.handler.streaming import PIECE, pieces
from restpipe.handler.threads import ThreadPool
from restpipe.protocol.schema_pb2 import Reply

_log = logging.getLogger(__name__)


async def send_answer(
    exchange: IncomingEvent, answer: Answer, pool: ThreadPool, on_start: Callable[[], None]
) -> None:
    """Sends all of it; `on_start` is called just before the first of it leaves.

    A stream that fails before its first piece is answered as any exception; later it raises `StreamReset`
    (REPLY_BROKEN), so that nobody takes what has been sent for the whole.
    """
    head, body = answer
    if isinstance(body, Stream):
        source = pieces(body, pool)
        try:
            answer_instead = await _send_stream(exchange, head, source, body.length, on_start)
        finally:
            await source.aclose()
        if answer_instead is None:
            return
        head, body = answer_instead
        assert isinstance(body, bytes)  # noqa: S101 - for the type checker
    if exchange.event.verb == "HEAD":
        body = b""
    on_start()
    exchange.start_reply(head, body[:PIECE], end=len(body) <= PIECE)
    if len(body) > PIECE:
        await exchange.write(body[PIECE:], end=True)


async def _send_stream(
    exchange: IncomingEvent,
    head: Reply,
    source: AsyncGenerator[bytes, None],
    length: int | None,
    on_start: Callable[[], None],
) -> Answer | None:
    if exchange.event.verb == "HEAD":
        on_start()
        exchange.start_reply(head, end=True)
        return None
    try:
        first = await anext(source, b"")
    except BaseException as exc:
        if ends_task(exc):
            raise
        _log.exception("%s: its stream failed before the first byte", _which(exchange))
        return answer_of_exception(exc)
    # A file may grow while it is sent, but its length is told already.
    first = first[:length]
    on_start()
    exchange.start_reply(head, first[:PIECE], end=False)
    try:
        await _send_rest(exchange, first, source, length)
    except StreamReset:
        raise
    except BaseException as exc:
        if ends_task(exc):
            raise
        _log.exception("%s: its stream broke off", _which(exchange))
        raise StreamReset(Code.REPLY_BROKEN, f"{type(exc).__name__}: {exc}", Delivered.YES) from None
    return None


def _which(exchange: IncomingEvent) -> str:
    event = exchange.event
    return f"event {event.id.hex()}, {event.verb} {event.target:.200}"


async def _send_rest(
    exchange: IncomingEvent, first: bytes, source: AsyncGenerator[bytes, None], length: int | None
) -> None:
    sent = min(len(first), PIECE)
    if len(first) > PIECE:
        await exchange.write(first[PIECE:])
        sent = len(first)
    async for piece in source:
        if length is not None and sent + len(piece) > length:
            piece = piece[: length - sent]
        if piece:
            await exchange.write(piece)
            sent += len(piece)
        if sent == length:
            break
    if length is not None and sent < length:
        raise EOFError(f"{length - sent} bytes short of what was announced")
    await exchange.write(b"", end=True)
