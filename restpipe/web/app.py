"""The Falcon application of a web worker: HTTP requests in, events out, their replies back.

Falcon is shown the verb and the headers of a request. The connection has refused what is malformed, and the
body is read by the request's `Call`, only once it is wanted.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import falcon
import falcon.asgi

from restpipe.errors import Code, Delivered, Reset
from restpipe.host import stats
from restpipe.host.config import Role, Web
from restpipe.host.limits import Budget
from restpipe.host.stats import Stats
from restpipe.http import REPEATABLE
from restpipe.transport.daemon_link import DaemonLink
from restpipe.transport.timer import DeadlineQueue
from restpipe.web import events, paths, prefer, responses
from restpipe.web.call import Call, Outgoing
from restpipe.web.http1 import CONNECTION, HttpConnection
from restpipe.web.paths import BadTarget, Destination, UnknownPath
from restpipe.web.places import Places
from restpipe.web.responses import Document
from restpipe.web.serving import Asgi

KEPT_BODIES: Final = 64
"""Budget for kept bodies, in bodies of the largest size kept. A body that does not fit is sent once only."""

_log = logging.getLogger(__name__)


def build(role: Role, web: Web, link: DaemonLink, statistics: Stats) -> Asgi:
    """Return the whole ASGI application of one worker process. To be called in its loop."""
    app: Any = falcon.asgi.App()
    # A reply without a content type stays without one.
    app.resp_options.default_media_type = None
    app.add_sink(Events(role, web, link, statistics).answer, "/")
    app.add_error_handler(Exception, _answer_fault)
    asgi: Asgi = app
    return asgi


class Events:
    """Answers every request by an event's reply, or by a problem."""

    def __init__(self, role: Role, web: Web, link: DaemonLink, statistics: Stats) -> None:
        loop = asyncio.get_running_loop()
        self._role = role
        self._web = web
        self._ids = events.EventIds()
        self._outgoing = Outgoing(
            web=web,
            link=link,
            statistics=statistics,
            deadlines=DeadlineQueue(loop, Call.check_deadline),
            places=Places(web.max_in_flight),
            room=Budget(KEPT_BODIES * web.keep_body_bytes),
            loop=loop,
            debug=_log.isEnabledFor(logging.DEBUG),
        )

    async def answer(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **_: object) -> None:
        """Answer any request: Falcon's sink for all paths."""
        connection: HttpConnection = req.scope[CONNECTION]
        destination = self._admit(connection, req.method)
        if isinstance(destination, Document):
            _put_problem(resp, destination)
            return
        call = self._call(req, resp, connection, destination)
        failure = await call.exchange()
        if failure is not None:
            _put_problem(resp, responses.of_failure(failure, call.event.id))
            return
        resp.status = call.head.status
        if call.has_own_headers:
            for name, value in call.head.headers:
                resp.append_header(name, value)
        else:
            resp.set_headers(call.head.headers)
        if call.is_long:
            resp.stream = call
        else:
            resp.data = call.data

    def _admit(self, connection: HttpConnection, verb: str) -> Destination | Document:
        """Give the event a place and return where it goes, or why there is none. Before any body is read."""
        try:
            destination = paths.parse(connection.target, self._role)
        except BadTarget as fault:
            if connection.target == b"*" and verb == "OPTIONS":
                return responses.OF_THE_SERVER
            return responses.of_problem(responses.MALFORMED, str(fault))
        except UnknownPath as fault:
            return responses.of_problem(responses.UNKNOWN_PATH, str(fault))
        most = self._web.max_body_bytes
        if (connection.framing.length or 0) > most:
            return _refusal(Code.BODY_TOO_LARGE, f"at most {most} bytes of body are taken")
        no_place = self._outgoing.places.take(destination.to)
        return _refusal(Code.OVERLOADED, no_place) if no_place else destination

    def _call(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        connection: HttpConnection,
        destination: Destination,
    ) -> Call:
        length = connection.framing.length
        event, prefers, has_key = events.of_request(
            self._ids.next(), req.method, destination, req.scope["headers"], length
        )
        wait_s = self._web.wait_s
        if prefers:
            preferred_s = prefer.wait_s(prefers, self._web.max_wait_s)
            if preferred_s is not None:
                wait_s = preferred_s
                resp.set_header("preference-applied", prefer.applied(wait_s))
        repeatable = has_key or event.verb in REPEATABLE
        self._outgoing.statistics.tick(stats.SEND)
        if self._outgoing.debug:
            _log.debug("event %s: %s %s to %r", event.id.hex(), event.verb, event.target, event.to)
        call = connection.call = Call(
            self._outgoing,
            connection.writer,
            connection.body,
            event,
            repeatable=repeatable,
            wait_s=wait_s,
        )
        return call


def _put_problem(resp: falcon.asgi.Response, document: Document) -> None:
    resp.status = document.status
    resp.data = document.body
    for name, value in document.headers:
        resp.set_header(name, value)


def _refusal(code: Code, detail: str) -> Document:
    return responses.of_failure(Reset(code, detail, Delivered.NO))


async def _answer_fault(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, fault: Exception, params: object, **_: object
) -> None:
    """Answer for a fault of the web worker itself."""
    connection: HttpConnection = req.scope[CONNECTION]
    event_id = connection.call.event.id if connection.call is not None else b""
    _log.error("event %s: the web worker failed", event_id.hex(), exc_info=fault)
    delivered = Delivered.UNKNOWN if event_id else Delivered.NO
    _put_problem(resp, responses.of_problem(responses.INTERNAL, delivered=delivered, event_id=event_id))
