"""For authors of event handlers: call a handler class without any process, socket or certificate.

    with PipeTester(MyHandler) as pipe:
        result = pipe.get("/cat//hello%20/world")
        assert result.json() == {"result": "hello world"}

Events take the way that they take in a handler worker, threads and limits included.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from restpipe.errors import Code, Delivered, Reset
from restpipe.handler.api import EventHandler
from restpipe.handler.context import Headers
from restpipe.handler.dispatch import Dispatcher
from restpipe.handler.hooks import call_hook
from restpipe.handler.registry import Registry
from restpipe.host.stats import Stats
from restpipe.protocol.frames import MAX_BODY, FrameDecoder
from restpipe.protocol.schema_pb2 import Event, Origin
from restpipe.protocol.session import Session
from restpipe.protocol.stream import Stream
from restpipe.transport.exchange import Exchange
from restpipe.web import responses


class Result:
    """What a caller would have got."""

    def __init__(
        self, status: int, code: int | None, headers: Headers, data: bytes, failure: Reset | None
    ) -> None:
        self.status = status
        """HTTP status."""
        self.status_code = status
        """The same under the name that requests and httpx use: `raise_for_exception` takes a result, too."""
        self.code = code
        """`X-Event-Return-Code`; None if no handler answered."""
        self.headers = headers
        self.data = data
        self.failure = failure
        """Why no handler answered, or why its body broke off."""

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "")

    @property
    def text(self) -> str:
        return self.data.decode("utf-8")

    def json(self) -> Any:
        return json.loads(self.data)

    def __repr__(self) -> str:
        return f"<Result {self.status}, code {self.code}, {len(self.data)} bytes>"


class PipeTester:
    """Sends events to one handler object. Not to be used inside a running event loop.

    `start_hook` runs before the first event, `stop_hook` on `close` (or at the end of a `with` block).
    Calls wait for the whole answer; in between, nothing that the handler left running on its loop goes on.
    """

    def __init__(
        self,
        handler: type[EventHandler] | EventHandler,
        *,
        peer: str = "tester",
        address: tuple[str, int] = ("127.0.0.1", 40000),
        threads: int = 4,
        concurrency: int = 16,
        max_body_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self.handler = handler() if isinstance(handler, type) else handler
        self._origin = Origin(peer=peer, address=address[0], port=address[1])
        self._threads = threads
        self._concurrency = concurrency
        self._max_body_bytes = max_body_bytes
        self._runner: asyncio.Runner | None = None
        self._dispatcher: Dispatcher | None = None

    def __enter__(self) -> PipeTester:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Runs `stop_hook` and lets everything go. Idempotent."""
        if self._runner is not None and self._dispatcher is not None:
            self._runner.run(self._stop(self._dispatcher))
            self._runner.close()
        self._runner = self._dispatcher = None

    def get(self, target: str, **options: Any) -> Result:
        """For the options see `send`."""
        return self.send("GET", target, **options)

    def head(self, target: str, **options: Any) -> Result:
        return self.send("HEAD", target, **options)

    def post(self, target: str, **options: Any) -> Result:
        return self.send("POST", target, **options)

    def put(self, target: str, **options: Any) -> Result:
        return self.send("PUT", target, **options)

    def patch(self, target: str, **options: Any) -> Result:
        return self.send("PATCH", target, **options)

    def delete(self, target: str, **options: Any) -> Result:
        return self.send("DELETE", target, **options)

    def options(self, target: str, **options: Any) -> Result:
        return self.send("OPTIONS", target, **options)

    def send(
        self,
        verb: str,
        target: str,
        *,
        data: bytes | str = b"",
        json: Any = None,
        content_type: str = "",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        timeout_s: float = 30.0,
        cancel_after_s: float | None = None,
    ) -> Result:
        """One event, and its whole answer.

        `target` is noun, arguments and query as in a request line, percent-encoded. `json` is encoded and
        takes the place of `data`. With `cancel_after_s` the caller hangs up after that time.
        """
        body, kind = _encode(data, json, content_type)
        event = Event(
            id=secrets.token_bytes(16),
            verb=verb.upper(),
            target=target,
            content_type=kind,
            timeout_ms=int(timeout_s * 1000),
            body_length=len(body),
        )
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            event.headers.add(name=name, value=value)
        return self._running().run(self._exchange(event, body, cancel_after_s))

    # In the loop.

    def _running(self) -> asyncio.Runner:
        if self._runner is None:
            if _inside_a_loop():
                raise RuntimeError("a PipeTester cannot be used inside a running event loop")
            self._runner = asyncio.Runner()
            self._dispatcher = self._runner.run(self._start())
        return self._runner

    async def _start(self) -> Dispatcher:
        dispatcher = Dispatcher(
            Registry.of(self.handler),
            threads=self._threads,
            concurrency=self._concurrency,
            max_body_bytes=self._max_body_bytes,
            stats=Stats.off(),
        )
        await call_hook(self.handler.start_hook, (), dispatcher.pool.run)
        return dispatcher

    async def _stop(self, dispatcher: Dispatcher) -> None:
        await call_hook(self.handler.stop_hook, (), dispatcher.pool.run)
        await dispatcher.close()

    async def _exchange(self, event: Event, body: bytes, cancel_after_s: float | None) -> Result:
        assert self._dispatcher is not None  # noqa: S101 - for the type checker
        exchange = MemoryExchange(event, self._origin, body)
        if cancel_after_s is not None:
            asyncio.get_running_loop().call_later(cancel_after_s, exchange.hang_up)
        self._dispatcher.take(exchange)
        await self._dispatcher.wait_idle()
        return exchange.result()


_NUMBER = 2
"""Of the only stream in the sessions of a `MemoryExchange`."""


class MemoryExchange(Exchange):
    """An event and its reply without a link: each frame is at the other end, which is here too, at once.

    To be made in a running loop. With `paused` the caller does nothing after it has sent the event, with at
    most 64 KiB of its body, until `resume`.
    """

    __slots__ = ("__weakref__", "caller")

    def __init__(self, event: Event, origin: Origin, body: bytes, *, paused: bool = False) -> None:
        session, others = Session(b"", 0), Session(b"", 0)
        super().__init__(
            session,
            _NUMBER,
            event,
            loop=asyncio.get_running_loop(),
            origin=origin,
            forget=lambda _: None,
        )
        self.caller = caller = _Caller(others, event, body[MAX_BODY:], paused=paused)
        first = body[:MAX_BODY]
        caller.sent_with_opening(len(first))
        self.receive_body(first, time.monotonic(), end=len(body) <= MAX_BODY)
        # What one of them keeps alive of the other must not lead back.
        answering = weakref.ref(self)
        session.attach(lambda: _carry(session, caller))
        others.attach(lambda: _carry(others, answering()))
        caller.go_on()

    @property
    def data(self) -> bytes:
        """What the caller has read of the reply's body."""
        return bytes(self.caller.data)

    def resume(self) -> None:
        """Have a caller that pauses send the rest of its body and read the reply."""
        self.caller.paused = False
        self.caller.go_on()

    def hang_up(self) -> None:
        """The caller leaves."""
        self.caller.reset(Code.CANCELLED, "the caller hung up")

    def result(self) -> Result:
        """Return what came back, as the web worker would tell it."""
        caller = self.caller
        reply, failure = caller.reply, caller.failure
        if reply is not None:
            try:
                head = responses.of_reply(reply)
            except responses.BadReply as fault:
                failure = Reset(Code.BAD_MESSAGE, str(fault), Delivered.YES)
            else:
                return Result(head.status, reply.code, Headers(head.headers), self.data, failure)
        failure = failure or Reset(Code.UNSPECIFIED)
        document = responses.of_failure(failure, self.event.id)
        return Result(document.status, None, Headers(document.headers), document.body, failure)


class _Caller(Stream):
    """The other end of a `MemoryExchange`: sends its body as credit allows, and reads what comes."""

    __slots__ = ("_rest", "data", "paused")

    def __init__(self, session: Session, event: Event, rest: bytes, *, paused: bool) -> None:
        super().__init__(session, _NUMBER, event)
        self.data = bytearray()
        self.paused = paused
        self._rest = rest

    def go_on(self) -> None:
        if self.paused:
            return
        while self._rest and self.room > 0 and not self.closed:
            piece, self._rest = self._rest[: self.room], self._rest[self.room :]
            self.send_data(piece, end=not self._rest)
        self.data += self.take_all(time.monotonic())

    def _readable(self) -> None:
        self.go_on()

    def _writable(self) -> None:
        self.go_on()

    def _over(self) -> None:
        self.go_on()


def _carry(session: Session, other: Stream | None) -> None:
    """Bring what a session has to send to the other end."""
    for encoded in session.take(MAX_BODY):
        for frame in FrameDecoder().feed(encoded):
            if other is not None:
                other.receive(frame, time.monotonic())


def _encode(data: bytes | str, document: Any, content_type: str) -> tuple[bytes, str]:
    if document is not None:
        return json.dumps(document).encode(), content_type or "application/json"
    if isinstance(data, str):
        return data.encode(), content_type or "text/plain; charset=utf-8"
    return data, content_type


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
