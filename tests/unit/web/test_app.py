"""The application in the real server, against a daemon that the test plays."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from restpipe.errors import Code, Delivered
from restpipe.protocol.schema_pb2 import Header, Reply
from tests.unit.web.fake_daemon import Answer, FakeDaemon, FakeEvent, echo, silence
from tests.unit.web.web_process import UnixConnection, WebProcess, receive_all, wait_for


@contextlib.contextmanager
def in_flight(web: WebProcess, daemon: FakeDaemon, request: bytes) -> Iterator[FakeEvent]:
    """A request whose event has reached the daemon; the caller hangs up in the end."""
    count = len(daemon.events)
    with web.connect() as sock:
        sock.sendall(request)
        wait_for(lambda: len(daemon.events) > count)
        yield daemon.events[-1]


# What goes out.


@pytest.mark.parametrize("verb", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_verb_becomes_an_event(verb: str, web: WebProcess) -> None:
    said = web.request(verb, "/client/a/echo").json
    assert (said["verb"], said["to"], said["target"]) == (verb, "a", "/echo")


@pytest.mark.parametrize("verb", ["TRACE", "PROPFIND", "LINK", "BREW", "get", "CONNECT"])
def test_other_verbs_are_refused(verb: str, web: WebProcess, daemon: FakeDaemon) -> None:
    response = web.request(verb, "/client/a/echo")
    assert response.status == 501
    assert response.json["type"] == "urn:restpipe:problem:unknown-verb"
    assert not daemon.events


def test_headers_that_are_meant_for_the_far_end_go_with_the_event(web: WebProcess) -> None:
    headers = {
        "Content-Type": "text/x; a=b",
        "X-One": "caf\xe9 ",
        "Cookie": "a=b",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "TE": "trailers",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Prefer": "wait=7",
    }
    response = web.request("POST", "/client/a/echo", b"hi", headers)
    said = response.json
    passed = dict(said["headers"])
    passed.pop("accept-encoding")
    assert passed == {"x-one": "caf\xe9", "cookie": "a=b", "prefer": "wait=7"}
    assert said["content_type"] == "text/x; a=b"
    assert said["traceparent"].startswith("00-0af7")
    assert 6000 < said["timeout_ms"] <= 7000
    assert response.headers["preference-applied"] == "wait=7"


def test_each_event_has_an_id_of_its_own(web: WebProcess, daemon: FakeDaemon) -> None:
    for _ in range(3):
        web.request("GET", "/client/a/echo")
    ids = {event.event.id for event in daemon.events}
    assert len(ids) == 3
    assert {len(event_id) for event_id in ids} == {16}


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 1_000_000, 2_500_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_bodies_go_up_whole(size: int, chunked: bool, web: WebProcess, daemon: FakeDaemon) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    said = web.request("PUT", "/client/a/echo", iter([body]) if chunked else body).json
    assert said["size"] == size
    assert bytes(daemon.events[-1].body) == body
    assert daemon.events[-1].event.HasField("body_length") is not chunked


def test_a_caller_that_expects_continue_is_told_to(web: WebProcess) -> None:
    with web.connect() as sock:
        sock.sendall(
            b"POST /client/a/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert b'"body": "hello"' in receive_all(sock)


# What comes back.


def answer_with(reply: Reply, body: bytes = b"") -> Answer:
    async def answer(event: FakeEvent) -> None:
        event.reply(reply, body)

    return answer


def test_a_reply_becomes_the_response(web: WebProcess, daemon: FakeDaemon) -> None:
    reply = Reply(
        code=-3,
        status=201,
        content_type="text/plain",
        headers=[
            Header(name="Location", value="/here"),
            Header(name="Set-Cookie", value="a=1"),
            Header(name="Set-Cookie", value="b=2"),
            Header(name="X-Hop", value="1"),
            Header(name="Connection", value="X-Hop"),
            Header(name="Transfer-Encoding", value="chunked"),
            Header(name="Content-Length", value="99"),
            Header(name="X-Event-Return-Code", value="99"),
        ],
        body_length=5,
    )
    daemon.answer = answer_with(reply, b"hello")
    response = web.request("GET", "/client/a/x")
    assert (response.status, response.body) == (201, b"hello")
    assert response.headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert response.headers.get_all("x-event-return-code") == ["-3"]
    assert response.headers.get_all("server") == ["restpipe"]
    assert response.headers["location"] == "/here"
    assert response.headers["content-length"] == "5"
    assert "x-hop" not in response.headers


def test_a_reply_without_a_type_has_none(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = answer_with(Reply(status=200, body_length=0))
    response = web.request("GET", "/client/a/x")
    assert "content-type" not in response.headers
    assert response.headers["content-length"] == "0"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=200, headers=[Header(name="X-A", value="b\r\nSet-Cookie: evil")]),
        Reply(status=200, headers=[Header(name="X-A\r\nSet-Cookie", value="evil")]),
        Reply(status=200, headers=[Header(name="X-A", value="\u20ac")]),
        Reply(status=200, content_type="text/plain\nSet-Cookie: evil"),
        Reply(status=101),
        Reply(status=1000),
    ],
)
def test_a_reply_that_http_cannot_carry_is_a_problem(
    reply: Reply, web: WebProcess, daemon: FakeDaemon
) -> None:
    daemon.answer = answer_with(reply, b"text")
    response = web.request("GET", "/client/a/x")
    assert response.status == 502
    assert response.json["type"] == "urn:restpipe:problem:bad-message"
    assert response.json["delivered"] == "yes"
    assert "set-cookie" not in response.headers
    assert "x-event-return-code" not in response.headers


@pytest.mark.parametrize("length", [None, 7])
def test_head_has_headers_and_no_body(length: int | None, web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = answer_with(Reply(status=200, content_type="text/plain", body_length=length))
    connection = web.connection()
    for _ in range(2):
        connection.request("HEAD", "/client/a/x")
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["content-length"] == (str(length) if length else None)
        assert response.headers["content-type"] == "text/plain"
        assert response.read() == b""
    connection.close()


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status: int, web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = answer_with(Reply(status=status, body_length=4), b"none")
    connection = web.connection()
    for _ in range(2):
        connection.request("GET", "/client/a/x")
        response = connection.getresponse()
        assert (response.status, response.read()) == (status, b"")
    connection.close()


@pytest.mark.parametrize("sized", [True, False])
def test_large_replies_come_down_whole(sized: bool, web: WebProcess, daemon: FakeDaemon) -> None:
    body = bytes(range(256)) * 12000

    async def answer(event: FakeEvent) -> None:
        event.reply(Reply(status=200, body_length=len(body) if sized else None), end=False)
        await event.stream(body)

    daemon.answer = answer
    response = web.request("GET", "/client/a/x")
    assert response.body == body
    assert ("content-length" in response.headers) is sized


def test_a_caller_that_reads_slowly_holds_the_reply_back(web: WebProcess, daemon: FakeDaemon) -> None:
    async def answer(event: FakeEvent) -> None:
        event.reply(Reply(status=200), end=False)
        await event.stream(bytes(50_000_000))

    daemon.answer = answer
    with in_flight(web, daemon, b"GET /client/a/x HTTP/1.1\r\nHost: a\r\n\r\n") as event:
        wait_for(lambda: event.credit <= 40000)
    wait_for(lambda: event.reset is not None)


def test_a_caller_may_be_slower_than_the_wait_for_a_reply(web: WebProcess, daemon: FakeDaemon) -> None:
    size = 2_000_000

    async def answer(event: FakeEvent) -> None:
        event.reply(Reply(status=200), end=False)
        await event.stream(bytes(size))

    daemon.answer = answer
    with web.connect() as sock:
        sock.sendall(b"GET /client/a/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nPrefer: wait=0.2\r\n\r\n")
        time.sleep(1)
        assert receive_all(sock).endswith(b"\r\n0\r\n\r\n")


async def begin(event: FakeEvent) -> None:
    event.reply(Reply(status=200), b"begun", end=False)


async def begin_sized(event: FakeEvent) -> None:
    event.reply(Reply(status=200, body_length=100_000), b"begun", end=False)


def say_too_much(event: FakeEvent) -> None:
    event.data(bytes(60_000))
    event.data(bytes(60_000), end=True)


BREAKS: dict[str, Callable[[FakeEvent], None]] = {
    "reset": lambda event: event.fail(Code.REPLY_BROKEN, Delivered.YES, "the handler died"),
    "link": lambda event: event.cut(),
    "short": lambda event: event.data(b"", end=True),
    "long": say_too_much,
}


@pytest.mark.parametrize("begun", [begin, begin_sized], ids=["chunked", "sized"])
@pytest.mark.parametrize("fault", BREAKS)
def test_a_reply_that_breaks_off_does_not_look_whole(
    begun: Answer, fault: str, web: WebProcess, daemon: FakeDaemon
) -> None:
    if fault in ("short", "long"):
        begun = begin_sized
    daemon.answer = begun
    before = len(web.log)
    with web.connect() as sock:
        sock.sendall(b"GET /client/a/x HTTP/1.1\r\nHost: a\r\n\r\n")
        data = b""
        while b"begun" not in data:
            data += sock.recv(1000)
        event = daemon.events[-1]
        daemon.call(BREAKS[fault], event)
        data += receive_all(sock)
    assert b"\r\n0\r\n" not in data
    assert len(data.partition(b"begun")[2]) < 99_995
    wait_for(lambda: event.event.id.hex() in web.log)
    assert len([line for line in web.log[before:].splitlines() if "broke off" in line]) == 1
    assert "Traceback" not in web.log


# Failures.


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.UNREACHABLE, 503),
        (Code.UNKNOWN_PEER, 404),
        (Code.NO_HANDLER, 503),
        (Code.OVERLOADED, 503),
        (Code.BODY_TOO_LARGE, 413),
        (Code.BAD_REQUEST, 400),
        (Code.UNSPECIFIED, 502),
    ],
)
def test_failures_are_problems(code: Code, status: int, web: WebProcess, daemon: FakeDaemon) -> None:
    async def answer(event: FakeEvent) -> None:
        event.fail(code, Delivered.NO, "because")

    daemon.answer = answer
    response = web.request("POST", "/client/a/x", b"body")
    assert response.status == response.json["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in response.headers) is (status == 503)
    assert "x-event-return-code" not in response.headers
    assert response.json["delivered"] == "no"
    assert response.json["detail"] == "because"
    assert response.json["event_id"] == daemon.events[-1].event.id.hex()
    assert len(daemon.events) == 1


def test_ambiguity_names_the_names(web: WebProcess, daemon: FakeDaemon) -> None:
    async def answer(event: FakeEvent) -> None:
        event.fail(Code.AMBIGUOUS_PEER, Delivered.NO, names=("a", "b"))

    daemon.answer = answer
    response = web.request("GET", "/client/localhost/x")
    assert response.status == 409
    assert response.json["names"] == ["a", "b"]


def test_the_deadline_is_kept(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = silence
    response = web.request("GET", "/client/a/x", headers={"Prefer": "wait=0.2"})
    assert response.status == 504
    assert response.json["delivered"] == "unknown"
    assert response.headers["preference-applied"] == "wait=0.2"
    wait_for(lambda: daemon.events[-1].reset is not None)


def test_a_reply_that_stands_still_is_broken_off(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = begin
    response = web.exchange(b"GET /client/a/x HTTP/1.1\r\nHost: a\r\nPrefer: wait=0.2\r\n\r\n")
    assert b"begun" in response
    assert b"\r\n0\r\n" not in response
    wait_for(lambda: daemon.events[-1].reset is not None)


def test_too_large_is_said_at_once(web: WebProcess, daemon: FakeDaemon) -> None:
    with web.connect() as sock:
        sock.sendall(
            b"PUT /client/a/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3000001\r\n\r\n"
        )
        response = receive_all(sock)
    assert response.startswith(b"HTTP/1.1 413 ")
    assert not daemon.events


def test_too_large_is_said_during_the_upload(web: WebProcess, daemon: FakeDaemon) -> None:
    with web.connect() as sock:
        sock.sendall(b"PUT /client/a/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        response = b""
        with contextlib.suppress(OSError):
            for _ in range(50):
                sock.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
            response = sock.recv(1000)
    assert response.startswith(b"HTTP/1.1 413 ")
    wait_for(lambda: daemon.events[-1].reset is not None)


def test_overload_is_refused_at_once(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = silence
    with contextlib.ExitStack() as stack:
        for number in range(20):
            request = b"GET /client/%d/x HTTP/1.1\r\nHost: a\r\n\r\n" % number
            stack.enter_context(in_flight(web, daemon, request))
        response = web.request("GET", "/client/a/x")
        assert response.status == 503
        assert response.json["type"] == "urn:restpipe:problem:overloaded"
        assert int(response.headers["retry-after"]) > 0
    daemon.answer = echo
    wait_for(lambda: web.request("GET", "/client/a/x").status == 200)


def test_what_waits_for_one_client_leaves_half_of_the_places_to_others(
    web: WebProcess, daemon: FakeDaemon
) -> None:
    daemon.answer = silence
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(in_flight(web, daemon, b"GET /client/gone/x HTTP/1.1\r\nHost: a\r\n\r\n"))
        refused = web.request("GET", "/client/gone/x")
        assert refused.status == 503
        assert refused.json["type"] == "urn:restpipe:problem:overloaded"
        daemon.answer = echo
        assert web.request("GET", "/client/here/x").status == 200
    wait_for(lambda: web.request("GET", "/client/gone/x").status == 200)


def test_replies_that_have_begun_do_not_wait(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = begin
    with contextlib.ExitStack() as stack:
        for _ in range(15):
            stack.enter_context(in_flight(web, daemon, b"GET /client/busy/x HTTP/1.1\r\nHost: a\r\n\r\n"))
        daemon.answer = echo
        assert web.request("GET", "/client/busy/x").status == 200


# Hanging up.


def test_a_hang_up_while_waiting_cancels_the_event(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = silence
    with in_flight(web, daemon, b"GET /client/a/x HTTP/1.1\r\nHost: a\r\n\r\n") as event:
        assert event.reset is None
    wait_for(lambda: event.reset is not None)
    assert event.reset is not None
    assert event.reset.code == Code.CANCELLED


def test_a_truncated_upload_cancels_the_event(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = silence
    head = b"PUT /client/a/x HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
    with in_flight(web, daemon, head + bytes(100_000)) as event:
        pass
    wait_for(lambda: event.reset is not None)
    assert not event.body_ended


def test_a_hang_up_in_the_reply_cancels_the_event(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = begin
    with web.connect() as sock:
        sock.sendall(b"GET /client/a/x HTTP/1.1\r\nHost: a\r\n\r\n")
        data = b""
        while b"begun" not in data:
            data += sock.recv(1000)
    wait_for(lambda: daemon.events[-1].reset is not None)


def test_a_malformed_chunk_cancels_the_event(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = silence
    head = b"PUT /client/a/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    with web.connect() as sock:
        sock.sendall(head)
        wait_for(lambda: bool(daemon.events))
        sock.sendall(b"nonsense\r\n")
        response = receive_all(sock)
    assert response.startswith(b"HTTP/1.1 400 ")
    wait_for(lambda: daemon.events[-1].reset is not None)


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"], ids=["kept", "closing"])
def test_a_caller_that_half_closes_gets_its_response(
    close: bytes, web: WebProcess, daemon: FakeDaemon
) -> None:
    async def answer(event: FakeEvent) -> None:
        await event.until(lambda: event.credit < 0 or event.reset is not None)
        await echo(event)

    daemon.answer = answer
    with web.connect() as sock:
        sock.sendall(b"PUT /client/a/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + close + b"\r\nhello")
        sock.shutdown(socket.SHUT_WR)
        wait_for(lambda: bool(daemon.events))
        time.sleep(0.2)
        assert daemon.events[0].reset is None
        daemon.call(release, daemon.events[0])
        assert b'"body": "hello"' in receive_all(sock)


def release(event: FakeEvent) -> None:
    event.credit = -1
    event.changed.set()


def test_a_caller_that_half_closes_and_then_goes_is_gone(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = silence
    with web.connect() as sock:
        sock.sendall(b"GET /client/a/x HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        wait_for(lambda: bool(daemon.events))
        time.sleep(0.2)
        assert daemon.events[0].reset is None
    wait_for(lambda: daemon.events[0].reset is not None)


@pytest.mark.parametrize("noun", [b"/nowhere", b"/client/a/x"], ids=["refused", "answered"])
def test_a_body_that_turns_out_malformed_after_its_response_gets_no_second_one(
    noun: bytes, web: WebProcess, daemon: FakeDaemon
) -> None:
    daemon.answer = answer_with(Reply(status=200, body_length=4), b"done")
    with web.connect() as sock:
        sock.sendall(
            b"POST " + noun + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
        data = sock.recv(65536)
        while b"done" not in data and b"}" not in data:
            data += sock.recv(65536)
        sock.sendall(b"zz\r\n")
        data += receive_all(sock)
    assert data.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"], ids=["kept", "closing"])
def test_a_caller_that_writes_before_it_reads_sees_its_refusal(
    close: bytes, web: WebProcess, daemon: FakeDaemon
) -> None:
    head = b"POST /client/a/x HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n" + close + b"\r\n"
    with web.connect() as sock:
        sock.sendall(head)
        for _ in range(20):
            sock.sendall(bytes(1 << 20))
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert not daemon.events


# Sending again.


def fails_at_first(times: int, code: Code, delivered: Delivered) -> Answer:
    seen: list[FakeEvent] = []

    async def answer(event: FakeEvent) -> None:
        seen.append(event)
        if len(seen) > times:
            await echo(event)
        else:
            event.fail(code, delivered)

    return answer


@pytest.mark.parametrize(
    ("verb", "code", "delivered", "sends", "status"),
    [
        ("GET", Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN, 2, 200),
        ("PUT", Code.OUTCOME_UNKNOWN, Delivered.YES, 2, 200),
        ("POST", Code.DRAINING, Delivered.NO, 2, 200),
        ("POST", Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN, 1, 502),
        ("PATCH", Code.OUTCOME_UNKNOWN, Delivered.YES, 1, 502),
        ("GET", Code.UNREACHABLE, Delivered.NO, 1, 503),
    ],
)
def test_events_are_sent_again_where_that_is_harmless(
    verb: str, code: Code, delivered: Delivered, sends: int, status: int, web: WebProcess, daemon: FakeDaemon
) -> None:
    daemon.answer = fails_at_first(1, code, delivered)
    response = web.request(verb, "/client/a/x", b"b" * 100_000)
    assert response.status == status
    assert len(daemon.events) == sends
    assert len({event.event.id for event in daemon.events}) == 1
    if status == 200:
        assert response.json["size"] == 100_000


def test_an_idempotency_key_makes_any_verb_repeatable(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = fails_at_first(1, Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN)
    response = web.request("POST", "/client/a/x", b"b", {"Idempotency-Key": "k1"})
    assert response.status == 200
    assert ["idempotency-key", "k1"] in response.json["headers"]


def test_a_body_that_is_not_at_hand_any_more_is_not_sent_again(web: WebProcess, daemon: FakeDaemon) -> None:
    async def answer(event: FakeEvent) -> None:
        await event.whole_body()
        event.fail(Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN)

    daemon.answer = answer
    response = web.request("PUT", "/client/a/x", bytes(1_500_000))
    assert response.status == 502
    assert len(daemon.events) == 1


@pytest.mark.parametrize(("verb", "sends", "status"), [("GET", 2, 200), ("PUT", 2, 200), ("POST", 1, 502)])
def test_a_short_reply_that_breaks_off_behind_its_head_is_as_good_as_none(
    verb: str, sends: int, status: int, web: WebProcess, daemon: FakeDaemon
) -> None:
    """The caller has seen nothing of it."""

    async def answer(event: FakeEvent) -> None:
        await event.whole_body()
        if len(daemon.events) > 1:
            await echo(event)
            return
        event.reply(Reply(status=201, body_length=5), b"ab", end=False)
        event.fail(Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN)

    daemon.answer = answer
    response = web.request(verb, "/client/a/x", b"b" * 100_000)
    assert response.status == status
    assert len(daemon.events) == sends
    if status == 200:
        assert response.json["size"] == 100_000
    else:
        assert response.json["type"] == "urn:restpipe:problem:outcome-unknown"


def test_an_event_that_kills_its_handlers_is_not_sent_for_ever(web: WebProcess, daemon: FakeDaemon) -> None:
    daemon.answer = fails_at_first(9, Code.OUTCOME_UNKNOWN, Delivered.YES)
    response = web.request("GET", "/client/a/x")
    assert response.status == 502
    assert response.json["type"] == "urn:restpipe:problem:outcome-unknown"
    assert response.json["delivered"] == "yes"
    assert len(daemon.events) == 3


def test_a_lost_daemon_is_survived(web: WebProcess, daemon: FakeDaemon) -> None:
    seen: list[FakeEvent] = []

    async def answer(event: FakeEvent) -> None:
        seen.append(event)
        if len(seen) == 1:
            event.cut()
        else:
            await echo(event)

    daemon.answer = answer
    assert web.request("GET", "/client/a/x").json["target"] == "/x"
    assert len(seen) == 2


def test_an_upload_is_taken_up_again_from_its_start(web: WebProcess, daemon: FakeDaemon) -> None:
    seen: list[FakeEvent] = []

    async def answer(event: FakeEvent) -> None:
        seen.append(event)
        if len(seen) == 1:
            await event.until(lambda: len(event.body) >= 5)
            event.fail(Code.DRAINING, Delivered.NO)
        else:
            await echo(event)

    daemon.answer = answer
    with web.connect() as sock:
        sock.sendall(
            b"POST /client/a/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n"
        )
        wait_for(lambda: len(seen) == 2)
        sock.sendall(b"7\r\n, world\r\n0\r\n\r\n")
        response = receive_all(sock)
    assert json.loads(response.partition(b"\r\n\r\n")[2])["body"] == "hello, world"


def test_connections_are_kept_alive(web: WebProcess) -> None:
    connection: UnixConnection = web.connection()
    connection.request("GET", "/client/a/x")
    connection.getresponse().read()
    sock = connection.sock
    connection.request("POST", "/client/a/x", b"again")
    assert json.loads(connection.getresponse().read())["body"] == "again"
    assert connection.sock is sock
    connection.close()
