"""One event from its request to its reply, over a link that the test answers."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from restpipe.errors import Code, Delivered, Reset
from restpipe.host.config import Role
from restpipe.protocol.frames import DATA, RESET
from restpipe.protocol.messages import read_reset
from restpipe.protocol.schema_pb2 import Header, Reply
from restpipe.web import call as module
from tests.unit.web.memory import Caller, MemoryLink, Sent, answer, turns, worker

GET = b"GET /client/a/x HTTP/1.1\r\nHost: a\r\n\r\n"
NO = Delivered.NO
OK = Reply(status=200, body_length=2)


def post(body: bytes, verb: bytes = b"POST", *more: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = [verb + b" /client/a/x HTTP/1.1", b"Host: a", b"Content-Length: %d" % size, *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    head = b"POST /client/a/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n" * end


def in_turn(*steps: Callable[[Sent], None] | Reset) -> Callable[[Sent], None]:
    """Each event that leaves is answered by the next step, in a later turn of the loop."""
    rest = list(steps)

    def on_open(sent: Sent) -> None:
        step = rest.pop(0)
        loop = asyncio.get_running_loop()
        loop.call_soon(sent.fail, step) if isinstance(step, Reset) else loop.call_soon(step, sent)

    return on_open


def ok(sent: Sent) -> None:
    sent.reply(OK, b"ok")


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


async def response(caller: Caller, seconds: float = 5.0) -> tuple[int, bytes]:
    """Status and body of the next response, once it is there."""
    async with asyncio.timeout(seconds):
        while b"\r\n\r\n" not in caller.transport.written:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await turns()
    head, _, body = caller.take().partition(b"\r\n\r\n")
    return int(head[9:12]), body


async def problem(caller: Caller) -> tuple[str, str]:
    """Slug and delivery of the problem that the caller gets."""
    _, body = await response(caller)
    said = json.loads(body)
    return said["type"].rpartition(":")[2], said["delivered"]


# Sending.


def test_one_frame_where_it_fits() -> None:
    async def main() -> None:
        link = MemoryLink(in_turn(ok))
        caller = Caller(worker(link))
        caller.send(post(b"hello"))
        assert await response(caller) == (200, b"ok")
        [sent] = link.sent
        assert (sent.body, sent.end) == (b"hello", True)
        assert 0 < sent.timeout_ms <= 30_000

    run(main())


def test_a_small_body_is_gathered_before_the_event_leaves() -> None:
    async def main() -> None:
        link = MemoryLink(in_turn(ok))
        caller = Caller(worker(link))
        caller.send(post(b"hel", length=5))
        await turns()
        assert not link.sent
        caller.send(b"lo")
        assert await response(caller) == (200, b"ok")
        assert (link.sent[0].body, link.sent[0].end) == (b"hello", True)

    run(main())


def test_a_body_of_unknown_length_leaves_as_it_comes() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(chunked(b"hel", end=False))
        await turns()
        [sent] = link.sent
        assert (sent.body, sent.end) == (b"hel", False)
        link.written()
        caller.send(b"2\r\nlo\r\n0\r\n\r\n")
        await turns()
        data = [(frame.body, frame.ends) for frame in link.written() if frame.kind == DATA]
        assert data == [(b"lo", True)]
        sent.reply(OK, b"ok")
        assert await response(caller) == (200, b"ok")

    run(main())


def test_a_larger_body_follows() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(post(bytes(100_000)))
        await turns()
        [sent] = link.sent
        assert (len(sent.body), sent.end) == (65536, False)
        sent.grant(100_000)
        await turns()
        data = [frame for frame in link.written() if frame.kind == DATA]
        assert sum(len(frame.body) for frame in data) == 100_000 - 65536
        assert data[-1].ends
        sent.reply(OK, b"ok")
        assert await response(caller) == (200, b"ok")

    run(main())


@pytest.mark.parametrize("request_bytes", [GET, post(b"hello")], ids=["GET", "POST"])
def test_a_link_that_is_down_is_waited_for(request_bytes: bytes) -> None:
    async def main() -> None:
        link = MemoryLink(in_turn(ok))
        link.connected = False
        caller = Caller(worker(link))
        caller.send(request_bytes)
        await turns()
        assert not link.sent
        link.connected = True
        assert await response(caller) == (200, b"ok")

    run(main())


def test_a_body_is_not_asked_for_while_there_is_no_link() -> None:
    async def main() -> None:
        link = MemoryLink()
        link.connected = False
        caller = Caller(worker(link))
        caller.send(post(b"", b"PUT", b"Expect: 100-continue", length=5))
        await turns()
        assert caller.take() == b""
        link.connected = True
        await turns(10)
        assert caller.take() == b"HTTP/1.1 100 Continue\r\n\r\n"

    run(main())


def test_a_body_that_was_not_kept_never_goes_in_part() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link, keep_body_bytes=1))
        caller.send(post(b"hel", length=5))
        await turns()
        link.connected = False
        caller.send(b"lo")
        await turns()
        link.connected = True
        assert await problem(caller) == ("unreachable", "no")
        assert not link.sent

    run(main())


# Sending again.


@pytest.mark.parametrize("kept", [True, False])
def test_the_same_event_again(kept: bool) -> None:
    async def main() -> None:
        link = MemoryLink(in_turn(Reset(Code.DRAINING, delivered=NO), ok))
        caller = Caller(worker(link, keep_body_bytes=5 if kept else 4))
        caller.send(post(b"hello"))
        if kept:
            assert await response(caller) == (200, b"ok")
            first, second = link.sent
            assert (first.id, first.body, first.end) == (second.id, second.body, second.end)
        else:
            assert await problem(caller) == ("draining", "no")

    run(main())


def test_a_body_that_is_still_coming_goes_on_with_the_event_that_is_sent_again() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(chunked(b"hello", end=False))
        await turns()
        link.sent[0].fail(Reset(Code.DRAINING, delivered=NO))
        async with asyncio.timeout(5):
            while len(link.sent) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        link.written()
        caller.send(b"7\r\n, world\r\n0\r\n\r\n")
        await turns()
        assert link.sent[1].body == b"hello"
        data = [(frame.body, frame.ends) for frame in link.written() if frame.kind == DATA]
        assert data == [(b", world", True)]

    run(main())


@pytest.mark.parametrize(
    ("verb", "key", "again"), [(b"GET", b"", True), (b"POST", b"", False), (b"POST", b"k", True)]
)
def test_what_may_have_run_is_sent_again_only_if_it_may_run_twice(
    verb: bytes, key: bytes, again: bool
) -> None:
    async def main() -> None:
        link = MemoryLink(in_turn(Reset(Code.OUTCOME_UNKNOWN), ok))
        caller = Caller(worker(link))
        caller.send(post(b"b", verb, *([b"Idempotency-Key: " + key] if key else [])))
        if again:
            assert await response(caller) == (200, b"ok")
        else:
            assert await problem(caller) == ("outcome-unknown", "unknown")

    run(main())


def test_an_earlier_attempt_that_may_have_run_is_not_forgotten() -> None:
    async def main() -> None:
        link = MemoryLink(in_turn(Reset(Code.OUTCOME_UNKNOWN), Reset(Code.UNREACHABLE, delivered=NO)))
        caller = Caller(worker(link))
        caller.send(GET)
        assert await problem(caller) == ("outcome-unknown", "unknown")

    run(main())


@pytest.mark.parametrize(("verb", "again"), [(b"GET", True), (b"POST", False)])
def test_a_short_reply_that_breaks_off_is_as_good_as_none(verb: bytes, again: bool) -> None:
    def breaks(sent: Sent) -> None:
        sent.reply(OK, b"o", end=False)
        asyncio.get_running_loop().call_soon(sent.fail, Reset(Code.OUTCOME_UNKNOWN))

    async def main() -> None:
        link = MemoryLink(in_turn(breaks, ok))
        caller = Caller(worker(link))
        caller.send(post(b"", verb))
        if again:
            assert await response(caller) == (200, b"ok")
        else:
            assert await problem(caller) == ("outcome-unknown", "unknown")

    run(main())


# The reply.


@pytest.mark.parametrize("pieces", [(b"ok",), (b"o", b"k"), (b"", b"ok"), (b"o", b"k", b"")])
def test_a_short_reply_is_whole_before_the_response_begins(pieces: tuple[bytes, ...]) -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(GET)
        await turns()
        [sent] = link.sent
        first, *rest = pieces
        sent.reply(OK, first, end=not rest)
        for number, piece in enumerate(rest, 1):
            await turns()
            assert caller.take() == b""
            sent.data(piece, end=number == len(rest))
        assert await response(caller) == (200, b"ok")

    run(main())


def test_each_piece_of_a_short_reply_has_the_whole_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock, ahead = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: clock() + ahead)
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(GET)
        await turns()
        [sent] = link.sent
        assert link.written()
        sent.reply(Reply(status=200, body_length=5), b"s", end=False)
        for piece in (b"h", b"o", b"r"):
            ahead += 20
            await turns()
            sent.data(piece)
        await turns()
        assert caller.take() == b""
        ahead += 31
        assert (await response(caller))[0] == 504

    run(main())


@pytest.mark.parametrize("pieces", [(b"o",), (b"okay",), (b"o", b"kay"), (b"o", b"")])
def test_a_short_reply_of_another_length_is_broken(pieces: tuple[bytes, ...]) -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(GET)
        await turns()
        [sent] = link.sent
        first, *rest = pieces
        sent.reply(OK, first, end=not rest)
        for number, piece in enumerate(rest, 1):
            sent.data(piece, end=number == len(rest))
        assert await problem(caller) == ("reply-broken", "yes")

    run(main())


def test_a_long_reply_begins_when_its_head_is_there() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(GET)
        await turns()
        [sent] = link.sent
        sent.reply(Reply(status=200), end=False)
        assert await response(caller) == (200, b"")
        sent.data(b"ab")
        sent.data(b"cd")
        await turns()
        assert caller.take() == b"2\r\nab\r\n2\r\ncd\r\n"
        sent.data(b"", end=True)
        await turns()
        assert caller.take() == b"0\r\n\r\n"

    run(main())


@pytest.mark.parametrize("length", [3, 100_000])
def test_a_long_reply_of_another_length_is_broken_off(length: int) -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(GET)
        await turns()
        [sent] = link.sent
        sent.reply(Reply(status=200, body_length=100_000), bytes(60_000), end=False)
        await turns()
        sent.data(bytes(60_000) if length == 3 else b"", end=length != 3)
        await turns(10)
        assert caller.transport.closed
        assert len(caller.take().partition(b"\r\n\r\n")[2]) == 60_000

    run(main())


def test_what_has_come_meanwhile_leaves_together() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(GET)
        await turns()
        [sent] = link.sent
        sent.reply(Reply(status=200), b"ab", end=False)
        sent.data(b"cd")
        sent.data(b"ef")
        await turns()
        assert caller.take().endswith(b"\r\n\r\n6\r\nabcdef\r\n")

    run(main())


@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_long_reply_that_breaks_off_is_logged_once(
    hangs_up: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(GET)
        await turns()
        [sent] = link.sent
        sent.reply(Reply(status=200), b"ab", end=False)
        await turns()
        if hangs_up:
            caller.hang_up()
        else:
            sent.fail(Reset(Code.REPLY_BROKEN, "the handler died"))
        await turns()
        assert caller.take().endswith(b"2\r\nab\r\n")
        assert hangs_up or caller.transport.closed

    run(main())
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.partition(": ")[2] for line in told] == (
        [] if hangs_up else ["the response broke off: the handler died"]
    )


def test_headers_of_the_handler_may_stand_twice() -> None:
    async def main() -> None:
        headers = [Header(name="Set-Cookie", value="a=1"), Header(name="Set-Cookie", value="b=2")]
        link = MemoryLink(answer(Reply(status=200, headers=headers, body_length=0)))
        caller = Caller(worker(link))
        caller.send(GET)
        await turns(10)
        written = caller.take()
        assert b"set-cookie: a=1\r\n" in written
        assert b"set-cookie: b=2\r\n" in written

    run(main())


def test_a_reply_that_http_cannot_carry() -> None:
    async def main() -> None:
        link = MemoryLink(answer(Reply(status=200, headers=[Header(name="a b", value="c")])))
        caller = Caller(worker(link))
        caller.send(GET)
        assert await problem(caller) == ("bad-message", "yes")

    run(main())


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_without_a_body_needs_none(status: int) -> None:
    async def main() -> None:
        link = MemoryLink(lambda sent: sent.reply(Reply(status=status, body_length=9), b"some", end=False))
        caller = Caller(worker(link))
        caller.send(GET)
        assert await response(caller) == (status, b"")
        link.sent[0].exchange.take()
        assert link.sent[0].exchange.closed

    run(main())


def test_a_reply_that_is_whole_before_the_request_ends_the_upload() -> None:
    async def main() -> None:
        link = MemoryLink(in_turn(ok))
        caller = Caller(worker(link))
        caller.send(chunked(b"hello", end=False))
        assert await response(caller) == (200, b"ok")
        caller.send(b"5\r\nworld\r\n0\r\n\r\n" + GET)
        await turns()
        assert len(link.sent) == 2

    run(main())


def test_a_body_that_grows_too_large_is_refused() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link, max_body_bytes=10))
        caller.send(chunked(b"hello", end=False))
        await turns()
        link.written()
        caller.send(b"6\r\n, worl\r\n")
        assert await problem(caller) == ("body-too-large", "unknown")
        [reset] = [frame for frame in link.written() if frame.kind == RESET]
        assert read_reset(reset).code == Code.BODY_TOO_LARGE

    run(main())


def test_a_body_that_is_too_large_at_once_is_never_sent() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link, max_body_bytes=10))
        caller.send(chunked(b"hello, world", end=False))
        assert await problem(caller) == ("body-too-large", "no")
        assert not link.sent

    run(main())


# Deadlines.

HURRY = GET.replace(b"\r\n\r\n", b"\r\nPrefer: wait=0.05\r\n\r\n")


def test_an_event_that_left_may_have_run() -> None:
    async def main() -> None:
        link = MemoryLink(lambda sent: asyncio.get_running_loop().call_soon(link.written) and None)
        caller = Caller(worker(link))
        caller.send(HURRY)
        assert await problem(caller) == ("deadline", "unknown")
        [reset] = link.written()
        assert read_reset(reset).code == Code.DEADLINE

    run(main())


def test_an_event_that_waits_for_a_link_was_not_delivered() -> None:
    async def main() -> None:
        link = MemoryLink()
        link.connected = False
        caller = Caller(worker(link))
        caller.send(HURRY)
        assert await problem(caller) == ("unreachable", "no")

    run(main())


@pytest.mark.parametrize("earlier", [False, True])
def test_an_event_that_the_daemon_never_took_was_not_delivered(earlier: bool) -> None:
    async def main() -> None:
        steps = [lambda sent: None]
        link = MemoryLink(in_turn(*([Reset(Code.OUTCOME_UNKNOWN)] if earlier else []), *steps))
        caller = Caller(worker(link))
        caller.send(HURRY)
        assert await problem(caller) == (("outcome-unknown", "unknown") if earlier else ("unreachable", "no"))

    run(main())


@pytest.mark.parametrize("earlier", [Delivered.NO, Delivered.UNKNOWN])
def test_what_waits_to_be_sent_again_is_told_by_what_became_of_it(earlier: Delivered) -> None:
    async def main() -> None:
        def fails(sent: Sent) -> None:
            sent.fail(Reset(Code.DRAINING, delivered=earlier))
            link.connected = False

        link = MemoryLink(in_turn(fails))
        caller = Caller(worker(link))
        caller.send(HURRY)
        told = ("unreachable", "no") if earlier == NO else ("outcome-unknown", "unknown")
        assert await problem(caller) == told

    run(main())


def test_a_body_that_does_not_come_in_time() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(post(b"", b"PUT", b"Prefer: wait=0.05", length=5))
        assert await problem(caller) == ("deadline", "no")
        assert not link.sent

    run(main())


def test_a_deadline_ends_the_upload_too() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(post(bytes(70_000), b"PUT", b"Prefer: wait=0.05", length=100_000))
        await turns()
        link.written()
        assert await problem(caller) == ("deadline", "unknown")
        assert caller.connection.body is None
        await turns()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    run(main())


@pytest.mark.parametrize("size", [4, 68_000], ids=["short", "long"])
def test_an_upload_that_moves_is_not_late(size: int) -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(post(b"", b"PUT", b"Prefer: wait=0.4", length=size))
        for _ in range(4):
            await asyncio.sleep(0.15)
            caller.send(bytes(size // 4))
        await turns()
        [sent] = link.sent
        assert 200 < sent.timeout_ms <= 400
        await asyncio.sleep(0.15)
        sent.reply(OK, b"ok")
        assert await response(caller) == (200, b"ok")

    run(main())


def test_an_upload_that_the_other_side_takes_is_not_late() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(post(bytes(100_000), b"PUT", b"Prefer: wait=0.4"))
        for _ in range(4):
            await turns()
            link.written()
            link.sent[0].grant(9_000)
            await asyncio.sleep(0.15)
        assert not caller.transport.written
        assert await problem(caller) == ("deadline", "unknown")

    run(main())


@pytest.mark.parametrize("granted", [0, 100], ids=["nothing", "more than it needs"])
def test_the_other_side_cannot_put_the_deadline_off(granted: int) -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(post(bytes(70_000), b"PUT", b"Prefer: wait=0.3", length=70_000 if granted else 70_001))
        await turns()
        link.written()
        if granted:
            link.sent[0].grant(20_000)
        async with asyncio.timeout(5):
            while not caller.transport.written:
                link.sent[0].grant(granted)
                await asyncio.sleep(0.02)
        assert await problem(caller) == ("deadline", "unknown")

    run(main())


def test_an_upload_that_stands_still_is_late_whatever_came_before() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(chunked(bytes(10), end=False).replace(b"Host: a", b"Host: a\r\nPrefer: wait=0.4"))
        await asyncio.sleep(0.15)
        link.written()
        await asyncio.sleep(0.15)
        caller.send(b"1\r\nx\r\n")
        await asyncio.sleep(0.15)
        assert not caller.transport.written
        status, body = await response(caller)
        assert status == 504
        assert json.loads(body)["detail"] == "the request's body stopped coming"

    run(main())


def test_an_upload_moves_the_wait_for_the_pieces_of_its_reply() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(chunked(bytes(10), end=False).replace(b"Host: a", b"Host: a\r\nPrefer: wait=0.4"))
        await turns()
        [sent] = link.sent
        sent.reply(Reply(status=200), b"begun", end=False)
        for _ in range(4):
            await asyncio.sleep(0.15)
            caller.send(b"1\r\nx\r\n")
        caller.send(b"0\r\n\r\n")
        await turns()
        sent.data(b"done", end=True)
        await turns()
        assert caller.take().endswith(b"4\r\ndone\r\n0\r\n\r\n")

    run(main())


def test_each_piece_of_a_long_reply_has_the_whole_wait() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(GET.replace(b"\r\n\r\n", b"\r\nPrefer: wait=0.2\r\n\r\n"))
        await turns()
        [sent] = link.sent
        sent.reply(Reply(status=200), end=False)
        for _ in range(4):
            await asyncio.sleep(0.12)
            sent.data(b"x")
        await turns()
        assert not caller.transport.closed
        assert caller.take().count(b"1\r\nx\r\n") == 4
        await asyncio.sleep(0.3)
        assert caller.transport.closed
        assert b"0\r\n\r\n" not in caller.take()
        assert link.sent[0].exchange.failure is not None

    run(main())


def test_the_time_that_the_caller_takes_does_not_count() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(HURRY)
        await turns()
        [sent] = link.sent
        sent.reply(Reply(status=200), b"x", end=False)
        caller.connection.pause_writing()
        await asyncio.sleep(0.2)
        caller.connection.resume_writing()
        sent.data(b"y", end=True)
        await turns()
        assert caller.take().endswith(b"2\r\nxy\r\n0\r\n\r\n")

    run(main())


def test_a_reply_that_comes_with_the_deadline_has_won() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(GET)
        await turns()
        call = caller.connection.call
        assert call is not None
        link.sent[0].reply(OK, b"ok")
        call._until = 0
        call.check_deadline()
        assert await response(caller) == (200, b"ok")

    run(main())


# Hanging up.


@pytest.mark.parametrize("request_bytes", [GET, chunked(b"hello", end=False)], ids=["GET", "upload"])
def test_a_hang_up_gives_the_event_up(request_bytes: bytes) -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(request_bytes)
        await turns()
        link.written()
        caller.hang_up()
        await turns()
        [reset] = link.written()
        assert read_reset(reset).code == Code.CANCELLED
        assert caller.connection.call is None

    run(main())


def test_a_hang_up_while_there_is_no_link_ends_the_wait() -> None:
    async def main() -> None:
        link = MemoryLink()
        link.connected = False
        caller = Caller(worker(link))
        caller.send(GET)
        await turns()
        caller.hang_up()
        await turns()
        assert caller.connection.call is None
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    run(main())


def test_a_hang_up_in_a_pause_ends_it() -> None:
    async def main() -> None:
        link = MemoryLink(in_turn(Reset(Code.DRAINING, delivered=NO)))
        caller = Caller(worker(link))
        caller.send(GET)
        await turns()
        caller.hang_up()
        await turns()
        assert caller.connection.call is None
        await asyncio.sleep(0.03)
        assert len(link.sent) == 1

    run(main())


def test_a_hang_up_before_the_body_is_there_sends_nothing() -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link))
        caller.send(post(b"hel", length=5))
        await turns()
        caller.hang_up()
        await turns()
        assert caller.connection.call is None
        assert not link.sent

    run(main())


# Bounds.


@pytest.mark.parametrize("begins", [True, False])
def test_a_body_is_kept_until_the_reply_begins_or_all_is_over(begins: bool) -> None:
    async def main() -> None:
        link = MemoryLink()
        caller = Caller(worker(link, keep_body_bytes=10))
        caller.send(post(b"hello"))
        await turns()
        call = caller.connection.call
        assert call is not None
        room = call._outgoing.room
        assert room.left == 640 - 5
        if begins:
            link.sent[0].reply(Reply(status=200), end=False)
        else:
            caller.hang_up()
        await turns()
        assert room.left == 640
        caller.hang_up()
        await turns()
        assert room.left == 640

    run(main())


def test_the_places_are_given_back() -> None:
    async def main() -> None:
        link = MemoryLink()
        connections = worker(link, max_in_flight=4)
        callers = [Caller(connections) for _ in range(3)]
        for caller in callers:
            caller.send(GET)
            await turns()
        assert await problem(callers[2]) == ("overloaded", "no")
        link.sent[0].reply(Reply(status=200), end=False)
        await turns()
        callers[2].send(GET)
        await turns()
        assert len(link.sent) == 3
        for caller in callers[:2]:
            caller.hang_up()
        await turns()
        link.sent[2].reply(OK, b"ok")
        assert await response(callers[2]) == (200, b"ok")
        for _ in range(5):
            callers[2].send(GET)
            await turns()
            link.sent[-1].reply(OK, b"ok")
            assert await response(callers[2]) == (200, b"ok")

    run(main())


def test_a_client_has_one_peer_that_may_have_all_places() -> None:
    async def main() -> None:
        link = MemoryLink()
        connections = worker(link, role=Role.CLIENT, max_in_flight=4)
        callers = [Caller(connections) for _ in range(5)]
        for caller in callers:
            caller.send(GET.replace(b"/client/a/", b"/server/"))
            await turns()
        assert len(link.sent) == 4
        assert await problem(callers[4]) == ("overloaded", "no")

    run(main())


# What a request leaves behind.


@pytest.mark.parametrize("ending", ["answered", "refused", "streamed", "broken", "hung up", "again"])
def test_nothing_of_a_request_waits_for_the_collector(ending: str) -> None:
    """Where very many are refused, all that they left would pile up until the collector comes."""

    def act(sent: Sent) -> None:
        if ending == "answered":
            sent.reply(OK, b"ok")
        elif ending == "refused":
            sent.fail(Reset(Code.OVERLOADED, "too much", NO))
        elif ending == "hung up":
            callers[-1].hang_up()
        elif ending == "again" and len(link.sent) % 2:
            sent.fail(Reset(Code.DRAINING, delivered=NO))
        elif ending == "again":
            sent.reply(OK, b"ok")
        else:
            sent.reply(Reply(status=200), b"x", end=False)
            if ending == "streamed":
                sent.data(b"y", end=True)
            else:
                sent.fail(Reset(Code.REPLY_BROKEN, "it broke"))

    link = MemoryLink(lambda sent: asyncio.get_running_loop().call_soon(act, sent) and None)
    callers: list[Caller] = []

    async def one(connections: Any) -> None:
        callers.append(Caller(connections))
        callers[-1].send(post(bytes(900_000), b"PUT"))
        async with asyncio.timeout(5):
            while callers[-1].connection._busy:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await turns()
        link.written()
        link.sent[:-1] = []
        callers.pop().hang_up()

    async def main() -> None:
        connections = worker(link)
        await one(connections)
        gc.collect()
        for _ in range(5):
            await one(connections)
        assert gc.collect() == 0

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_a_finished_call_holds_nothing_large() -> None:
    """The queue of deadlines keeps calls that are over for a while."""

    async def main() -> None:
        link = MemoryLink(in_turn(ok))
        caller = Caller(worker(link))
        caller.send(post(b"hello"))
        await turns(1)
        call = caller.connection.call
        await response(caller)
        assert isinstance(call, module.Call)
        assert not call.waits
        assert (call._exchange, call._body, call.data) == (None, None, b"")

    run(main())
