"""Sends an answer as the reply of an exchange."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable

from restpipe.errors import Code, Delivered, StreamReset, message_of
from restpipe.handler.api import EventError
from restpipe.handler.faults import ends_task
from restpipe.handler.incoming import peer_of
from restpipe.handler.results import (
    Answer,
    Stream,
    answer_of_exception,
    code_and_status,
    of_nothing,
    without_length,
)
from restpipe.handler.streaming import PIECE, Pieces, pieces
from restpipe.handler.threads import Job, ThreadPool
from restpipe.host.sandbox import hint
from restpipe.transport.exchange import Exchange

_log = logging.getLogger(__name__)


def send_short(exchange: Exchange, answer: Answer) -> bool:
    """Send an answer at once. False if it is a stream, or more than the first credit covers."""
    head, body = answer
    if isinstance(body, Stream):
        return False
    if exchange.event.verb == "HEAD":
        body = b""
    elif len(body) > PIECE:
        return False
    exchange.start_reply(head, body, end=True)
    return True


async def send_long(
    exchange: Exchange,
    answer: Answer,
    pool: ThreadPool,
    on_start: Callable[[], None],
    made_by: Job | None = None,
    variables: contextvars.Context | None = None,
) -> None:
    """Send an answer as fast as the other side takes it; `on_start` is called just before the first of it.

    A stream is read in the thread of the job `made_by`, and with these context variables. One that fails
    before its first piece is answered like any exception; later it resets the exchange (REPLY_BROKEN), so
    that what has been sent is not taken for the whole.
    """
    head, body = answer
    if isinstance(body, Stream):
        source = pieces(body.source, pool, made_by, peer=peer_of(exchange), variables=variables)
        try:
            answer_instead = await _send_stream(exchange, head, source, body.length, on_start)
        finally:
            await source.aclose()
        if answer_instead is None or send_short(exchange, answer_instead):
            return
        head, body = answer_instead
        assert isinstance(body, bytes)  # noqa: S101 - for the type checker
    on_start()
    exchange.start_reply(head, body[:PIECE], end=False)
    await exchange.write(body[PIECE:], end=True)


async def _send_stream(
    exchange: Exchange,
    head: bytes,
    source: Pieces,
    length: int | None,
    on_start: Callable[[], None],
) -> Answer | None:
    if exchange.event.verb == "HEAD":
        exchange.start_reply(head, end=True)
        return None
    try:
        first = await anext(source, b"")
    except BaseException as exc:
        if ends_task(exc):
            raise
        which, said = _which(exchange), _said(exchange)
        if isinstance(exc, EventError):
            _log.info(
                "%s: answered with code %d: %s", which, code_and_status(exc)[0], message_of(exc), extra=said
            )
        else:
            _log.exception("%s: its stream failed before the first byte%s", which, hint(exc), extra=said)
        return answer_of_exception(exc)
    if not first:
        exchange.start_reply(of_nothing(head), end=True)
        return None
    if length is not None and len(first) < min(length, PIECE):
        # Files of the kernel (/sys) do not know their length either.
        head, length = without_length(head), None
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
        _log.exception("%s: its stream broke off%s", _which(exchange), hint(exc), extra=_said(exchange))
        exchange.reset(Code.REPLY_BROKEN, f"{type(exc).__name__}: {message_of(exc)}", Delivered.YES)
    return None


def _which(exchange: Exchange) -> str:
    event = exchange.event
    return f"event {event.id.hex()}, {event.verb} {event.target:.200}"


def _said(exchange: Exchange) -> dict[str, str]:
    return {"peer": peer_of(exchange)}


async def _send_rest(exchange: Exchange, first: bytes, source: Pieces, length: int | None) -> None:
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
