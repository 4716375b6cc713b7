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
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from restpipe.errors import PROBLEMS, Code, Delivered, StreamReset
from restpipe.handler.api import EventHandler
from restpipe.handler.context import Headers
from restpipe.handler.dispatch import Dispatcher
from restpipe.handler.hooks import call_hook
from restpipe.handler.registry import Registry
from restpipe.host.stats import Stats
from restpipe.protocol.frames import MAX_BODY
from restpipe.protocol.schema_pb2 import Event, Origin, Reply


class Result:
    """What a caller would have got."""

    def __init__(
        self, status: int, code: int | None, headers: Headers, data: bytes, failure: StreamReset | None
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
        await call_hook(self.handler.start_hook, (), dispatcher.run_in_thread)
        return dispatcher

    async def _stop(self, dispatcher: Dispatcher) -> None:
        await call_hook(self.handler.stop_hook, (), dispatcher.run_in_thread)
        await dispatcher.close()

    async def _exchange(self, event: Event, body: bytes, cancel_after_s: float | None) -> Result:
        assert self._dispatcher is not None  # noqa: S101 - for the type checker
        exchange = MemoryExchange(event, self._origin, body)
        if cancel_after_s is not None:
            asyncio.get_running_loop().call_later(cancel_after_s, exchange.hang_up)
        self._dispatcher.take(exchange)
        await self._dispatcher.wait_idle()
        return exchange.result()


class MemoryExchange:
    """An event and its reply, kept in memory: stands in for restpipe.transport.exchange.Exchange."""

    def __init__(self, event: Event, origin: Origin, body: bytes) -> None:
        self.event = event
        self.origin: Origin | None = origin
        self.closed = False
        self._pieces = [body[at : at + MAX_BODY] for at in range(0, len(body), MAX_BODY)]
        self._reply: Reply | None = None
        self.data = bytearray()
        self.failure: StreamReset | None = None
        self._on_reset: Callable[[StreamReset], None] | None = None

    async def read(self) -> bytes:
        if self.failure is not None:
            raise self.failure
        return self._pieces.pop(0) if self._pieces else b""

    async def write(self, data: bytes, *, end: bool = False) -> None:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.data += data
        if end:
            self.closed = True

    def start_reply(self, reply: Reply, body: bytes = b"", *, end: bool) -> None:
        if self.failure is not None:
            raise self.failure
        self._reply = reply
        self.data += body
        if end:
            self.closed = True

    def reset(self, code: Code, detail: str = "", delivered: Delivered = Delivered.UNKNOWN) -> None:
        if not self.closed:
            self.failure = StreamReset(code, detail, delivered)
            self.closed = True

    def on_reset(self, callback: Callable[[StreamReset], None]) -> None:
        self._on_reset = callback

    def hang_up(self) -> None:
        """The caller leaves."""
        if not self.closed:
            self.reset(Code.CANCELLED, "the caller hung up")
            if self._on_reset is not None and self.failure is not None:
                self._on_reset(self.failure)

    def result(self) -> Result:
        """What came back."""
        if self._reply is None:
            return self._problem()
        reply = self._reply
        headers = [(header.name, header.value) for header in reply.headers]
        if reply.content_type:
            headers.append(("content-type", reply.content_type))
        if reply.HasField("body_length"):
            headers.append(("content-length", str(reply.body_length)))
        headers.append(("x-event-return-code", str(reply.code)))
        return Result(reply.status, reply.code, Headers(headers), bytes(self.data), self.failure)

    def _problem(self) -> Result:
        failure = self.failure or StreamReset(Code.UNSPECIFIED)
        problem = PROBLEMS.get(failure.code)
        status = problem.status if problem else 499
        document = {"status": status, "title": problem.title if problem else failure.code.name}
        document |= {"detail": failure.detail, "delivered": failure.delivered.name.lower()}
        headers = Headers([("content-type", "application/problem+json")])
        return Result(status, None, headers, json.dumps(document).encode(), failure)


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
