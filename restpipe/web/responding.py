"""The responses of one HTTP connection, one after the other: heads, bodies, and when the caller must read."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from restpipe.http import BODILESS
from restpipe.web.responses import Document
from restpipe.web.serving import Serving

JOINED: Final = 16384
"""Bytes up to which pieces are joined into one: beyond it, copying costs more than another buffer."""

KEEP_ALIVE_TOLD_S: Final = 300
"""What callers are told of how long an idle connection is kept: longer than clients usually keep it."""

_KEPT: Final = b"keep-alive: timeout=%d\r\nconnection: keep-alive\r\n\r\n" % KEEP_ALIVE_TOLD_S
_CLOSED: Final = b"connection: close\r\n\r\n"
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class ResponseWriter:
    """The responses of one connection. `begin` precedes each, and `send` is ASGI's.

    The head is held back until the first of the body is there, so that both leave together; `flush` sends it
    alone. What `send` returns is done at once, unless the caller must read first.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_drained",
        "_head",
        "_http10",
        "_left",
        "_serving",
        "_transport",
        "complete",
        "keep_alive",
        "lost",
        "started",
    )

    def __init__(self, transport: asyncio.Transport, serving: Serving) -> None:
        self.started = True
        """The head of the response has been given to `send`."""
        self.complete = True
        """All of the response has been given to `send`."""
        self.keep_alive = True
        """The connection can carry another request after this response."""
        self.lost = False
        """There is no connection to write to: what is sent is dropped."""
        self._transport = transport
        self._serving = serving
        self._drained: asyncio.Future[None] | None = None
        """What a full `send` waits for; None while the caller reads as fast as it is written to."""
        self._head: dict[str, Any] | None = None
        """The start of the response, held back."""
        self._http10 = False
        self._bodiless = False
        self._chunked = False
        self._left: int | None = None
        """Bytes of body still to come; None if its end is marked in another way."""

    def begin(self, verb: bytes, *, http10: bool, keep_alive: bool) -> None:
        """A response to a request with this verb comes next."""
        self.started = self.complete = False
        self.keep_alive = keep_alive
        self._http10 = http10
        self._bodiless = verb == b"HEAD"

    def send(self, message: dict[str, Any]) -> asyncio.Future[None]:
        """Take the start or a piece of the response (ASGI); wait for what is returned before the next."""
        if message["type"] == "http.response.start":
            self.started = True
            self._head = message
        elif not self.complete:
            self._write(message.get("body", b""), last=not message.get("more_body", False))
        return self._drained or self._serving.done

    def send_document(self, document: Document) -> None:
        """Send all of the last response of the connection."""
        self.keep_alive = False
        fields = [(name.encode(), value.encode()) for name, value in document.headers]
        fields.append((b"content-length", b"%d" % len(document.body)))
        self.send({"type": "http.response.start", "status": document.status, "headers": fields})
        self.send({"type": "http.response.body", "body": document.body})

    def _encode_head(self, head: dict[str, Any]) -> bytes:
        status: int = head["status"]
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        parts = [line, self._serving.fields]
        length: int | None = None
        for name, value in head["headers"]:
            parts.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                length = int(value)
        self._bodiless = self._bodiless or status in BODILESS
        self._left = length
        self._chunked = False
        if length is None and not self._bodiless:
            self._frame(parts)
        parts.append(_KEPT if self.keep_alive else _CLOSED)
        return b"".join(parts)

    def _frame(self, parts: list[bytes]) -> None:
        """Settle where a body of unknown length ends (RFC 9112, section 6.3)."""
        if self._http10:
            self.keep_alive = False
        else:
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")

    def _write(self, body: bytes, *, last: bool) -> None:
        self.complete = last
        head = b""
        if self._head is not None:
            head = self._encode_head(self._head)
            self._head = None
        if self.lost:
            return
        if self._bodiless:
            body = b""
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (last and self._left):
                raise RuntimeError("the response is not as long as its Content-Length")
        if self._chunked:
            self._put_chunk(head, body, last=last)
        elif len(body) > JOINED:
            self._transport.writelines([head, body] if head else [body])
        elif data := head + body:
            self._transport.write(data)

    def _put_chunk(self, head: bytes, body: bytes, *, last: bool) -> None:
        after = b""
        if body:
            head += b"%x\r\n" % len(body)
            after = b"\r\n"
        if last:
            after += b"0\r\n\r\n"
        if len(body) > JOINED:
            self._transport.writelines([head, body, after])
        elif data := head + body + after:
            self._transport.write(data)

    def flush(self) -> None:
        """Send the head, if it is still held back."""
        if self._head is not None:
            self._write(b"", last=False)

    # What the transport tells.

    def pause(self) -> None:
        """Have `send` wait: the transport holds enough."""
        if self._drained is None and not self.lost:
            self._drained = self._serving.loop.create_future()

    def resume(self) -> None:
        """Let `send` go on."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def lose(self) -> None:
        """Drop all that is sent from now on: the connection is gone, or must not be written to any more."""
        self.lost = True
        self._head = None
        self.resume()
