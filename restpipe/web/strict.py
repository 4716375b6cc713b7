"""One HTTP connection: uvicorn's protocol on httptools, made strict, and telling the application more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from restpipe.web import framing, responses
from restpipe.web.framing import Body, Framing, Malformed

HEAD_TIMEOUT_S = 30.0
"""For the rest of a request's head to arrive."""
LINGER_S = 5.0
"""For a caller that still sends a body after it has its whole response."""
LAST_REQUEST_S = 0.3
"""A stopping worker still takes what was already on its way to it over an idle connection."""
MAX_PENDING = 65536
MAX_HELD = 4096

CONNECTION = "restpipe.connection"
"""Key of the ASGI scope: this connection, as the application sees it."""


class GatheredWrites:
    """A connection's transport for responses: the head leaves together with what follows in the same turn.

    Some versions of uvloop make a system call of each write.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif len(data) <= MAX_HELD:
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            if not self._transport.is_closing():
                self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()


class StrictProtocol(HttpToolsProtocol):
    """Shows the parser only what `framing` has found well formed, one request at a time.

    What a caller sends ahead (pipelining) waits, a bounded amount, until the response before it is complete:
    so a hang-up always belongs to the request that is being answered.

    The application finds `target` (the request target as it stood), `framing` and `on_hangup` here, and ends
    a response that cannot be finished with `break_off`.
    """

    target: bytes
    framing: Framing

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.on_hangup: Callable[[], None] | None = None
        self._writes = GatheredWrites(transport, self.loop)
        self._pending = b""
        self._body: Body | None = None
        self._reading_head = False
        self._framing_fields: list[tuple[bytes, bytes]] = []
        self._closing = False
        self._leaving = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._hang_up()

    def _hang_up(self) -> None:
        callback, self.on_hangup = self.on_hangup, None
        if callback is not None:
            callback()

    # Bytes in.

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._unset_keepalive_if_required()
        if self._pending:
            data, self._pending = self._pending + data, b""
        self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            while data and not self._closing:
                data = self._take_body(self._body, data) if self._body else self._take_head(data)
        except Malformed as fault:
            self._refuse(fault)

    def _take_body(self, body: Body, data: bytes) -> bytes:
        taken = body.take(data)
        if body.done:
            self._body = None
        self._feed(data[:taken] if taken < len(data) else data)
        if body.done and self.cycle.response_complete:
            self._close_later(self.timeout_keep_alive)
        return data[taken:]

    def _take_head(self, data: bytes) -> bytes:
        if not self._idle:
            return self._hold(data)
        data = data.lstrip(b"\r\n") if data[0] in b"\r\n" else data
        size = framing.head_size(data)
        if not size:
            self._close_later(HEAD_TIMEOUT_S)
            return self._hold(data)
        self._reading_head = True
        self._feed(framing.without_upgrade(data[:size]))
        self._reading_head = False
        return data[size:]

    def _hold(self, data: bytes) -> bytes:
        self._pending = data
        if len(data) > MAX_PENDING:
            self.flow.pause_reading()
        return b""

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__
            raise cause if isinstance(cause, Malformed) else Malformed("the request is malformed") from None

    @property
    def _idle(self) -> bool:
        """Between two requests."""
        return self._body is None and (self.cycle is None or self.cycle.response_complete)

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._framing_fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._reading_head:
            return  # A trailer: the event has left already, and nobody asked for it.
        name = name.lower()
        if name in framing.FRAMING_NAMES:
            self._framing_fields.append((name, value))
            if name == b"expect":
                super().on_header(name, value)
                return
        elif name == b"connection":
            value = value.strip().lower()
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.framing = framing.decide(self.parser.get_http_version(), self._framing_fields)
        self._body = framing.body_of(self.framing)
        # The application reads the target itself; parsers of URLs differ in what they make of odd ones.
        self.target, self.url = self.url, b"/"
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[CONNECTION] = self
        super().on_headers_complete()
        self.cycle.transport = self._writes  # type: ignore[assignment]
        if self._leaving:
            self.cycle.keep_alive = False

    # Ends.

    def on_response_complete(self) -> None:
        self.on_hangup = None
        # Nobody will read what has come in of it, and whoever holds the cycle would hold that too.
        self.cycle.body = bytearray()
        super().on_response_complete()
        if self.transport.is_closing():
            self._closing = True
        elif self._body is not None:
            self.loop.call_later(LINGER_S, self._end_linger, self.cycle)
        elif self._pending:
            self._unset_keepalive_if_required()
            data, self._pending = self._pending, b""
            self._take(data)

    def _close_later(self, seconds: float) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _end_linger(self, cycle: object) -> None:
        if self.cycle is cycle and self._body is not None:
            self.break_off()

    def break_off(self) -> None:
        """Ends a response that cannot be finished, so that it does not look whole."""
        self._closing = True
        self.on_hangup = None
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._writes.close()

    def _refuse(self, fault: Malformed) -> None:
        hang_up, self.on_hangup = self.on_hangup, None
        self.logger.info("refused a malformed request: %s", fault.detail)
        if self._may_answer():
            self._writes.write(self._refusal(fault))
        self.break_off()
        if hang_up is not None:
            hang_up()

    def _may_answer(self) -> bool:
        return self.cycle is None or self.cycle.response_complete or not self.cycle.response_started

    def _refusal(self, fault: Malformed) -> bytes:
        document = responses.of_problem(fault.problem, fault.detail)
        fields = [(name.encode(), value.encode()) for name, value in document.headers]
        fields += [(b"content-length", b"%d" % len(document.body)), (b"connection", b"close")]
        lines = [name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers + fields]
        return b"".join([STATUS_LINE[document.status], *lines, b"\r\n", document.body])

    def shutdown(self) -> None:
        """The worker stops: the request under way is answered, and one that is about to arrive."""
        self._leaving = True
        if self._idle:
            self.loop.call_later(LAST_REQUEST_S, self._leave)
        else:
            super().shutdown()

    def _leave(self) -> None:
        if self._idle:
            self.transport.close()
