"""One connection without a socket: requests in, responses out, however they are cut or late."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.errors import Code, Reset, StreamReset
from restpipe.web.call import Call
from restpipe.web.connections import Connections
from restpipe.web.http1 import CONNECTION, HEAD_TIMEOUT_S, LAST_REQUEST_S, LINGER_S, HttpConnection
from restpipe.web.patience import STALLED_S
from restpipe.web.serving import Asgi, Scope
from tests.unit.web.memory import Caller, turns

HOST = b"Host: a\r\n"
GET = b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"
HEAD = b"HEAD /x HTTP/1.1\r\n" + HOST + b"\r\n"
SIZED = b"PUT /x HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n"
CHUNKED = b"PUT /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
EXPECTING = b"PUT /x HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
CLOSING = b"GET /x HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
OLD = b"GET /x HTTP/1.0\r\n\r\n"
OLD_KEPT = b"GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"

Body = Callable[[HttpConnection], Awaitable[bytes]]


async def respond(send: Any, body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    fields = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def read_all(connection: HttpConnection) -> bytes:
    body = connection.body
    data = b""
    if body is not None:
        body.limit(most=10**9, keep=0, room=body._room)
        while not body.complete and body.failure is None:
            data += await body.read()
    return data


async def echo(scope: Scope, receive: Any, send: Any) -> None:
    """Answers with verb, target and body."""
    assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
    connection: HttpConnection = scope[CONNECTION]
    body = await read_all(connection)
    await respond(send, b"%b %b %b" % (scope["method"].encode(), connection.target, body))


async def refuse(scope: Scope, receive: Any, send: Any) -> None:
    """Answers without reading any body."""
    await respond(send, b"no", status=404)


class Held:
    """Answers when it is released."""

    def __init__(self) -> None:
        self.begun = 0
        self.released = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        self.begun += 1
        await self.released.wait()
        await respond(send, b"held")


class HungUp(Call):
    """What the application does for a request, as far as the connection sees it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def hang_up(self) -> None:
        self.heard.append("hang up")

    def end(self) -> None:
        self.heard.append("end")


def run(app: Asgi, test: Callable[[Caller, Connections], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        connections = Connections(app, most=10)
        await test(Caller(connections), connections)

    asyncio.run(main())


def parts(data: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers and body of one response."""
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    return line, dict(field.split(b": ", 1) for field in fields), body  # type: ignore[arg-type]


# Requests.


REQUESTS = [
    (GET, b"GET /x "),
    (SIZED + b"hello", b"PUT /x hello"),
    (CHUNKED + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: t\r\n\r\n", b"PUT /x hello"),
    (b"\r\n" + OLD_KEPT, b"GET /x "),
]


@given(
    st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=5),
    st.lists(st.integers(0, 400)),
    st.booleans(),
)
def test_requests_are_answered_in_turn_however_they_are_cut(
    requests: list[tuple[bytes, bytes]], cuts: list[int], turn: bool
) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        data = b"".join(request for request, _ in requests)
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        for start, end in itertools.pairwise(edges):
            if end > start:
                caller.send(data[start:end])
            if turn:
                await turns(3)
        await turns(5 * len(requests) + 5)
        bodies = [part.partition(b"\r\n\r\n")[2] for part in caller.take().split(b"HTTP/1.1 200 OK\r\n")[1:]]
        assert bodies == [answer for _, answer in requests]
        assert not caller.transport.closed

    run(echo, test)


def test_a_response_says_who_and_when() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET)
        await turns()
        line, fields, body = parts(caller.take())
        assert (line, body) == (b"HTTP/1.1 200 OK", b"GET /x ")
        assert fields.pop(b"date").endswith(b" GMT")
        assert fields == {
            b"server": b"restpipe",
            b"content-length": b"7",
            b"connection": b"keep-alive",
            b"keep-alive": b"timeout=300",
        }

    run(echo, test)


def test_the_next_request_waits_until_the_one_before_is_wholly_done() -> None:
    async def main() -> None:
        app = Held()
        caller = Caller(Connections(app, most=10))
        caller.send(GET + GET)
        await turns()
        assert app.begun == 1
        app.released.set()
        await turns(10)
        assert app.begun == 2
        assert caller.take().count(b"held") == 2

    asyncio.run(main())


def test_what_is_sent_ahead_is_bounded() -> None:
    async def main() -> None:
        app = Held()
        caller = Caller(Connections(app, most=10))
        caller.send(GET * 10)
        assert caller.transport.reading
        caller.send(GET * 3000)
        assert not caller.transport.reading
        app.released.set()
        await turns(20000)
        assert caller.transport.reading
        assert app.begun == 3010

    asyncio.run(main())


def test_an_upload_that_is_not_read_is_not_read_from_the_caller() -> None:
    async def main() -> None:
        app = Held()
        caller = Caller(Connections(app, most=10))
        caller.send(b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        caller.send(bytes(60_000))
        assert caller.transport.reading
        caller.send(bytes(60_000))
        assert not caller.transport.reading
        body = caller.connection.body
        assert body is not None
        body.limit(most=10**6, keep=0, room=body._room)
        assert len(await body.read()) == 120_000
        assert caller.transport.reading

    asyncio.run(main())


def test_the_caller_is_told_to_continue_only_when_its_body_is_wanted() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(EXPECTING)
        await turns()
        assert caller.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.send(b"hello" + GET)
        await turns(10)
        data = caller.take()
        assert data.count(b"HTTP/1.1 200 OK") == 2
        assert b"PUT /x hello" in data

    run(echo, test)


def test_a_caller_that_is_never_told_to_continue_sees_the_end() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(EXPECTING)
        await turns()
        line, fields, _ = parts(caller.take())
        assert line == b"HTTP/1.1 404 Not Found"
        assert fields[b"connection"] == b"close"
        assert caller.transport.ended
        caller.send(b"hello" + GET)
        await turns()
        assert caller.take() == b""

    run(refuse, test)


def test_a_body_that_came_at_once_needs_no_word() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(EXPECTING + b"hello")
        await turns()
        data = caller.take()
        assert b"100 Continue" not in data
        assert parts(data)[1][b"connection"] == b"keep-alive"

    run(echo, test)


def test_http_1_0_knows_no_continue() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(EXPECTING.replace(b"HTTP/1.1", b"HTTP/1.0"))
        await turns()
        assert caller.take() == b""
        caller.send(b"hello")
        await turns()
        assert b"PUT /x hello" in caller.take()

    run(echo, test)


# Whether the connection stays.


@pytest.mark.parametrize(
    ("request_bytes", "said", "closed"),
    [
        (GET, b"keep-alive", False),
        (CLOSING, b"close", True),
        (CLOSING.replace(b": close", b": close, TE"), b"close", True),
        (CLOSING.replace(b": close", b": TE ,Close"), b"close", True),
        (CLOSING.replace(b": close", b": keep-alive, close"), b"close", True),
        (CLOSING.replace(b": close", b": x\r\nConnection: close"), b"close", True),
        (CLOSING.replace(b": close", b": closed"), b"keep-alive", False),
        (OLD, b"close", True),
        (OLD_KEPT, b"keep-alive", False),
    ],
)
def test_the_connection_is_kept_as_the_caller_asks(
    request_bytes: bytes, said: bytes | None, closed: bool
) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(request_bytes)
        await turns()
        assert parts(caller.take())[1].get(b"connection") == said
        assert caller.transport.closed is closed

    run(echo, test)


def test_what_follows_the_last_request_is_dropped() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(CLOSING + GET)
        await turns(10)
        assert caller.take().count(b"HTTP/1.1 ") == 1
        assert caller.transport.closed

    run(echo, test)


@pytest.mark.parametrize("closing", [False, True])
def test_the_rest_of_a_body_is_taken_after_its_response(closing: bool) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        head = b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n"
        caller.send(head + (b"Connection: close\r\n" if closing else b"") + b"\r\n" + bytes(400_000))
        await turns()
        assert caller.take().startswith(b"HTTP/1.1 404 ")
        assert caller.transport.reading
        assert not caller.transport.closed
        assert caller.transport.ended is closing
        caller.send(bytes(600_000) + GET)
        await turns()
        assert caller.take().startswith(b"" if closing else b"HTTP/1.1 404 ")

    run(refuse, test)


@pytest.mark.parametrize("closing", [False, True])
def test_a_body_that_never_ends_is_not_waited_for(closing: bool) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if closing else SIZED)
        await turns()
        now = connections.serving.now
        connections.sweep(now + LINGER_S - 0.1)
        assert not caller.transport.closed
        connections.sweep(now + LINGER_S + 0.1)
        assert caller.transport.closed

    run(refuse, test)


@pytest.mark.parametrize("closing", [False, True])
def test_a_body_that_keeps_coming_is_waited_for_as_long_as_can_be(closing: bool) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        head = b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
        caller.send(head + (b"Connection: close\r\n" if closing else b"") + b"\r\n")
        await turns()
        for _ in range(7):
            connections.sweep(connections.serving.now + LINGER_S - 1)
            caller.send(b"x")
        assert not caller.transport.closed
        connections.sweep(connections.serving.now + 3)
        assert caller.transport.closed

    run(refuse, test)


# Responses.


def streaming(*pieces: bytes, headers: tuple[tuple[bytes, bytes], ...] = (), status: int = 200) -> Asgi:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return app


def test_a_body_of_unknown_length_comes_in_chunks() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET)
        await turns()
        _, fields, body = parts(caller.take())
        assert fields[b"transfer-encoding"] == b"chunked"
        assert body == b"2\r\nab\r\n4e20\r\n" + bytes(20_000) + b"\r\n0\r\n\r\n"
        assert not caller.transport.closed

    run(streaming(b"ab", b"", bytes(20_000)), test)


@pytest.mark.parametrize("request_bytes", [OLD, OLD_KEPT])
def test_http_1_0_gets_no_chunks(request_bytes: bytes) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(request_bytes)
        await turns()
        _, fields, body = parts(caller.take())
        assert b"transfer-encoding" not in fields
        assert fields[b"connection"] == b"close"
        assert body == b"abcd"
        assert caller.transport.closed

    run(streaming(b"ab", b"cd"), test)


@pytest.mark.parametrize("sized", [False, True])
def test_head_has_no_body(sized: bool) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(HEAD + GET)
        await turns(10)
        first, second = caller.take().split(b"HTTP/1.1 200 OK\r\n")[1:]
        assert (b"content-length: 4\r\n" in first) is sized
        assert b"transfer-encoding" not in first
        assert first.endswith(b"\r\n\r\n")
        assert b"ab" in second

    run(streaming(b"ab", b"cd", headers=((b"content-length", b"4"),) if sized else ()), test)


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body_have_none(status: int) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET + GET)
        await turns(10)
        data = caller.take()
        assert data.count(b"HTTP/1.1 %d " % status) == 2
        assert b"ab" not in data
        assert b"transfer-encoding" not in data

    run(streaming(b"ab", status=status), test)


def test_a_status_without_a_name() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET)
        await turns()
        assert caller.take().startswith(b"HTTP/1.1 299 \r\n")

    run(streaming(status=299), test)


@pytest.mark.parametrize("pieces", [(b"abc",), (b"abc", b"de")], ids=["short", "long"])
def test_a_body_of_another_length_breaks_the_response_off(pieces: tuple[bytes, ...]) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET + GET)
        await turns(10)
        data = caller.take()
        assert data.count(b"HTTP/1.1 ") == 1
        assert len(data.partition(b"\r\n\r\n")[2]) < 4
        assert caller.transport.closed

    run(streaming(*pieces, headers=((b"content-length", b"4"),)), test)


def test_the_head_leaves_with_the_first_of_the_body_or_when_it_is_flushed() -> None:
    async def main() -> None:
        more = asyncio.Event()

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await more.wait()
            await send({"type": "http.response.body", "body": b"x"})

        caller = Caller(Connections(app, most=10))
        caller.send(GET)
        await turns()
        assert caller.take() == b""
        caller.connection.writer.flush()
        assert caller.take().startswith(b"HTTP/1.1 200 OK\r\n")
        more.set()
        await turns()
        assert caller.take() == b"1\r\nx\r\n0\r\n\r\n"

    asyncio.run(main())


def test_a_caller_that_does_not_read_holds_the_response_back() -> None:
    async def main() -> None:
        sent = 0

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            nonlocal sent
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(10):
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                sent += 1
            await send({"type": "http.response.body"})

        caller = Caller(Connections(app, most=10))
        caller.connection.pause_writing()
        caller.send(GET)
        await turns()
        assert sent == 0
        caller.connection.resume_writing()
        await turns()
        assert sent == 10

    asyncio.run(main())


def test_a_caller_that_goes_while_it_does_not_read_ends_the_response() -> None:
    async def main() -> None:
        caller = Caller(Connections(streaming(b"x", b"y"), most=10))
        caller.connection.pause_writing()
        caller.send(GET)
        await turns()
        caller.hang_up()
        await turns()
        assert caller.connection._task is None

    asyncio.run(main())


@pytest.mark.parametrize("fault", [StreamReset(Reset(Code.REPLY_BROKEN)), RuntimeError("a fault")])
@pytest.mark.parametrize("begun", [False, True])
def test_an_application_that_fails_in_the_middle(fault: Exception, begun: bool) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if begun:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise fault

    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET + GET)
        await turns(10)
        data = caller.take()
        assert data.count(b"HTTP/1.1 ") == 1
        assert not data.endswith(b"0\r\n\r\n")
        assert caller.transport.closed

    run(app, test)


def test_an_application_that_fails_before_its_response_is_answered_for() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        raise RuntimeError("a fault")

    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET)
        await turns()
        line, fields, body = parts(caller.take())
        assert line.startswith(b"HTTP/1.1 500 ")
        assert json.loads(body)["delivered"] == "unknown"
        assert fields[b"connection"] == b"close"
        assert caller.transport.closed

    run(app, test)


# What is malformed.


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_arbitrary_bytes_get_one_response_at_most(data: bytes, cuts: list[int]) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        for start, end in itertools.pairwise(edges):
            caller.send(data[start:end])
        await turns()
        written = caller.take()
        assert written.count(b"HTTP/1.1 ") <= 1
        assert written == b"" or caller.transport.ended

    run(echo, test)


def test_a_refusal_is_one_response_and_the_end() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET + b"nonsense\r\n\r\n" + GET)
        await turns(10)
        good, bad = caller.take().split(b"HTTP/1.1 ")[1:]
        assert good.startswith(b"200")
        assert bad.startswith(b"400")
        assert b"connection: close\r\n" in bad
        assert caller.transport.ended
        caller.send(GET)
        await turns()
        assert caller.take() == b""

    run(echo, test)


def test_a_malformed_body_ends_its_request() -> None:
    async def main() -> None:
        watcher = HungUp()

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            scope[CONNECTION].call = watcher
            await echo(scope, receive, send)

        caller = Caller(Connections(app, most=10))
        caller.send(CHUNKED + b"5\r\nhello\r\n")
        await turns()
        caller.send(b"zz\r\n")
        assert caller.take().startswith(b"HTTP/1.1 400 ")
        await turns()
        assert watcher.heard == ["hang up", "end"]
        assert caller.take() == b""

    asyncio.run(main())


def test_a_body_that_turns_out_malformed_after_its_response_ends_the_connection_alone() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(CHUNKED)
        await turns()
        assert caller.take().startswith(b"HTTP/1.1 404 ")
        caller.send(b"zz\r\n")
        assert caller.take() == b""
        assert caller.transport.ended

    run(refuse, test)


# Ends.


def test_a_lost_connection_is_a_hang_up() -> None:
    async def main() -> None:
        app, watcher = Held(), HungUp()
        caller = Caller(Connections(app, most=10))
        caller.send(SIZED)
        await turns()
        caller.connection.call = watcher
        body = caller.connection.body
        caller.hang_up()
        assert watcher.heard == ["hang up"]
        assert body is not None
        assert body.failure is not None
        app.released.set()
        await turns()
        assert watcher.heard == ["hang up", "end"]
        assert caller.take() == b""

    asyncio.run(main())


def test_a_caller_that_half_closes_gets_its_response_and_then_the_end() -> None:
    async def main() -> None:
        app, watcher = Held(), HungUp()
        caller = Caller(Connections(app, most=10))
        caller.send(GET + GET)
        await turns()
        caller.connection.call = watcher
        assert caller.connection.eof_received()
        assert watcher.heard == []
        app.released.set()
        await turns(10)
        assert caller.take().count(b"held") == 2
        assert caller.transport.closed

    asyncio.run(main())


@pytest.mark.parametrize("start", [b"", GET[:10], SIZED, SIZED + b"hel", CHUNKED + b"5\r\nhello\r\n"])
def test_a_caller_that_half_closes_in_the_middle_is_gone(start: bytes) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        if start:
            caller.send(start)
        await turns()
        assert not caller.connection.eof_received()

    run(echo, test)


# Patience.


def at(connections: Connections, seconds: float) -> None:
    connections.sweep(connections.serving.now + seconds)


def test_a_silent_connection_is_closed() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        at(connections, HEAD_TIMEOUT_S - 0.1)
        assert not caller.transport.closed
        at(connections, 0.2)
        assert caller.transport.closed
        assert caller.take() == b""

    run(echo, test)


@pytest.mark.parametrize("first", [True, False])
def test_a_head_has_one_limit_from_its_first_byte(first: bool) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        if not first:
            caller.send(GET)
            await turns()
            caller.take()
        at(connections, 5)
        for byte in GET[:27]:
            caller.send(bytes([byte]))
            at(connections, 1)
        assert caller.take() == b""
        at(connections, 4)
        line, _, body = parts(caller.take())
        assert line.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["type"] == "urn:restpipe:problem:head-too-slow"
        assert caller.transport.ended

    run(echo, test)


def test_blank_lines_do_not_help() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        for _ in range(31):
            caller.send(b"\r\n")
            at(connections, 1)
        assert caller.transport.closed

    run(echo, test)


@pytest.mark.parametrize("blank", [(b"\r\n",), (b"\r\n\r\n",), (b"\r", b"\n"), (b"\r\n\r", b"\n")])
@pytest.mark.parametrize("at_once", [True, False])
def test_blank_lines_after_a_request_cost_an_idle_connection_nothing(
    blank: tuple[bytes, ...], at_once: bool
) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        first, *more = blank
        caller.send(GET + first if at_once else GET)
        await turns()
        for piece in more if at_once else blank:
            caller.send(piece)
        caller.take()
        at(connections, 300)
        assert not caller.transport.closed
        # A head has the whole of its own time.
        caller.send(GET[:10])
        at(connections, HEAD_TIMEOUT_S - 0.1)
        caller.send(GET[10:])
        await turns()
        assert parts(caller.take())[0] == b"HTTP/1.1 200 OK"

    run(echo, test)


@pytest.mark.parametrize("blank", [b"\r\n", b"\r"])
def test_blank_lines_prolong_nothing_and_are_not_answered(blank: bytes) -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET)
        await turns()
        caller.take()
        at(connections, 300)
        caller.send(blank)
        at(connections, 11)
        assert caller.transport.closed
        assert caller.take() == b""

    run(echo, test)


def test_an_idle_connection_is_kept_for_longer_than_callers_keep_it() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET)
        await turns()
        at(connections, 301)
        assert not caller.transport.closed
        caller.send(GET)
        await turns()
        assert parts(caller.take())[1][b"keep-alive"] == b"timeout=300"
        at(connections, 301)
        assert not caller.transport.closed
        at(connections, 10)
        assert caller.transport.closed

    run(echo, test)


def test_a_request_that_has_come_and_is_not_read_yet_is_not_cut_off() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET)
        await turns()
        here, there = socket.socketpair()
        with here, there:
            caller.transport.socket = here
            there.send(b"G")
            at(connections, 311)
            assert not caller.transport.closed
            here.recv(1)
            at(connections, 1)
            assert caller.transport.closed

    run(echo, test)


def test_a_request_may_take_its_time() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(SIZED)
        await turns()
        at(connections, 3600)
        assert not caller.transport.closed

    run(echo, test)


def test_a_caller_that_takes_nothing_of_its_response_is_given_up() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET)
        await turns()
        caller.connection.until = 1e9
        caller.transport.buffered = 1000
        at(connections, 1)
        at(connections, STALLED_S - 1)
        caller.transport.buffered = 999
        at(connections, 2)
        at(connections, STALLED_S - 1)
        assert not caller.transport.closed
        at(connections, 2)
        assert caller.transport.aborted

    run(echo, test)


def test_a_stopping_worker_takes_a_request_that_was_on_its_way() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        idle = Caller(connections)
        caller.connection.leave()
        connections.serving.leaving = True
        idle.connection.leave()
        caller.send(GET)
        await turns()
        assert parts(caller.take())[1][b"connection"] == b"close"
        assert caller.transport.closed
        assert not idle.transport.closed
        await asyncio.sleep(LAST_REQUEST_S + 0.05)
        assert idle.transport.closed

    run(echo, test)


def test_a_stopping_worker_finishes_what_it_has() -> None:
    async def main() -> None:
        app = Held()
        connections = Connections(app, most=10)
        caller = Caller(connections)
        caller.send(GET)
        await turns()
        connections.serving.leaving = True
        caller.connection.leave()
        app.released.set()
        await turns()
        assert parts(caller.take())[1][b"connection"] == b"close"
        assert caller.transport.closed

    asyncio.run(main())


def test_a_stopping_worker_takes_a_request_whose_head_has_begun() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET[:10])
        connections.serving.leaving = True
        caller.connection.leave()
        await asyncio.sleep(2 * LAST_REQUEST_S + 0.05)
        assert not caller.transport.closed
        caller.send(GET[10:])
        await turns()
        assert parts(caller.take())[1][b"connection"] == b"close"
        assert caller.transport.closed

    run(echo, test)


def test_a_request_leaves_no_cycles() -> None:
    async def test(caller: Caller, connections: Connections) -> None:
        caller.send(GET + SIZED + b"hello")
        await turns(10)
        gc.collect()
        for _ in range(50):
            caller.send(GET + SIZED + b"hello")
            await turns(10)
        caller.transport.written.clear()
        assert gc.collect() == 0

    gc.disable()
    with contextlib.ExitStack() as stack:
        stack.callback(gc.enable)
        run(echo, test)
