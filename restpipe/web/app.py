"""The Falcon application of a web worker: HTTP requests in, events out, their replies back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import falcon
import falcon.asgi

from restpipe.errors import Code, Delivered, StreamReset
from restpipe.host import stats
from restpipe.host.config import Role, Web
from restpipe.host.limits import Budget
from restpipe.protocol.schema_pb2 import Reply
from restpipe.web import events, paths, prefer, replies, resend, responses
from restpipe.web.call import Call, HttpConnection
from restpipe.web.paths import BadTarget, Destination, UnknownPath
from restpipe.web.responses import BadReply, Document
from restpipe.web.sender import Link, Sending
from restpipe.web.strict import CONNECTION
from restpipe.web.upload import Receive, Upload

CALL = "restpipe.call"
"""Key of the ASGI scope: the `Call` under way."""

KEPT_BODIES = 64
"""Of the largest size that is kept; many more of usual size. What finds no room is sent, but not again."""

_EMPTY_BODY = {"type": "http.request", "body": b"", "more_body": False}

_log = logging.getLogger(__name__)

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Statistics(Protocol):
    """What is needed of `restpipe.host.stats.Stats`."""

    def tick(self, name: str, n: int = 1) -> None: ...
    def timing(self, name: str, seconds: float) -> None: ...


def build(role: Role, web: Web, link: Link, statistics: Statistics, lifespan: object | None = None) -> Asgi:
    """The whole ASGI application of one worker process.

    `lifespan` is Falcon middleware with `process_startup` and `process_shutdown`.
    """
    middleware: list[Any] = [lifespan] if lifespan else []
    app: Any = falcon.asgi.App(middleware=middleware)
    # A reply without a content type stays without one.
    app.resp_options.default_media_type = None
    app.add_sink(Events(role, web, link, statistics).answer, "/")
    app.add_error_handler(Exception, _answer_fault)
    app.add_error_handler(falcon.HTTPError, _answer_refusal)
    return Edge(app)


class Edge:
    """Around Falcon: ends without a further word what the caller left, or what cannot be finished.

    The body is read by the scope's `Call`, and only once it is wanted, so that whoever waits for
    `100 Continue` can be refused first. Falcon is shown an empty one.
    """

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection: HttpConnection = scope[CONNECTION]
        call = scope[CALL] = Call(connection, receive)
        try:
            await self._app(scope, _receive_nothing, send)
        except asyncio.CancelledError:
            if not call.over:
                raise
            _break_off(call, "it made no progress")
        except StreamReset as reset:
            _break_off(call, str(reset))
        finally:
            call.end()
            # The scope and the call hold each other; garbage of every request would wait for the collector.
            del scope[CALL]


async def _receive_nothing() -> dict[str, Any]:
    return _EMPTY_BODY


def _break_off(call: Call, reason: str) -> None:
    if call.hung_up:
        _log.debug("event %s: the caller hung up", call.event_id.hex())
    else:
        _log.warning("event %s: the response broke off: %s", call.event_id.hex(), reason)
    call.connection.break_off()


class Events:
    """Answers every request by an event's reply, or by a problem."""

    def __init__(self, role: Role, web: Web, link: Link, statistics: Statistics) -> None:
        self._role = role
        self._web = web
        self._link = link
        self._statistics = statistics
        self._ids = events.EventIds()
        self._in_flight = 0
        self._room = Budget(KEPT_BODIES * web.keep_body_bytes)

    async def answer(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **_: object) -> None:
        """Falcon's sink for all paths."""
        call: Call = req.scope[CALL]
        destination = self._admit(req.method, call)
        if isinstance(destination, Document):
            _put_problem(resp, destination, call)
            return
        request = self._begin(req, destination, call)
        try:
            await self._exchange(request, resp, call)
        except StreamReset as reset:
            _forget_frames(reset)
            _put_problem(resp, responses.of_failure(reset, call.event_id), call)

    def _admit(self, verb: str, call: Call) -> Destination | Document:
        """Where the event goes, or why there will be none. Without waiting, and before any body is read."""
        if verb not in events.VERBS:
            return responses.of_problem(responses.UNKNOWN_VERB)
        try:
            destination = paths.parse(call.connection.target, self._role)
        except BadTarget as fault:
            return responses.of_problem(responses.MALFORMED, str(fault))
        except UnknownPath as fault:
            return responses.of_problem(responses.UNKNOWN_PATH, str(fault))
        web = self._web
        if (call.connection.framing.length or 0) > web.max_body_bytes:
            return _refusal(Code.BODY_TOO_LARGE, f"at most {web.max_body_bytes} bytes of body are taken")
        if self._in_flight >= web.max_in_flight:
            return _refusal(Code.OVERLOADED, f"{self._in_flight} requests are under way in this web worker")
        return destination

    def _begin(self, req: falcon.asgi.Request, destination: Destination, call: Call) -> events.Request:
        self._in_flight += 1
        call.on_end = self._end
        call.event_id = self._ids.next()
        length = call.connection.framing.length
        return events.of_request(call.event_id, req.method, destination, req.scope["headers"], length)

    def _end(self) -> None:
        self._in_flight -= 1

    async def _exchange(self, request: events.Request, resp: falcon.asgi.Response, call: Call) -> None:
        """Sends the event and puts its reply into `resp`; `StreamReset` when there is none."""
        web = self._web
        wait_s = web.wait_s
        if request.prefer:
            preferred_s = prefer.wait_s(request.prefer, web.max_wait_s)
            if preferred_s is not None:
                wait_s = preferred_s
                resp.set_header("preference-applied", prefer.applied(wait_s))
        event, framing = request.event, call.connection.framing
        sending = call.sending = Sending(
            self._link,
            event,
            Upload(call.receive, framing, most=web.max_body_bytes, keep=web.keep_body_bytes, room=self._room),
            repeatable=request.has_key or event.verb in resend.REPEATABLE,
            deadline=call.allow(wait_s),
            loop=call.loop,
        )
        self._statistics.tick(stats.SEND)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("event %s: %s %s to %r", call.event_id.hex(), event.verb, event.target, event.to)
        try:
            while not await self._put_answer(resp, sending, call, wait_s):
                call.allow(sending.remaining_s)
            sending.settle()
        except asyncio.CancelledError:
            if not call.survive():
                raise
            raise sending.expire() from None

    async def _put_answer(
        self, resp: falcon.asgi.Response, sending: Sending, call: Call, wait_s: float
    ) -> bool:
        """Whether it is there. If not, it broke off before the caller saw any of it, and another may come."""
        reply = await sending.reply()
        self._statistics.timing(stats.SEND_TIME, sending.age_s)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("event %s: %s after %.3f s", call.event_id.hex(), _in_short(reply), sending.age_s)
        try:
            await _put_reply(resp, reply, sending, call, wait_s)
        except StreamReset as reset:
            await sending.pause_after(reset)
            return False
        return True


def _forget_frames(error: BaseException | None) -> None:
    """The frames that an error went through hold it and the whole request: where very many are refused,
    all that would pile up until the collector comes.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


async def _put_reply(
    resp: falcon.asgi.Response, reply: Reply, sending: Sending, call: Call, idle_s: float
) -> None:
    try:
        head = responses.of_reply(reply)
    except BadReply as fault:
        raise StreamReset(Code.BAD_MESSAGE, str(fault), Delivered.YES) from None
    await _put_body(resp, reply, head.status, sending, call, idle_s)
    resp.status = head.status
    for name, value in head.headers:
        resp.append_header(name, value)


async def _put_body(
    resp: falcon.asgi.Response, reply: Reply, status: int, sending: Sending, call: Call, idle_s: float
) -> None:
    exchange = sending.exchange
    length = reply.body_length if reply.HasField("body_length") else None
    if exchange is None or status in responses.BODILESS:
        resp.data = b""
        return
    if sending.verb != "HEAD" and replies.is_short(exchange, length):
        if not exchange.closed:
            call.allow(idle_s)
        resp.data = await replies.whole_body(exchange, length)
        return
    # For HEAD, Falcon takes the presence of a stream as a sign to leave Content-Length alone.
    resp.stream = replies.ReplyBody(exchange, length, call, idle_s)


def _in_short(reply: Reply) -> str:
    return f"code {reply.code}, HTTP status {reply.status or 200}, {reply.content_type or 'no type'}"


def _refusal(code: Code, detail: str) -> Document:
    return responses.of_failure(StreamReset(code, detail, Delivered.NO))


def _put_problem(resp: falcon.asgi.Response, document: Document, call: Call) -> None:
    resp.status = document.status
    resp.data = document.body
    for name, value in document.headers:
        resp.set_header(name, value)
    if call.connection.framing.expects_continue:
        # A caller that was never told to continue may send its body, or a new request: nobody can tell.
        resp.set_header("connection", "close")


async def _answer_fault(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, fault: Exception, params: object, **_: object
) -> None:
    """A fault of the web worker itself."""
    call: Call = req.scope[CALL]
    _log.error("event %s: the web worker failed", call.event_id.hex(), exc_info=fault)
    delivered = Delivered.UNKNOWN if call.event_id else Delivered.NO
    document = responses.of_problem(responses.INTERNAL, delivered=delivered, event_id=call.event_id)
    _put_problem(resp, document, call)


async def _answer_refusal(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, fault: falcon.HTTPError, params: object, **_: object
) -> None:
    """What Falcon does not even hand to the sink: verbs that it does not know."""
    _put_problem(resp, responses.of_problem(responses.UNKNOWN_VERB), req.scope[CALL])
