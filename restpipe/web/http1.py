"""One HTTP/1.1 connection: requests in, one at a time, each answered by the ASGI application.

Rules of the file:

1. `framing` checks each byte before anything is made of it. What it refuses is answered once, if no response
   to that request has begun, and the connection is over.
2. The next request begins when the one before is wholly done: its response, its task and its body. What a
   caller sends ahead (pipelining) waits, a bounded amount. So each request gets one response, in order, and a
   hang-up always belongs to the request that is being answered.
3. A caller that shuts down its sending side after a whole request still gets its response. A hang-up is a
   lost connection, or a request that ends in the middle.
4. No timer a request: each connection has a moment at which its patience ends (`until`), and
   `Connections.sweep` looks at all of them once a second.

The application finds the connection in the scope (`CONNECTION`), with `target`, `framing` and `body` of the
request. It sets `call`, which is told of a hang-up (`hang_up`) and of the end of the request (`end`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any, Final

from restpipe.errors import Code, Delivered, Reset, StreamReset
from restpipe.web import framing, responses
from restpipe.web.body import HIGH_WATER, RequestBody
from restpipe.web.call import Call
from restpipe.web.framing import Body, Framing, Malformed
from restpipe.web.patience import Stall, has_sent_more, is_hung_up, unsent
from restpipe.web.responding import KEEP_ALIVE_TOLD_S, ResponseWriter
from restpipe.web.responses import Document
from restpipe.web.serving import Serving

HEAD_TIMEOUT_S: Final = 30.0
"""For a new connection until the head of its first request begins, and for each head from then on."""
KEEP_ALIVE_S: Final = KEEP_ALIVE_TOLD_S + 10.0
"""Between two requests. Callers are told less, so that it is they who end the connection."""
LINGER_S: Final = 5.0
"""For more of a request that has its whole response, and for a caller to see the end of a response."""
MAX_LINGER_S: Final = 30.0
"""For all of the rest of such a request."""
LAST_REQUEST_S: Final = 0.3
"""A stopping worker still takes a request that was on its way over an idle connection."""
MAX_PENDING: Final = 65536
"""Bytes sent ahead before the caller is not read from."""

CONNECTION: Final = "restpipe.connection"
"""Key of the ASGI scope: the `HttpConnection` of the request."""

_SCOPE: Final[dict[str, Any]] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "scheme": "http",
    "root_path": "",
    "server": None,
    "client": None,
    # The application reads the target itself: parsers of URLs differ in what they make of odd ones.
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
}

_log = logging.getLogger(__name__)


class HttpConnection(asyncio.Protocol):
    """The server's end of one connection. Belongs to the thread of its loop."""

    __slots__ = (
        "_busy",
        "_deaf",
        "_follows",
        "_half_closed",
        "_head_begun",
        "_lingers_until",
        "_lost",
        "_on_lost",
        "_on_made",
        "_pending",
        "_reading",
        "_send",
        "_serving",
        "_stall",
        "_task",
        "_transport",
        "body",
        "call",
        "framing",
        "target",
        "until",
        "writer",
    )

    _transport: asyncio.Transport
    writer: ResponseWriter
    framing: Framing
    target: bytes

    def __init__(
        self,
        serving: Serving,
        on_made: Callable[[HttpConnection], Document | None],
        on_lost: Callable[[HttpConnection], None],
    ) -> None:
        """`on_made` is told when the transport is there: a refusal that it returns is all that is said."""
        self.body: RequestBody | None = None
        """The body of the request, if it has one."""
        self.call: Call | None = None
        """What the application does for the request."""
        self.until = serving.now + HEAD_TIMEOUT_S
        """When patience with the caller ends."""
        self._serving = serving
        self._on_made = on_made
        self._on_lost = on_lost
        self._pending = b""
        """What has arrived and cannot be used yet: the start of a head, or what was sent ahead."""
        self._follows: Body | None = None
        """Where in the request's body the bytes that arrive stand; None if none are to come."""
        self._task: asyncio.Task[None] | None = None
        self._busy = False
        """A request is being answered."""
        self._head_begun = False
        self._lingers_until = 0.0
        """When the rest of a request is waited for no longer, however it comes."""
        self._reading = True
        self._deaf = False
        """What arrives is dropped: the connection is about to be closed."""
        self._half_closed = False
        """The caller has shut down its sending side, and waits for its response."""
        self._lost = False
        self._stall = Stall()

    # The transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.writer = ResponseWriter(transport, self._serving)
        self._send = self.writer.send
        refusal = self._on_made(self)
        if refusal is not None:
            self._respond(refusal)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._deaf = True
        self._pending = b""
        self.writer.lose()
        self._on_lost(self)
        self._hang_up()

    def _hang_up(self) -> None:
        if self.call is not None:
            self.call.hang_up()
        if self.body is not None:
            self.body.fail(Reset(Code.CANCELLED, "the caller hung up while sending the body"))

    def eof_received(self) -> bool:
        """Return whether to keep the connection, to send the response."""
        if self._deaf or not self._busy or self._follows is not None or is_hung_up(self._transport):
            return False
        self._half_closed = True
        return True

    def pause_writing(self) -> None:
        self.writer.pause()

    def resume_writing(self) -> None:
        self.writer.resume()

    # Bytes in.

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._go_on_lingering()
        if self._pending:
            data, self._pending = self._pending + data, b""
        try:
            while data and not self._deaf:
                data = self._take_body(self._follows, data) if self._follows else self._take_head(data)
        except Malformed as fault:
            self._refuse(fault)

    def _take_body(self, follows: Body, data: bytes) -> bytes:
        body = self.body
        if body is None or body.failure is not None:
            taken = follows.take(data, [])
        else:
            taken = follows.take(data, body.arrived)
            body.buffered += taken
            body.ended = follows.done
            body.wake()
            if body.buffered > HIGH_WATER:
                self._pause_reading()
        if follows.done:
            self._follows = None
            if not self._busy:
                self._end_request()
        elif not self._busy:
            self._go_on_lingering()
        return data[taken:] if taken < len(data) else b""

    def _take_head(self, data: bytes) -> bytes:
        if self._busy:
            return self._hold(data)
        if data[0] == 13:
            data = framing.skip_blank_lines(data)
            if data in (b"", b"\r"):
                # An empty line, or half of one, is no head that has begun.
                return self._hold(data)
        size = framing.head_size(data)
        if not size:
            if not self._head_begun:
                self._head_begun = True
                self.until = self._serving.now + HEAD_TIMEOUT_S
            return self._hold(data)
        self._begin(data[:size] if size < len(data) else data)
        return data[size:]

    def _hold(self, data: bytes) -> bytes:
        self._pending = data
        if len(data) > MAX_PENDING:
            self._pause_reading()
        return b""

    def _pause_reading(self) -> None:
        if self._reading and not self._lost:
            self._reading = False
            self._transport.pause_reading()

    def _read_on(self) -> None:
        """Read from the caller again."""
        if not self._reading and not self._lost and len(self._pending) <= MAX_PENDING:
            self._reading = True
            self._transport.resume_reading()

    # A request.

    def _begin(self, head: bytes) -> None:
        serving = self._serving
        verb, self.target, version, fields, framing_fields = framing.split_head(head)
        ends = self.framing = framing.decide(version, framing_fields)
        self._busy = True
        self._head_begun = False
        self.until = math.inf
        keep_alive = ends.persists and not serving.leaving
        if ends.length != 0:
            self._follows = framing.body_of(ends)
            self.body = RequestBody(ends.length, ask=self._continue_body, read_on=self._read_on)
            # A caller that is never told to continue may send its body, or a new request.
            keep_alive = keep_alive and not ends.expects_continue
        self.writer.begin(verb, http10=version == "1.0", keep_alive=keep_alive)
        scope = {
            **_SCOPE,
            "http_version": version,
            "method": verb.decode(),
            "headers": fields,
            CONNECTION: self,
        }
        self._task = serving.loop.create_task(self._answer(scope))

    async def _answer(self, scope: dict[str, Any]) -> None:
        try:
            await self._serving.app(scope, self._serving.receive, self._send)
        except StreamReset:
            # The application has said why its response broke off.
            self.break_off()
        except Exception:
            _log.exception("the web worker failed")
            if self.writer.started:
                self.break_off()
            else:
                self._respond(responses.of_problem(responses.INTERNAL, delivered=Delivered.UNKNOWN))
        finally:
            self._finish()

    def _continue_body(self) -> None:
        """The body is wanted: tell the caller, if it waits for that."""
        writer = self.writer
        if self.framing.expects_continue and not writer.started and not self._lost:
            writer.keep_alive = self.framing.persists and not self._serving.leaving
            if self._follows is not None and self.body is not None and not self.body.arrived:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Ends.

    def _finish(self) -> None:
        """The application is done with the request."""
        if self.call is not None:
            self.call.end()
            self.call = None
        if self.body is not None:
            self.body.close()
            self.body = None
        self._task = None
        self._busy = False
        if self._deaf:
            return
        if not self.writer.complete:
            self.break_off()
        elif self._follows is not None:
            self._linger()
        else:
            self._end_request()

    def _linger(self) -> None:
        """Take the rest of a body that the response did not wait for, so that the caller comes to read."""
        if self.writer.keep_alive:
            self._begin_lingering()
        else:
            self._shut_down()

    def _begin_lingering(self) -> None:
        now = self._serving.now
        self._lingers_until = now + MAX_LINGER_S
        self.until = now + LINGER_S
        self._read_on()

    def _go_on_lingering(self) -> None:
        """More of what is not wanted has come."""
        self.until = min(self._serving.now + LINGER_S, self._lingers_until)

    def _end_request(self) -> None:
        """Request and response are whole: what next?"""
        if not self.writer.keep_alive:
            self.close()
            return
        self.until = self._serving.now + KEEP_ALIVE_S
        if self._pending:
            data, self._pending = self._pending, b""
            self._read_on()
            self.data_received(data)
        if self._half_closed and not self._busy:
            self.close()
        elif self._serving.leaving:
            self.leave()

    def break_off(self) -> None:
        """End a response that cannot be finished, so that it does not look whole."""
        if not self._lost:
            self.writer.flush()
        self.close()

    def close(self) -> None:
        """Close when what has been written is sent."""
        self._deaf = True
        self.writer.lose()
        self.until = math.inf
        if not self._lost:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._deaf = True
        self.writer.lose()
        if not self._lost:
            self._transport.abort()

    def _shut_down(self) -> None:
        """Say that nothing more will be sent, and drop what comes until the caller closes, for a while.

        Closed at once, the connection would take the response from a caller that still writes.
        """
        self._deaf = True
        self._pending = b""
        self.writer.lose()
        self._begin_lingering()
        if not self._lost and not self._transport.is_closing():
            self._transport.write_eof()

    def _refuse(self, fault: Malformed) -> None:
        _log.info("refused a malformed request: %s", fault.detail)
        answer = not self.writer.started if self._busy else self._follows is None
        self._follows = None
        if answer:
            self._respond(responses.of_problem(fault.problem, fault.detail))
        self._shut_down()
        self._hang_up()

    def _respond(self, document: Document) -> None:
        """Answer without the application, and for the last time."""
        if not self._busy:
            self.writer.begin(b"", http10=False, keep_alive=False)
        self.writer.send_document(document)

    def leave(self) -> None:
        """The worker stops: answer the request in flight, and one that is about to arrive, then close."""
        if not self._busy:
            self._serving.loop.call_later(LAST_REQUEST_S, self._close_if_idle)
        elif not self.writer.started:
            self.writer.keep_alive = False

    def _close_if_idle(self) -> None:
        if self._busy or self._deaf:
            return
        if self._head_begun or has_sent_more(self._transport):
            # A request is on its way.
            self._serving.loop.call_later(LAST_REQUEST_S, self._close_if_idle)
        else:
            self.close()

    # What the sweep asks.

    @property
    def idle(self) -> bool:
        """No request is in flight. The start of one does not count."""
        return not self._busy and self._follows is None and not self._deaf

    def check(self, now: float) -> None:
        """Give up a caller that is too slow, or gone. To be called about once a second."""
        if now >= self.until:
            self._time_out()
        elif not self._lost and (
            self._stall.lasts(unsent(self._transport), now)
            # Where the loop does not read, it does not see a hang-up.
            or ((self._half_closed or not self._reading) and is_hung_up(self._transport))
        ):
            self.abort()

    def _time_out(self) -> None:
        if not self._deaf and self._follows is None and self._head_begun:
            detail = f"the head of a request must be whole after {HEAD_TIMEOUT_S:g} s"
            self._respond(responses.of_problem(responses.HEAD_TOO_SLOW, detail))
            self._shut_down()
        elif not self.idle or not has_sent_more(self._transport):
            self.close()
