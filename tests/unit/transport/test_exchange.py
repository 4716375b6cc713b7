from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restpipe.errors import Code, Delivered, Reset, StreamReset
from restpipe.protocol import frames
from restpipe.protocol.frames import (
    DATA,
    END,
    EVENT,
    HEADER_SIZE,
    MAX_BODY,
    MAX_HEAD,
    REPLY,
    RESET,
    WINDOW,
    Frame,
)
from restpipe.protocol.messages import read_message, read_reset
from restpipe.protocol.schema_pb2 import Event, Header, Origin, Reply
from restpipe.protocol.session import Session
from restpipe.protocol.streams import INITIAL_CREDIT, MAX_CREDIT
from restpipe.transport.exchange import Exchange
from tests.unit.transport.kit import reply_of, run, taken, until

NUMBER = 5


class Pair:
    """Both ends of one exchange. Nothing moves but by `pump`."""

    def __init__(self, body: bytes = b"", *, end: bool = False) -> None:
        self.sessions = (Session(bytes(16), 0), Session(bytes(16), 0))
        self.forgotten: list[int] = []
        event = Event(verb="POST", target="/x")
        loop = asyncio.get_running_loop()
        self.opener = Exchange(self.sessions[0], NUMBER, event, loop=loop, forget=self.forgotten.append)
        self.opener.sent_with_opening(len(body))
        opening = frames.encode(EVENT, NUMBER, event.SerializeToString(), body, flags=END if end else 0)
        self.sessions[0].send(NUMBER, opening)
        self.answerer = Exchange(
            self.sessions[1],
            NUMBER,
            event,
            loop=loop,
            origin=Origin(peer="alpha"),
            forget=self.forgotten.append,
        )
        self.passed: list[Frame] = []

    def pump(self) -> None:
        """Delivers what both have sent, until neither sends more."""
        moved = True
        while moved:
            moved = False
            for session, end in ((self.sessions[0], self.answerer), (self.sessions[1], self.opener)):
                for frame in taken(session):
                    moved = True
                    self.passed.append(frame)
                    self.receive(end, frame)

    def receive(self, end: Exchange, frame: Frame) -> None:
        if end.closed:
            return
        if frame.kind == EVENT:
            end.receive_body(frame.body, 0.0, end=frame.ends)
        else:
            end.receive(frame, 0.0)

    async def pumping(self) -> None:
        while True:
            self.pump()
            await asyncio.sleep(0)

    @property
    def waiting(self) -> int:
        return sum(session.queue.size for session in self.sessions)


def held(exchange: Exchange) -> int:
    """Bytes of credit that the unread pieces cost."""
    pieces = exchange._pieces
    return len(pieces) if isinstance(pieces, bytes) else sum(cost for _, cost in pieces)


async def read_all(exchange: Exchange) -> bytes:
    pieces: list[bytes] = []
    while piece := await exchange.read():
        assert len(piece) <= MAX_BODY
        pieces.append(piece)
    return b"".join(pieces)


async def write_all(exchange: Exchange, body: bytes, sizes: list[int]) -> None:
    at = 0
    for size in sizes:
        await exchange.write(body[at : at + size])
        at += size
    await exchange.write(body[at:], end=True)


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@settings(deadline=None, max_examples=25)
@given(
    st.one_of(
        st.integers(0, 400_000), st.sampled_from([0, 1, MAX_BODY - 16, MAX_BODY, MAX_BODY + 1, 3_000_000])
    ),
    st.one_of(st.integers(0, 400_000), st.sampled_from([0, INITIAL_CREDIT, INITIAL_CREDIT + 1, 3_000_000])),
    st.lists(st.integers(0, 200_000), max_size=4),
    st.integers(0, MAX_BODY),
)
def test_bodies_of_any_size_cross_both_ways(there: int, back: int, sizes: list[int], first: int) -> None:
    request, answer = some_bytes(there), some_bytes(back, 2)
    first = min(first, there)
    in_reply = min(first, back)

    async def main() -> None:
        pair = Pair(request[:first])
        pump = asyncio.create_task(pair.pumping())

        async def serve() -> None:
            assert await read_all(pair.answerer) == request
            assert await pair.answerer.read() == b""
            pair.answerer.start_reply(Reply(status=201).SerializeToString(), answer[:in_reply], end=False)
            await write_all(pair.answerer, answer[in_reply:], sizes)

        async def call() -> None:
            await write_all(pair.opener, request[first:], sizes)

        async with asyncio.TaskGroup() as group:
            group.create_task(serve())
            group.create_task(call())
            assert (await reply_of(pair.opener)).status == 201
            assert await read_all(pair.opener) == answer
        assert pair.opener.closed
        assert pair.answerer.closed
        assert pair.forgotten.count(NUMBER) == 2
        assert pair.waiting == 0
        pump.cancel()

    run(main(), collect=False)


def test_a_slow_reader_stops_its_writer_at_once_and_for_as_long_as_it_likes() -> None:
    async def main() -> None:
        pair = Pair()
        body = some_bytes(4 * MAX_CREDIT)
        writer = asyncio.create_task(pair.opener.write(body, end=True))
        for _ in range(50):
            await asyncio.sleep(0)
            pair.pump()
        assert not writer.done()
        under_way = sum(len(frame.body) for frame in pair.passed)
        assert INITIAL_CREDIT - 2 * HEADER_SIZE <= under_way <= INITIAL_CREDIT

        read = b""
        largest = 0
        while piece := await pair.answerer.read():
            read += piece
            pair.pump()
            await asyncio.sleep(0)
            pair.pump()
            largest = max(largest, held(pair.answerer))
            if len(read) == len(body):
                break
        assert read == body
        await writer
        assert largest <= MAX_CREDIT

    run(main())


def test_a_violation_of_flow_control_resets_the_exchange_alone() -> None:
    async def main() -> None:
        pair = Pair()
        pair.pump()
        body = bytes(MAX_BODY)
        for _ in range(2):
            pair.answerer.receive(Frame(DATA, 0, 0, NUMBER, body), 0.0)
        assert pair.answerer.closed
        (reset,) = taken(pair.sessions[1])
        assert read_reset(reset).code is Code.FLOW_CONTROL
        with pytest.raises(StreamReset):
            pair.answerer.start_reply(Reply().SerializeToString(), end=True)

    run(main())


def test_tiny_frames_cost_credit_too() -> None:
    async def main() -> None:
        pair = Pair()
        pair.pump()
        for _ in range(INITIAL_CREDIT // (HEADER_SIZE + 1) + 1):
            pair.answerer.receive(Frame(DATA, 0, 0, NUMBER, b"x"), 0.0)
        assert pair.answerer.closed

    run(main())


def test_empty_frames_are_given_back_at_once() -> None:
    async def main() -> None:
        pair = Pair()
        pair.pump()
        for _ in range(100_000):
            pair.answerer.receive(Frame(DATA, 0, 0, NUMBER, b""), 0.0)
        assert not pair.answerer.closed
        assert held(pair.answerer) == 0

    run(main())


@pytest.mark.parametrize("by_opener", [True, False])
def test_a_reset_reaches_the_other_side_with_its_reason(by_opener: bool) -> None:
    async def main() -> None:
        pair = Pair(b"abc")
        pair.pump()
        near, far = (pair.opener, pair.answerer) if by_opener else (pair.answerer, pair.opener)
        heard: list[Reset] = []
        far.on_reset = heard.append
        reader = asyncio.create_task(far.read() if by_opener else reply_of(far))
        await asyncio.sleep(0)
        near.reset(Code.CANCELLED, "enough", Delivered.YES)
        near.reset(Code.DEADLINE)
        pair.pump()
        assert [(r.code, r.detail, r.delivered) for r in heard] == [(Code.CANCELLED, "enough", Delivered.YES)]
        assert near.closed
        assert far.closed
        if by_opener:
            assert await reader == b"abc"
            reader = asyncio.create_task(far.read())
        with pytest.raises(StreamReset, match="enough"):
            await reader
        with pytest.raises(StreamReset, match="enough"):
            await far.write(b"more")
        assert [far.failure] == heard

    run(main())


def test_a_reset_overtakes_what_it_makes_pointless() -> None:
    async def main() -> None:
        pair = Pair()
        pair.pump()
        await pair.opener.write(bytes(1000))
        pair.opener.reset(Code.CANCELLED)
        assert [frame.kind for frame in taken(pair.sessions[0])] == [RESET]

    run(main())


def test_an_event_that_never_left_is_not_reset_but_forgotten() -> None:
    async def main() -> None:
        pair = Pair(b"abc")
        assert pair.opener.reset(Code.CANCELLED)
        assert taken(pair.sessions[0]) == []
        assert pair.forgotten == [NUMBER]
        assert not pair.opener.reset(Code.CANCELLED)

    run(main())


@pytest.mark.parametrize(("left", "delivered"), [(False, Delivered.NO), (True, Delivered.UNKNOWN)])
def test_a_lost_link_tells_whether_the_event_can_have_run(left: bool, delivered: Delivered) -> None:
    async def main() -> None:
        pair = Pair(b"abc")
        if left:
            taken(pair.sessions[0])
        waiter = asyncio.create_task(reply_of(pair.opener))
        heard: list[Reset] = []
        pair.opener.on_reset = heard.append
        await asyncio.sleep(0)
        pair.opener.lose()
        pair.opener.lose()
        with pytest.raises(StreamReset) as caught:
            await waiter
        assert (caught.value.code, caught.value.reset.delivered) == (Code.OUTCOME_UNKNOWN, delivered)
        assert heard == [caught.value.reset]

    run(main())


def test_a_lost_link_wakes_a_writer_that_waits_for_credit() -> None:
    async def main() -> None:
        pair = Pair()
        writer = asyncio.create_task(pair.opener.write(bytes(10 * INITIAL_CREDIT)))
        await asyncio.sleep(0)
        assert not writer.done()
        pair.opener.lose()
        with pytest.raises(StreamReset):
            await writer

    run(main())


def test_what_is_complete_can_be_read_after_the_link_is_lost() -> None:
    async def main() -> None:
        pair = Pair(end=True)
        pair.pump()
        pair.answerer.start_reply(Reply(code=7).SerializeToString(), b"whole", end=True)
        pair.pump()
        pair.opener.lose()
        assert (await reply_of(pair.opener)).code == 7
        assert await read_all(pair.opener) == b"whole"

    run(main())


def test_a_body_that_breaks_off_never_looks_whole() -> None:
    async def main() -> None:
        pair = Pair(end=True)
        pair.pump()
        pair.answerer.start_reply(Reply().SerializeToString(), b"half", end=False)
        pair.pump()
        pair.opener.lose()
        await reply_of(pair.opener)
        assert await pair.opener.read() == b"half"
        with pytest.raises(StreamReset) as caught:
            await pair.opener.read()
        assert caught.value.reset.delivered is Delivered.UNKNOWN

    run(main())


def test_a_reply_before_the_request_has_ended_silences_its_writer() -> None:
    async def main() -> None:
        pair = Pair()
        writer = asyncio.create_task(pair.opener.write(bytes(10 * INITIAL_CREDIT), end=True))
        await asyncio.sleep(0)
        pair.answerer.start_reply(Reply(status=413).SerializeToString(), end=True)
        pair.pump()
        await writer
        assert (await reply_of(pair.opener)).status == 413
        assert await pair.opener.read() == b""

    run(main())


def test_whoever_has_answered_does_not_wait_for_the_rest_of_the_request() -> None:
    async def main() -> None:
        pair = Pair(b"first")
        pair.pump()
        assert await pair.answerer.read() == b"first"
        reader = asyncio.create_task(pair.answerer.read())
        await asyncio.sleep(0)
        pair.answerer.start_reply(Reply().SerializeToString(), end=True)
        with pytest.raises(StreamReset):
            await reader
        with pytest.raises(StreamReset):
            await pair.answerer.read()

    run(main())


def test_an_end_without_a_reply_is_a_fault_of_the_answerer() -> None:
    async def main() -> None:
        pair = Pair(end=True)
        pair.pump()
        waiter = asyncio.create_task(reply_of(pair.opener))
        await asyncio.sleep(0)
        pair.opener.receive(Frame(DATA, END, 0, NUMBER, b"x"), 0.0)
        with pytest.raises(StreamReset) as caught:
            await waiter
        assert caught.value.code is Code.BAD_MESSAGE
        assert pair.opener.closed

    run(main())


def test_nothing_comes_after_the_end() -> None:
    async def main() -> None:
        pair = Pair(b"all", end=True)
        pair.pump()
        pair.answerer.receive(Frame(DATA, 0, 0, NUMBER, b"more"), 0.0)
        assert pair.answerer.closed
        (reset,) = taken(pair.sessions[1])
        assert read_reset(reset).code is Code.BAD_MESSAGE

    run(main())


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame(REPLY, 0, 2, NUMBER, b"\xff\xff"), Code.BAD_MESSAGE),
        (Frame(RESET, 0, 2, NUMBER, b"\xff\xff"), Code.BAD_MESSAGE),
        (Frame(WINDOW, 0, 0, NUMBER, b"123"), Code.BAD_FRAME),
        (Frame(WINDOW, 0, 0, NUMBER, b"\xff" * 4), Code.FLOW_CONTROL),
    ],
)
def test_a_bad_frame_resets_the_exchange(frame: Frame, code: Code) -> None:
    async def main() -> None:
        pair = Pair(end=True)
        pair.pump()
        pair.opener.receive(frame, 0.0)
        with pytest.raises(StreamReset) as caught:
            await reply_of(pair.opener)
        assert caught.value.code is code
        (reset,) = taken(pair.sessions[0])
        assert read_reset(reset).code is code

    run(main())


def test_a_head_that_fits_no_frame_is_told_to_both() -> None:
    async def main() -> None:
        pair = Pair(end=True)
        pair.pump()
        reply = Reply(headers=[Header(name="x", value="v" * MAX_HEAD)])
        with pytest.raises(StreamReset) as caught:
            pair.answerer.start_reply(reply.SerializeToString(), end=True)
        assert (caught.value.code, caught.value.reset.delivered) == (Code.BAD_MESSAGE, Delivered.YES)
        pair.pump()
        with pytest.raises(StreamReset, match="does not fit"):
            await reply_of(pair.opener)

    run(main())


def test_cancelled_waiters_can_wait_again() -> None:
    async def main() -> None:
        pair = Pair()
        for waiting in (
            lambda: reply_of(pair.opener),
            pair.opener.read,
            lambda: pair.opener.write(bytes(INITIAL_CREDIT * 2)),
        ):
            task = asyncio.create_task(waiting())
            await asyncio.sleep(0)
            task.cancel()
            await until(task.done)
        pair.pump()
        pair.answerer.start_reply(Reply(code=3).SerializeToString(), b"x", end=True)
        pair.pump()
        assert (await reply_of(pair.opener)).code == 3
        assert await read_all(pair.opener) == b"x"

    run(main())


frame_to_anybody = st.builds(
    lambda kind, flags, head, body: Frame(kind, flags, len(head), NUMBER, head + body),
    st.integers(0, 255),
    st.sampled_from([0, END]),
    st.one_of(st.just(b""), st.binary(max_size=10), st.just(Reply(status=200).SerializeToString())),
    st.one_of(st.binary(max_size=8), st.just((1000).to_bytes(4, "big"))),
)


@settings(deadline=None, max_examples=60)
@given(st.booleans(), st.lists(frame_to_anybody, max_size=12))
def test_no_frame_ever_raises_or_leaves_anybody_waiting(opener: bool, received: list[Frame]) -> None:
    async def main() -> None:
        pair = Pair(end=not opener)
        pair.pump()
        end = pair.opener if opener else pair.answerer
        waiter = asyncio.create_task(read_all(end))
        for frame in received:
            if not end.closed:
                end.receive(frame, 0.0)
            await asyncio.sleep(0)
        end.lose()
        await asyncio.wait((waiter,))
        waiter.exception()
        assert end.closed
        assert pair.forgotten == [NUMBER]

    run(main(), collect=False)


def test_the_first_of_a_reply_comes_with_its_head() -> None:
    async def main() -> None:
        pair = Pair(end=True)
        pair.pump()
        pair.answerer.start_reply(Reply(code=1).SerializeToString(), bytes(MAX_BODY), end=True)
        (frame,) = taken(pair.sessions[1])
        assert (frame.kind, len(frame.body), frame.ends) == (REPLY, MAX_BODY, True)
        assert read_message(Reply(), frame).code == 1

    run(main())
