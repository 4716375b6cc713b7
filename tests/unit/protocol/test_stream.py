"""One stream's rules, without a loop: two ends, and queues that a test moves by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from restpipe.errors import Code, Delivered, Reset, StreamReset
from restpipe.protocol import frames
from restpipe.protocol.frames import DATA, END, EVENT, HEADER_SIZE, MAX_BODY, MAX_HEAD, RESET, WINDOW, Frame
from restpipe.protocol.messages import encode_reset
from restpipe.protocol.schema_pb2 import Event, Header, Origin, Reply
from restpipe.protocol.session import Session
from restpipe.protocol.stream import Stream
from restpipe.protocol.streams import INITIAL_CREDIT, MAX_CREDIT

NUMBER = 3


def opener() -> Stream:
    return Stream(Session(bytes(16), 0), NUMBER, Event(verb="POST", target="/x"))


def answerer() -> Stream:
    return Stream(Session(bytes(16), 0), NUMBER, Event(verb="POST", target="/x"), Origin(peer="alpha"))


def sent(stream: Stream) -> list[Frame]:
    return frames.FrameDecoder().feed(b"".join(stream._session.take(1 << 30)))


def reply_frame(body: bytes = b"", *, end: bool = True, **head: int) -> Frame:
    (frame,) = frames.FrameDecoder().feed(
        frames.encode(frames.REPLY, NUMBER, Reply(**head).SerializeToString(), body, flags=END if end else 0)
    )
    return frame


def data(body: bytes, flags: int = 0) -> Frame:
    return Frame(DATA, flags, 0, NUMBER, body)


def test_a_short_reply_is_whole_at_once_and_costs_no_further_frame() -> None:
    stream = opener()
    stream.receive(reply_frame(b"yes", code=7), 0.0)
    assert stream.reply is not None
    assert stream.reply.code == 7
    assert (stream.whole, stream.closed, stream.failure) == (True, True, None)
    assert stream.take_all(0.0) == b"yes"
    assert stream.take_all(0.0) == b""
    assert sent(stream) == []


def test_pieces_come_one_by_one_or_all_at_once() -> None:
    for at_once in (True, False):
        stream = opener()
        stream.receive(reply_frame(b"one", end=False), 0.0)
        stream.receive(data(b"two"), 0.0)
        stream.receive(data(b"three", END), 0.0)
        if at_once:
            assert stream.take_all(0.0) == b"onetwothree"
        else:
            assert [stream.take_piece(0.0) for _ in range(4)] == [b"one", b"two", b"three", b""]


def test_credit_is_granted_for_what_is_taken_and_not_for_what_waits() -> None:
    stream = answerer()
    stream.receive_body(bytes(MAX_BODY), 0.0, end=False)
    assert sent(stream) == []
    stream.take_all(0.0)
    (window,) = sent(stream)
    assert window.kind == WINDOW
    assert frames.decode_credit(window) >= MAX_BODY


def test_a_body_that_has_ended_is_granted_nothing() -> None:
    stream = answerer()
    stream.receive_body(bytes(MAX_BODY), 0.0, end=True)
    stream.take_all(0.0)
    assert sent(stream) == []


def test_room_shrinks_with_each_frame_and_grows_with_grants() -> None:
    stream = opener()
    stream.sent_with_opening(1000)
    assert stream.room == INITIAL_CREDIT - 1000 - HEADER_SIZE
    stream.send_data(b"x" * 100, end=False)
    assert stream.room == INITIAL_CREDIT - 1100 - 2 * HEADER_SIZE
    stream.receive(Frame(WINDOW, 0, 0, NUMBER, (1 << 19).to_bytes(4, "big")), 0.0)
    assert stream.room == MAX_BODY


def test_more_credit_than_there_can_be_is_a_fault() -> None:
    stream = opener()
    stream.receive(Frame(WINDOW, 0, 0, NUMBER, MAX_CREDIT.to_bytes(4, "big")), 0.0)
    assert stream.failure is not None
    assert stream.failure.code is Code.FLOW_CONTROL
    assert [frame.kind for frame in sent(stream)] == [RESET]


def test_more_body_than_was_granted_is_a_fault() -> None:
    stream = answerer()
    stream.receive_body(bytes(MAX_BODY), 0.0, end=False)
    stream.receive(data(b"x"), 0.0)
    assert stream.failure is not None
    assert stream.failure.code is Code.FLOW_CONTROL


def test_the_first_piece_counts_too_once_more_comes() -> None:
    stream = answerer()
    stream.receive_body(bytes(MAX_BODY - HEADER_SIZE - 1), 0.0, end=False)
    stream.receive(data(b"x"), 0.0)
    assert stream.failure is None
    stream.receive(data(b""), 0.0)
    assert stream.failure is not None


def test_a_body_before_the_head_of_its_reply_is_a_fault() -> None:
    stream = opener()
    stream.receive(data(b"x"), 0.0)
    assert stream.failure is not None
    assert stream.failure.code is Code.BAD_MESSAGE
    assert [frame.kind for frame in sent(stream)] == [RESET]


def test_the_answerer_is_over_when_it_has_sent_its_end() -> None:
    stream = answerer()
    stream.start_reply(Reply().SerializeToString(), b"a", end=False)
    assert not stream.closed
    stream.send_data(b"b", end=True)
    assert stream.closed


def test_the_opener_is_not_over_when_it_has_sent_its_end() -> None:
    stream = opener()
    stream.send_data(b"b", end=True)
    assert not stream.closed


def test_a_head_too_large_for_a_frame_is_told_to_both() -> None:
    stream = answerer()
    head = Reply(headers=[Header(name="x", value="v" * MAX_HEAD)]).SerializeToString()
    with pytest.raises(StreamReset) as caught:
        stream.start_reply(head, end=True)
    assert caught.value.reset.delivered is Delivered.YES
    assert [frame.kind for frame in sent(stream)] == [RESET]


def test_a_reset_of_its_own_is_no_loss() -> None:
    stream = opener()
    assert not stream.reset(Code.DEADLINE, "late")
    assert stream.failure == Reset(Code.DEADLINE, "late")
    assert not stream.reset(Code.CANCELLED)
    assert stream.failure.code is Code.DEADLINE


def test_an_event_that_has_not_left_is_taken_back() -> None:
    stream = opener()
    stream._session.send(NUMBER, frames.encode(EVENT, NUMBER))
    assert stream.reset(Code.CANCELLED)
    assert sent(stream) == []


@pytest.mark.parametrize(("left", "delivered"), [(False, Delivered.NO), (True, Delivered.UNKNOWN)])
def test_a_lost_link_says_whether_the_event_can_have_run(left: bool, delivered: Delivered) -> None:
    stream = opener()
    stream._session.send(NUMBER, frames.encode(EVENT, NUMBER))
    if left:
        sent(stream)
    stream.lose()
    assert stream.failure is not None
    assert stream.failure.delivered is delivered


def test_what_the_other_side_says_is_told() -> None:
    stream = answerer()
    reset = Reset(Code.CANCELLED, "hung up", Delivered.YES, ("a",))
    (frame,) = frames.FrameDecoder().feed(encode_reset(NUMBER, reset))
    stream.receive(frame, 0.0)
    assert stream.failure == reset
    with pytest.raises(StreamReset, match="hung up"):
        stream.start_reply(b"", end=True)


class BodyMachine(RuleBasedStateMachine):
    """A body crosses in pieces of any size, with time passing, and reads and grants at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = opener(), answerer()
        self.now = 0.0
        self.written = b""
        self.read = b""
        self.ended = False

    @precondition(lambda self: not self.ended)
    @rule(size=st.integers(0, MAX_BODY), end=st.booleans())
    def write(self, size: int, end: bool) -> None:
        size = min(size, self.near.room)
        if size >= 0:
            piece = len(self.written).to_bytes(4, "big") * (size // 4 + 1)
            self.near.send_data(piece[:size], end=end)
            self.written += piece[:size]
            self.ended = end

    @rule(count=st.integers(1, 4), to_near=st.booleans(), later=st.floats(0, 1))
    def deliver(self, count: int, to_near: bool, later: float) -> None:
        self.now += later
        source, target = (self.far, self.near) if to_near else (self.near, self.far)
        for _ in range(count):
            for frame in frames.FrameDecoder().feed(b"".join(source._session.take(1))):
                target.receive(frame, self.now)

    @rule(everything=st.booleans())
    def take(self, everything: bool) -> None:
        self.read += self.far.take_all(self.now) if everything else self.far.take_piece(self.now)

    @invariant()
    def nothing_is_lost_changed_or_out_of_bounds(self) -> None:
        assert self.near.failure is None
        assert self.far.failure is None
        assert self.written.startswith(self.read)
        pieces = self.far._pieces
        held = len(pieces) if isinstance(pieces, bytes) else sum(cost for _, cost in pieces)
        assert held <= MAX_CREDIT

    def teardown(self) -> None:
        self.read += self.far.take_all(self.now)
        while sent_now := self.near._session.take(1) + self.far._session.take(1):
            for frame in frames.FrameDecoder().feed(b"".join(sent_now)):
                (self.near if frame.kind == WINDOW else self.far).receive(frame, self.now)
            self.read += self.far.take_all(self.now)
        assert self.read == self.written
        assert self.far.whole is self.ended


BodyMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestBodyMachine = BodyMachine.TestCase


@settings(deadline=None)
@given(
    st.booleans(),
    st.lists(
        st.builds(
            lambda kind, flags, head, body: Frame(kind, flags, len(head), NUMBER, head + body),
            st.integers(0, 255),
            st.sampled_from([0, END]),
            st.binary(max_size=10),
            st.one_of(st.binary(max_size=8), st.just((1000).to_bytes(4, "big"))),
        ),
        max_size=12,
    ),
)
def test_no_frame_ever_raises(opens: bool, received: list[Frame]) -> None:
    stream = opener() if opens else answerer()
    for frame in received:
        if not stream.closed:
            stream.receive(frame, 0.0)
    stream.lose()
    assert stream.closed
