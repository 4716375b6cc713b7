"""An event from its target to its reply, through the dispatcher."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import gzip
import io
import json
import logging
import os
import re
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from restpipe import Context, EventError, EventHandler, Reply, streamed
from restpipe.errors import Code, Delivered, Reset
from restpipe.host.logs import BURST, FloodGuard
from restpipe.host.options import Statsd
from restpipe.host.stats import Stats
from restpipe.testing import PipeTester
from tests.support.conditions import wait_for
from tests.support.events import Ends

Run = Callable[[Awaitable[object]], object]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]
PostData = tuple[str, Any]
LARGE = 5 * 65536 + 7


ERRORS: dict[str, type[BaseException]] = {
    "ValueError": ValueError,
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "Cancelled": asyncio.CancelledError,
}


class BadlyClosed:
    """An async stream that raises when it is closed."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error
        self.pieces = [b"all"]

    def __aiter__(self) -> BadlyClosed:
        return self

    async def __anext__(self) -> bytes:
        if not self.pieces:
            raise StopAsyncIteration
        return self.pieces.pop()

    async def aclose(self) -> None:
        raise self.error("oh")


class Handler(EventHandler):
    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}
        self.gate = threading.Event()
        self.waiting = threading.Event()

    def get_context(self, ctx: Context, post_data: PostData, *arguments: str, **query: Any) -> Any:
        self.seen = {"ctx": ctx, "post_data": post_data, "arguments": arguments, "query": query}
        return {"thread": threading.get_ident()}

    post_context = put_context = delete_context = patch_context = get_context

    async def get_loop(self, ctx: Context, post_data: PostData) -> Any:
        await asyncio.sleep(0)
        return {"thread": threading.get_ident()}

    async def post_echo(self, ctx: Context, post_data: PostData) -> Any:
        return Reply(post_data[1], content_type=post_data[0])

    def get_awaitable(self, ctx: Context, post_data: PostData) -> Any:
        return self.get_loop(ctx, post_data)

    def get_large(self, ctx: Context, post_data: PostData) -> Any:
        return b"x" * LARGE

    def get_none(self, ctx: Context, post_data: PostData) -> None: ...

    def get_raise(self, ctx: Context, post_data: PostData, name: str) -> Any:
        raise {**ERRORS, "StopIteration": StopIteration}[name]("oh")

    async def post_raise(self, ctx: Context, post_data: PostData, name: str) -> Any:
        raise ERRORS[name]("oh")

    def get_broken_by(self, ctx: Context, post_data: PostData, after: str, name: str) -> Iterator[bytes]:
        for _ in range(int(after)):
            yield b"x" * 65536
        raise ERRORS[name]("oh")

    async def post_broken_by(
        self, ctx: Context, post_data: PostData, after: str, name: str
    ) -> AsyncIterator[bytes]:
        for _ in range(int(after)):
            yield b"x" * 65536
        raise ERRORS[name]("oh")

    async def get_badly_closed(self, ctx: Context, post_data: PostData, name: str) -> Any:
        return BadlyClosed(ERRORS[name])

    def get_chosen(self, ctx: Context, post_data: PostData) -> Any:
        raise EventError(17, "mine", status=409)

    def get_unsendable(self, ctx: Context, post_data: PostData) -> Any:
        return object()

    async def post_unsendable(self, ctx: Context, post_data: PostData) -> Any:
        return object()

    def get_generator(self, ctx: Context, post_data: PostData) -> Iterator[str]:
        for n in range(3):
            yield f"{n},"

    async def get_agenerator(self, ctx: Context, post_data: PostData) -> AsyncIterator[bytes]:
        for n in range(3):
            await asyncio.sleep(0)
            yield b"%d," % n

    def get_broken(self, ctx: Context, post_data: PostData, after: str) -> Iterator[bytes]:
        for _ in range(int(after)):
            yield b"x" * 65536
        raise ValueError("broken")

    def get_huge(self, ctx: Context, post_data: PostData) -> Any:
        return "application/x-huge", 4, iter([b"a" * LARGE, b"b"])

    def get_file(self, ctx: Context, post_data: PostData, name: str) -> Any:
        self.seen["file"] = open(name, "rb")  # noqa: SIM115, PTH123
        return self.seen["file"]

    def get_unpacked(self, ctx: Context, post_data: PostData) -> Any:
        return gzip.open(io.BytesIO(gzip.compress(b"0" * LARGE)))

    @streamed
    def put_upload(self, ctx: Context, post_data: PostData) -> Any:
        mime, reader = post_data
        return {"mime": mime, "first": reader.read(3).decode(), "size": 3 + sum(map(len, reader))}

    @streamed
    async def put_aupload(self, ctx: Context, post_data: PostData) -> Any:
        mime, reader = post_data
        first = await reader.read(3)
        return {
            "mime": mime,
            "first": first.decode(),
            "size": 3 + sum([len(piece) async for piece in reader]),
        }

    def get_block(self, ctx: Context, post_data: PostData) -> Any:
        self.seen["ctx"] = ctx
        self.waiting.set()
        self.gate.wait(10)

    async def get_sleep(self, ctx: Context, post_data: PostData) -> Any:
        self.seen["ctx"] = ctx
        self.waiting.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.seen["ended"] = sys.exc_info()[0]

    def get_endless(self, ctx: Context, post_data: PostData) -> Iterator[bytes]:
        try:
            while True:
                self.waiting.set()
                yield b"x" * 1000
        finally:
            self.seen["closed"] = True


@pytest.fixture
def pipe() -> Iterator[PipeTester]:
    with PipeTester(Handler(), peer="alpha", address=("192.0.2.7", 4711)) as tester:
        yield tester


def seen(pipe: PipeTester) -> dict[str, Any]:
    assert isinstance(pipe.handler, Handler)
    return pipe.handler.seen


def test_what_a_method_is_called_with(pipe: PipeTester) -> None:
    target = "/context//a%20b/%2F/?x=1&y=2&y=3"
    result = pipe.get(target, headers={"X-One": "1"}, timeout_s=20)
    assert (result.status, result.code) == (200, 0)
    got = seen(pipe)
    ctx = got["ctx"]
    assert got["arguments"] == ("a b", "/", "")
    assert got["query"] == ctx.query == {"x": "1", "y": ["2", "3"]}
    assert got["post_data"] == ("", "")
    assert (ctx.peer, ctx.participant_address) == ("alpha", ("192.0.2.7", 4711))
    assert (ctx.verb, ctx.target) == ("GET", target)
    assert len(bytes.fromhex(ctx.event_id)) == 16
    assert 0 < ctx.deadline.remaining_s <= 20
    assert ctx.headers["x-one"] == ctx.headers["X-ONE"] == "1"
    assert not ctx.cancelled


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH", "DELETE"])
def test_bodies_are_decoded(pipe: PipeTester, verb: str) -> None:
    pipe.send(verb, "/context", json={"a": [1]})
    assert seen(pipe)["post_data"] == ("application/json", {"a": [1]})
    pipe.send(verb, "/context", data="é")
    assert seen(pipe)["post_data"] == ("text/plain", "é")
    pipe.send(verb, "/context", data=b"\xff" * LARGE, content_type="image/png")
    assert seen(pipe)["post_data"] == ("image/png", b"\xff" * LARGE)
    assert seen(pipe)["ctx"].headers["Content-Type"] == "image/png"
    pipe.send(verb, "/context")
    assert seen(pipe)["post_data"] == ("", "")


def test_plain_methods_run_in_threads_and_async_ones_in_the_loop(pipe: PipeTester) -> None:
    assert pipe.get("/context").json()["thread"] != threading.get_ident()
    assert pipe.get("/loop").json()["thread"] == threading.get_ident()
    assert pipe.get("/awaitable").json()["thread"] == threading.get_ident()


def test_bodies_of_any_size_come_and_go(pipe: PipeTester) -> None:
    assert pipe.get("/large").data == b"x" * LARGE
    body = os.urandom(LARGE)
    assert pipe.post("/echo", data=body, content_type="a/b").data == body
    result = pipe.get("/none")
    assert (result.data, result.code, result.content_type) == (b"", 0, "")


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("GET", "ValueError"),
        ("GET", "SystemExit"),
        ("GET", "KeyboardInterrupt"),
        ("GET", "Cancelled"),
        ("GET", "StopIteration"),
        ("POST", "ValueError"),
        ("POST", "SystemExit"),
        ("POST", "KeyboardInterrupt"),
        ("POST", "Cancelled"),
    ],
)
def test_exceptions_are_answers(pipe: PipeTester, verb: str, name: str) -> None:
    result = pipe.send(verb, f"/raise//{name}")
    assert (result.status, result.code) == (500, 251)
    said = result.json()["exception"]
    assert name in said["class"]
    assert said["message"] == "oh"
    assert "test_handling.py" in said["traceback"]
    assert pipe.get("/none").code == 0


def test_authors_choose_the_code(pipe: PipeTester) -> None:
    result = pipe.get("/chosen")
    assert (result.status, result.code) == (409, 17)
    assert result.json()["exception"]["message"] == "mine"


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_what_cannot_be_sent_is_the_methods_fault(pipe: PipeTester, verb: str) -> None:
    result = pipe.send(verb, "/unsendable")
    assert (result.status, result.code) == (500, 251)
    assert result.json()["exception"]["class"] == "TypeError"


def test_what_http_does_not_allow_is_the_methods_fault() -> None:
    class Handler(EventHandler):
        def get_reset(self, ctx: Context, post_data: PostData) -> Any:
            return Reply({"lost": True}, status=205)

        async def get_date(self, ctx: Context, post_data: PostData) -> Any:
            return Reply("x", headers={"Date": "today"})

    with PipeTester(Handler) as pipe:
        for target, message in (
            ("/reset", "an answer of status 205 has no body"),
            ("/date", "the header Date cannot be set by a handler"),
        ):
            result = pipe.get(target)
            assert (result.status, result.code) == (500, 251)
            assert result.json()["exception"]["message"] == message


def test_unknown_nouns_and_verbs(pipe: PipeTester) -> None:
    for verb, target in (("GET", "/nothing"), ("POST", "/none"), ("TRACE", "/none"), ("GET", "/start_hook")):
        result = pipe.send(verb, target)
        assert (result.status, result.code) == (404, 255)
        assert result.json()["error"]["verb"] == verb


def test_who_asks_for_what_is_not_there_floods_no_log(
    pipe: PipeTester, caplog: pytest.LogCaptureFixture
) -> None:
    """Each line names another method, and all of them the peer: the lines of other peers are not left out."""
    guard = FloodGuard(lambda: 0.0)
    caplog.handler.addFilter(guard)
    try:
        for number in range(10 * BURST):
            assert pipe.get(f"/no/such/noun/{number}").code == 255
    finally:
        caplog.handler.removeFilter(guard)
    assert len(caplog.records) == BURST
    assert {vars(record)["peer"] for record in caplog.records} == {"alpha"}


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        ("/raise", "argument: 'name'"),
        ("/raise//a/b", "too many positional"),
        ("/none?x=1", "unexpected keyword"),
        ("/raise//a?name=b", "multiple values"),
        ("/context?ctx=b", "multiple values"),
        ("/none%zz", "percent-escape"),
    ],
)
def test_what_the_caller_got_wrong_reaches_no_method(pipe: PipeTester, target: str, detail: str) -> None:
    result = pipe.get(target)
    assert (result.status, result.code) == (400, None)
    assert detail in result.json()["detail"]
    assert result.failure is not None
    assert result.failure.delivered is Delivered.NO


def test_a_body_that_is_not_what_it_says(pipe: PipeTester) -> None:
    for target in ("/context", "/echo"):
        result = pipe.post(target, data=b"{", content_type="application/json")
        assert result.status == 400
    large = b"[" + b"1," * 200_000
    assert pipe.post("/echo", data=large, content_type="application/json").status == 400


def test_a_body_over_the_limit_is_refused_unless_it_is_streamed() -> None:
    with PipeTester(Handler, max_body_bytes=100_000) as pipe:
        assert pipe.post("/echo", data=b"x" * 100_000).status == 200
        result = pipe.post("/echo", data=b"x" * 100_001)
        assert (result.status, result.code) == (413, None)
        for target in ("/upload", "/aupload"):
            result = pipe.put(target, data=b"abc" + b"x" * LARGE, content_type="a/b; c=d")
            assert result.json() == {"mime": "a/b", "first": "abc", "size": 3 + LARGE}


@pytest.mark.parametrize("target", ["/upload", "/aupload"])
def test_a_streamed_method_without_a_body_has_no_mime_type(pipe: PipeTester, target: str) -> None:
    assert pipe.put(target).json() == {"mime": "", "first": "", "size": 3}
    untyped = pipe.put(target, data=b"abcd").json()
    assert untyped == {"mime": "application/octet-stream", "first": "abc", "size": 4}


def test_head_is_get_without_the_body(pipe: PipeTester) -> None:
    for noun, length in (("large", LARGE), ("none", 0)):
        result = pipe.head(f"/{noun}")
        assert (result.status, result.code, result.data) == (200, 0, b"")
        assert result.headers["content-length"] == str(length)
    assert pipe.head("/generator").data == b""
    assert pipe.head("/raise//ValueError").code == 251


def test_head_of_a_stream_takes_nothing_from_it(pipe: PipeTester, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    result = pipe.head(f"/file//{str(path).replace('/', '%2F')}")
    assert (result.headers["content-length"], result.data) == ("10", b"")
    pipe.close()


def test_options_are_answered_from_the_registry(pipe: PipeTester) -> None:
    result = pipe.options("/context")
    assert (result.status, result.code, result.data) == (204, 0, b"")
    assert result.headers["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    assert pipe.options("/nothing").status == 404


def test_streams(pipe: PipeTester, tmp_path: Path) -> None:
    assert pipe.get("/generator").data == b"0,1,2,"
    assert pipe.get("/agenerator").data == b"0,1,2,"
    huge = pipe.get("/huge")
    assert (huge.data, huge.code, huge.content_type) == (b"a" * LARGE + b"b", 4, "application/x-huge")
    assert "content-length" not in huge.headers
    path = tmp_path / "file"
    for content in (os.urandom(LARGE), b"x", b""):
        path.write_bytes(content)
        result = pipe.get(f"/file//{str(path).replace('/', '%2F')}")
        assert result.data == content
        assert result.headers["content-length"] == str(len(content))
        # By its thread, when the last byte has already gone out.
        wait_for(lambda: seen(pipe)["file"].closed, "the file is closed")
    assert pipe.get("/unpacked").data == b"0" * LARGE


def test_a_stream_that_fails_before_its_first_byte_is_answered(
    pipe: PipeTester, caplog: pytest.LogCaptureFixture
) -> None:
    result = pipe.get("/broken//0")
    assert (result.status, result.code, result.failure) == (500, 251, None)
    assert result.json()["exception"]["message"] == "broken"
    (line,) = caplog.messages
    assert re.fullmatch(r"event [0-9a-f]{32}, GET /broken//0: its stream failed before the first byte", line)


def test_a_stream_that_fails_later_never_looks_whole(
    pipe: PipeTester, caplog: pytest.LogCaptureFixture
) -> None:
    result = pipe.get("/broken//3")
    assert result.status == 200
    assert result.failure is not None
    assert (result.failure.code, result.failure.delivered) == (Code.REPLY_BROKEN, Delivered.YES)
    wait_for(lambda: caplog.messages, "it is said")
    assert re.fullmatch(r"event [0-9a-f]{32}, GET /broken//3: its stream broke off", caplog.messages[0])


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize("name", ERRORS)
def test_no_stream_ends_the_worker(pipe: PipeTester, verb: str, name: str) -> None:
    before = pipe.send(verb, f"/broken_by//0/{name}")
    assert (before.status, before.code, before.failure) == (500, 251, None)
    assert name in before.json()["exception"]["class"]
    later = pipe.send(verb, f"/broken_by//3/{name}")
    assert (later.status, later.data[:1]) == (200, b"x")
    assert later.failure is not None
    assert (later.failure.code, later.failure.delivered) == (Code.REPLY_BROKEN, Delivered.YES)
    assert name in later.failure.detail


@pytest.mark.parametrize("name", ERRORS)
def test_a_stream_that_cannot_be_closed_has_been_sent_all_the_same(
    pipe: PipeTester, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    result = pipe.get(f"/badly_closed//{name}")
    assert (result.data, result.code, result.failure) == (b"all", 0, None)
    assert [name in str(record.exc_info) for record in caplog.records if record.exc_info] == [True]


class Growing(io.BytesIO):
    """A file that has more or less in it than its length says when it is read."""

    change = b""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if data and self.change:
            data, self.change = data + self.change, b""
        return data


def test_a_file_that_changes_meanwhile() -> None:
    class Files(EventHandler):
        def get_longer(self, ctx: Context, post_data: PostData) -> Any:
            file = Growing(b"0123456789")
            file.change = b"more"
            return file

        def get_shorter(self, ctx: Context, post_data: PostData) -> Any:
            file = Growing(b"x" * 100_000)
            iterator = iter([b"x" * 70_000])
            file.read = lambda size=-1, /: next(iterator, b"")  # type: ignore[method-assign]
            return file

    with PipeTester(Files) as pipe:
        assert pipe.get("/longer").data == b"0123456789"
        shorter = pipe.get("/shorter")
        assert shorter.failure is not None
        assert shorter.failure.code is Code.REPLY_BROKEN


# Cancellation and limits, with a loop at hand.


def test_a_caller_who_hangs_up_cancels_an_async_method(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        handler = Handler()
        ends = Ends(handler)
        exchange = ends.send("/sleep")
        await eventually(handler.waiting.is_set)
        exchange.hang_up()
        await ends.dispatcher.wait_idle()
        assert handler.seen["ended"] is asyncio.CancelledError
        assert handler.seen["ctx"].cancelled
        await ends.dispatcher.close()

    run(main())


def test_a_thread_that_does_not_come_back_is_no_capacity(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        handler = Handler()
        ends = Ends(handler)
        assert ends.dispatcher.capacity == 2
        exchange = ends.send("/block")
        await eventually(handler.waiting.is_set)
        assert not handler.seen["ctx"].cancelled
        exchange.hang_up()
        await ends.dispatcher.wait_idle()
        assert handler.seen["ctx"].cancelled
        assert ends.capacities == [1]
        assert ends.send("/none").event.verb == "GET"
        await ends.dispatcher.wait_idle()
        handler.gate.set()
        await eventually(lambda: ends.capacities == [1, 2])
        await ends.dispatcher.close()

    run(main())


def test_a_caller_who_hangs_up_closes_a_generator(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        handler = Handler()
        ends = Ends(handler)
        exchange = ends.send("/endless")
        await eventually(lambda: len(exchange.data) > 100_000)
        exchange.hang_up()
        await ends.dispatcher.wait_idle()
        await eventually(lambda: handler.seen.get("closed"))
        await ends.dispatcher.close()

    run(main())


def test_past_the_deadline_the_event_is_given_up(run: Run) -> None:
    async def main() -> None:
        handler = Handler()
        ends = Ends(handler)
        exchange = ends.send("/sleep", timeout_ms=1)
        await ends.dispatcher.wait_idle()
        assert exchange.failure is not None
        assert exchange.failure.code is Code.DEADLINE
        assert handler.seen["ended"] is asyncio.CancelledError
        await ends.dispatcher.close()

    run(main())


def test_the_deadline_is_for_the_beginning_of_the_reply(run: Run, eventually: Eventually) -> None:
    class Slow(EventHandler):
        async def get_body(self, ctx: Context, post_data: PostData) -> AsyncIterator[bytes]:
            yield b"begun"
            while not ctx.deadline.passed:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            yield b" and done"

    async def main() -> None:
        ends = Ends(Slow())
        exchange = ends.send("/body", timeout_ms=200)
        await ends.dispatcher.wait_idle()
        assert exchange.data == b"begun and done"
        await ends.dispatcher.close()

    run(main())


@pytest.mark.parametrize("noun", ["whole", "streamed", "streamed/thread"])
def test_the_deadline_counts_from_the_last_piece_of_the_body(run: Run, noun: str) -> None:
    class Taking(EventHandler):
        async def post_whole(self, ctx: Context, post_data: PostData) -> Any:
            return [len(post_data[1]), ctx.deadline.remaining_s]

        @streamed
        async def post_streamed(self, ctx: Context, post_data: PostData) -> Any:
            return [len(await post_data[1].read()), ctx.deadline.remaining_s]

        @streamed
        def post_streamed_thread(self, ctx: Context, post_data: PostData) -> Any:
            return [len(post_data[1].read()), ctx.deadline.remaining_s]

    async def main() -> None:
        ends = Ends(Taking())
        exchange = ends.send(f"/{noun}", 400, verb="POST", body=bytes(65537), paused=True)
        for last in (False, False, False, True):
            await asyncio.sleep(0.15)
            exchange.caller.send_data(b"x", end=last)
        await ends.dispatcher.wait_idle()
        exchange.resume()
        assert exchange.failure is None
        size, remaining_s = json.loads(exchange.data)
        assert size == 65540
        assert remaining_s > 0.2
        stopped = ends.send(f"/{noun}", 50, verb="POST", body=bytes(65537), paused=True)
        await ends.dispatcher.wait_idle()
        assert stopped.failure is not None
        assert stopped.failure.code is Code.DEADLINE
        await ends.dispatcher.close()

    run(main())


def test_a_deadline_says_what_is_known_of_delivery(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        handler = Handler()
        ends = Ends(handler, threads=1, concurrency=1)
        held = [ends.send("/block"), ends.send("/sleep")]
        await eventually(handler.waiting.is_set)
        late = {
            "no thread was free before the deadline": ends.send("/none", 20),
            "no place was free before the deadline": ends.send("/loop", 20),
            "no more of the body came before the deadline": ends.send(
                "/context", 20, verb="POST", body=b"x" * LARGE, paused=True
            ),
        }
        for detail, exchange in late.items():
            await eventually(lambda exchange=exchange: exchange.failure)  # type: ignore[misc]
            assert exchange.failure == Reset(Code.DEADLINE, detail, Delivered.NO)
        handler.gate.set()
        for exchange in held:
            exchange.hang_up()
        for target in ("/block", "/sleep"):
            handler.gate.clear()
            called = ends.send(target, 20)
            await eventually(lambda called=called: called.failure)  # type: ignore[misc]
            detail = "the handler did not answer before the deadline"
            assert called.failure == Reset(Code.DEADLINE, detail, Delivered.UNKNOWN)
            handler.gate.set()
        await ends.dispatcher.wait_idle()
        assert "post_data" not in handler.seen
        await ends.dispatcher.close()

    run(main())


def test_an_event_that_finds_no_thread_in_time_is_not_delivered(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        handler = Handler()
        ends = Ends(handler, threads=1)
        blocking = ends.send("/block")
        await eventually(handler.waiting.is_set)
        late = ends.send("/context", timeout_ms=1)
        await eventually(lambda: late.failure)
        handler.gate.set()
        await ends.dispatcher.wait_idle()
        assert late.failure is not None
        assert late.failure.code is Code.DEADLINE
        assert blocking.failure is None
        assert "post_data" not in handler.seen
        await ends.dispatcher.close()

    run(main())


def test_a_caller_who_hangs_up_while_the_body_is_coming(run: Run) -> None:
    async def main() -> None:
        handler = Handler()
        ends = Ends(handler)
        room = ends.dispatcher.bodies.room.left
        exchange = ends.send("/context", verb="POST", body=b"x" * LARGE, paused=True)
        await asyncio.sleep(0)
        assert ends.dispatcher.bodies.room.left < room
        exchange.hang_up()
        await ends.dispatcher.wait_idle()
        assert ends.dispatcher.bodies.room.left == room
        assert not handler.seen
        await ends.dispatcher.close()

    run(main())


def test_a_caller_who_hangs_up_before_a_task_has_begun(run: Run) -> None:
    """A task that is cancelled before its first step never runs: its event must end all the same."""

    async def main() -> None:
        handler = Handler()
        ends = Ends(handler)
        exchange = ends.send("/sleep")
        exchange.hang_up()
        await ends.dispatcher.wait_idle()
        assert not handler.waiting.is_set()
        await ends.dispatcher.close()

    run(main())


def test_what_a_method_returns_when_its_event_has_been_given_up_is_closed(
    run: Run, eventually: Eventually, recwarn: pytest.WarningsRecorder
) -> None:
    class Late(EventHandler):
        def __init__(self) -> None:
            self.gate, self.waiting = threading.Event(), threading.Event()
            self.file = io.BytesIO(b"x" * LARGE)

        def wait(self) -> None:
            self.waiting.set()
            self.gate.wait(10)

        def get_file(self, ctx: Context, post_data: PostData) -> Any:
            self.wait()
            return self.file

        def get_awaitable(self, ctx: Context, post_data: PostData) -> Any:
            self.wait()
            return asyncio.sleep(60)

    async def main() -> None:
        for target in ("/file", "/awaitable"):
            handler = Late()
            ends = Ends(handler)
            exchange = ends.send(target)
            await eventually(handler.waiting.is_set)
            exchange.hang_up()
            handler.gate.set()
            await eventually(lambda ends=ends: not ends.dispatcher.pool.stuck)  # type: ignore[misc]
            if target == "/file":
                await eventually(lambda handler=handler: handler.file.closed)  # type: ignore[misc]
            await ends.dispatcher.close()

    run(main())
    assert not recwarn.list


def test_the_head_of_a_file_closes_it(run: Run, eventually: Eventually) -> None:
    class Files(EventHandler):
        file = io.BytesIO(b"x" * LARGE)

        def get_file(self, ctx: Context, post_data: PostData) -> Any:
            return self.file

    async def main() -> None:
        ends = Ends(Files())
        exchange = ends.send("/file", verb="HEAD")
        await eventually(lambda: Files.file.closed)
        assert exchange.result().headers["content-length"] == str(LARGE)
        await ends.dispatcher.close()

    run(main())


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


class Variables(EventHandler):
    """Methods that say what they find in a context variable, and leave something else there."""

    def swap(self) -> str:
        found = VARIABLE.get()
        VARIABLE.set(found + "+")
        return found

    def get_plain(self, ctx: Context, post_data: PostData) -> str:
        return self.swap()

    async def get_async(self, ctx: Context, post_data: PostData) -> str:
        await asyncio.sleep(0)
        return self.swap()

    def get_awaitable(self, ctx: Context, post_data: PostData) -> Any:
        self.swap()
        return self.get_async(ctx, post_data)

    def get_generator(self, ctx: Context, post_data: PostData) -> Any:
        self.swap()
        return (self.swap().ljust(65536) for _ in range(3))

    def get_agenerator(self, ctx: Context, post_data: PostData) -> Any:
        self.swap()
        return self.later()

    async def later(self) -> AsyncIterator[str]:
        for _ in range(3):
            yield self.swap() + " "


def test_each_event_has_a_context_of_its_own() -> None:
    with PipeTester(Variables, threads=1) as pipe:
        for _ in range(3):
            assert pipe.get("/plain").text == "unset"
            assert pipe.get("/async").text == "unset"
            assert pipe.get("/awaitable").text == "unset+"
            for target in ("/generator", "/agenerator"):
                assert pipe.get(target).text.split() == ["unset+", "unset++", "unset+++"]


def test_nothing_of_an_event_is_left_for_the_collector(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    # The records that are captured keep the traceback of what was raised.
    caplog.set_level(logging.CRITICAL)

    async def main() -> None:
        ends = Ends(Handler())
        kept = []
        gc.disable()
        try:
            for target in (
                "/none",
                "/loop",
                "/awaitable",
                "/raise//ValueError",
                "/broken//0",
                "/broken//3",
                "/nothing",
                "/large",
                "/generator",
                "/agenerator",
                "/none%zz",
            ):
                exchange = ends.send(target)
                await ends.dispatcher.wait_idle()
                kept.append((target, weakref.ref(exchange)))
                del exchange
            await asyncio.sleep(0.01)
            assert [target for target, reference in kept if reference() is not None] == []
        finally:
            gc.enable()
        await ends.dispatcher.close()

    run(main())


def test_metrics_of_the_original(run: Run) -> None:
    class Noted(Stats):
        def __init__(self) -> None:
            super().__init__(Statsd(host="", port=0))
            self.names: list[str] = []

        def tick(self, name: str, n: int = 1) -> None:
            self.names.append(name)

        def timing(self, name: str, seconds: float) -> None:
            assert 0 <= seconds < 10
            self.names.append(name)

    async def main() -> None:
        stats = Noted()
        ends = Ends(Handler(), stats=stats)
        ends.send("/none")
        await ends.dispatcher.wait_idle()
        assert stats.names == [
            "message.receive.tick",
            "message.received.handle.get_none.tick",
            "message.received.handle.get_none.timing",
            "message.receive.handle.timing",
        ]
        await ends.dispatcher.close()

    run(main())


def test_each_line_of_an_events_logger_says_which_it_is(
    pipe: PipeTester, caplog: pytest.LogCaptureFixture
) -> None:
    pipe.get("/context")
    ctx = seen(pipe)["ctx"]
    ctx.logger.warning("look at %s", "this")
    assert caplog.records[-1].getMessage() == f"[alpha {ctx.event_id}] look at this"


def test_a_method_that_cancels_itself_is_answered_all_the_same(run: Run, eventually: Eventually) -> None:
    class Cancelling(EventHandler):
        async def get_stream(self, ctx: Context, post_data: PostData) -> Any:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

            async def pieces() -> AsyncIterator[bytes]:
                for _ in range(5):
                    await asyncio.sleep(0)
                    yield b"x" * 65536

            return "application/octet-stream", 0, pieces()

    async def main() -> None:
        ends = Ends(Cancelling())
        exchange = ends.send("/stream")
        await eventually(lambda: exchange.closed)
        assert len(exchange.result().data) == 5 * 65536
        await ends.dispatcher.close()

    run(main())


def test_a_generator_runs_in_the_context_of_the_call_that_made_it(run: Run, eventually: Eventually) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    class Setting(EventHandler):
        def get_stream(self, ctx: Context, post_data: PostData) -> Any:
            token = variable.set("tenant")

            def pieces() -> Iterator[str]:
                try:
                    for _ in range(3):
                        yield variable.get() * 20_000
                finally:
                    variable.reset(token)

            return "text/plain", 0, pieces()

    async def main() -> None:
        ends = Ends(Setting())
        exchange = ends.send("/stream")
        await eventually(lambda: exchange.closed)
        assert exchange.result().data == b"tenant" * 60_000
        await ends.dispatcher.close()

    run(main())
