"""The tester for authors of event handlers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from restpipe import Context, EventHandler
from restpipe.errors import Code, Delivered, Reset
from restpipe.protocol.schema_pb2 import Event, Header, Origin, Reply
from restpipe.testing import MemoryExchange, PipeTester, Result
from restpipe.web import responses


class Handler(EventHandler):
    def __init__(self) -> None:
        self.calls: list[str] = []

    async def start_hook(self) -> None:
        self.calls.append("start")
        self.count = 0

    def stop_hook(self) -> None:
        self.calls.append("stop")

    async def get_count(self, ctx: Context, post_data: tuple[str, Any]) -> int:
        self.count += 1
        return self.count

    def post_echo(self, ctx: Context, post_data: tuple[str, Any], *args: str, **query: Any) -> Any:
        said = post_data[1].decode("latin-1") if isinstance(post_data[1], bytes) else post_data[1]
        return {"data": said, "mime": post_data[0], "args": args, "query": query, "h": dict(ctx.headers)}

    async def get_sleep(self, ctx: Context, post_data: tuple[str, Any]) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.calls.append("cancelled")
            raise

    async def get_stream(self, ctx: Context, post_data: tuple[str, Any]) -> AsyncIterator[bytes]:
        yield b"begun"
        await asyncio.sleep(60)


def test_hooks_run_once_around_all_events() -> None:
    with PipeTester(Handler) as pipe:
        handler = pipe.handler
        assert isinstance(handler, Handler)
        assert handler.calls == []
        assert pipe.get("/count").json() == 1
        assert pipe.get("/count").json() == 2
        assert handler.calls == ["start"]
    assert handler.calls == ["start", "stop"]
    pipe.close()
    assert handler.calls == ["start", "stop"]


def test_an_object_may_be_given() -> None:
    handler = Handler()
    with PipeTester(handler) as pipe:
        assert pipe.handler is handler
        assert pipe.get("/count").json() == 1


@pytest.mark.parametrize(
    ("options", "mime", "data"),
    [
        ({}, "", ""),
        ({"json": {"a": 1}}, "application/json", {"a": 1}),
        ({"json": 0}, "application/json", 0),
        ({"data": "text"}, "text/plain", "text"),
        ({"data": "a;b", "content_type": "text/csv"}, "text/csv", "a;b"),
        ({"data": b"\xff"}, "application/octet-stream", "\xff"),
    ],
)
def test_bodies(options: dict[str, Any], mime: str, data: Any) -> None:
    with PipeTester(Handler) as pipe:
        result = pipe.post("/echo//a%20b?x=1", headers={"X-One": "1"}, **options)
    said = result.json()
    assert (said["mime"], said["data"]) == (mime, data)
    assert (said["args"], said["query"]) == (["a b"], {"x": "1"})
    assert said["h"]["x-one"] == "1"
    assert result.status_code == result.status == 200
    assert result.code == 0
    assert result.content_type == "application/json"
    assert "200" in repr(result)


def test_a_caller_who_hangs_up() -> None:
    with PipeTester(Handler) as pipe:
        result = pipe.get("/sleep", cancel_after_s=0.001)
        assert isinstance(pipe.handler, Handler)
        assert "cancelled" in pipe.handler.calls
        assert result.failure is not None
        assert (result.code, result.failure.code) == (None, Code.CANCELLED)
        broken = pipe.get("/stream", cancel_after_s=0.05)
        assert broken.failure is not None


def test_a_deadline() -> None:
    with PipeTester(Handler) as pipe:
        result = pipe.get("/sleep", timeout_s=0.001)
        assert (result.status, result.code) == (504, None)
        assert result.json()["delivered"] == Delivered.UNKNOWN.name.lower()


@pytest.mark.parametrize("code", list(Code))
@pytest.mark.parametrize("delivered", list(Delivered))
def test_failures_are_told_as_the_web_worker_tells_them(code: Code, delivered: Delivered) -> None:
    async def main() -> Result:
        exchange = MemoryExchange(Event(id=b"0" * 16, verb="GET", target="/x"), Origin(), b"")
        exchange.reset(code, "why", delivered)
        return exchange.result()

    result = asyncio.run(main())
    told = responses.of_failure(Reset(code, "why", delivered), b"0" * 16)
    assert (result.status, dict(result.headers), result.data) == (told.status, dict(told.headers), told.body)
    assert result.failure == Reset(code, "why", delivered)
    assert result.code is None


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(code=3, status=201, content_type="text/plain", body_length=1), 201),
        (Reply(status=204), 204),
        (Reply(headers=[Header(name="Server", value="mine"), Header(name="X-A", value="b")]), 200),
        (Reply(headers=[Header(name="X A", value="b")]), 502),
        (Reply(status=99), 502),
    ],
)
def test_replies_are_told_as_the_web_worker_tells_them(reply: Reply, status: int) -> None:
    async def main() -> Result:
        exchange = MemoryExchange(Event(id=b"0" * 16, verb="GET", target="/x"), Origin(), b"")
        exchange.start_reply(reply.SerializeToString(), b"x" if reply.body_length else b"", end=True)
        return exchange.result()

    result = asyncio.run(main())
    assert result.status == status
    if status == 502:
        assert result.json()["type"].endswith(":bad-message")
        assert (result.code, result.json()["delivered"]) == (None, "yes")
    else:
        assert dict(result.headers) == dict(responses.of_reply(reply).headers)


def test_the_caller_of_an_exchange_in_memory_may_pause() -> None:
    async def main() -> None:
        size = 3 * 65536
        exchange = MemoryExchange(
            Event(id=b"0" * 16, verb="PUT", target="/x"), Origin(), b"x" * size, paused=True
        )
        assert (len(exchange.take()), exchange.whole) == (65536, False)
        exchange.start_reply(b"", b"y" * 65536, end=False)
        writing = asyncio.ensure_future(exchange.write(b"y" * size, end=True))
        await asyncio.sleep(0)
        assert (writing.done(), exchange.data) == (False, b"")
        exchange.resume()
        await writing
        assert exchange.data == b"y" * (65536 + size)
        assert exchange.closed

    asyncio.run(main())


def test_nothing_is_left_running() -> None:
    before = set(threading.enumerate())
    with PipeTester(Handler) as pipe:
        pipe.post("/echo")
        threads = set(threading.enumerate()) - before
        assert threads
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_inside_a_running_loop_it_says_so() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="running event loop"):
            PipeTester(Handler).get("/count")

    asyncio.run(main())
