from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from restpipe.errors import Code, ProtocolError
from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.frames import Frame, Kind
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Hello
from restpipe.protocol.session import Session

BUFFER = 600
LARGEST = 216
"""Bytes of the largest frame that is sent here."""


def data(stream: int, number: int, size: int = 0, kind: int = Kind.DATA) -> bytes:
    return frames.encode(kind, stream, body=number.to_bytes(4, "big") + b"x" * size)


class End:
    """One side of the pipe: a session that lasts, and its connection of the moment."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.session: Session | None = None
        self.connection: Connection | None = None
        self.wire = b""
        """What it has written and the other has not received."""
        self.sent: dict[int, list[int]] = defaultdict(list)
        self.got: dict[int, list[int]] = defaultdict(list)

    def connect(self) -> None:
        self.connection = Connection(self.side, heartbeat_s=5.0, handshake_s=10.0, now=0.0)
        self.wire = b""
        if self.side is Side.DIALER:
            self.connection.say_hello(ROLE_PIPE, session=self.session, buffer_size=BUFFER)

    def cut(self) -> None:
        self.connection = None
        self.wire = b""

    def receive(self, data: bytes) -> None:
        assert self.connection is not None
        for frame in self.connection.receive(data, 0.0):
            if frame.kind == Kind.HELLO:
                self.session = self.session or Session(bytes(16), BUFFER)
                self.connection.accept(self.session, read_message(Hello(), frame), now=0.0)
            elif frame.kind == Kind.WELCOME:
                assert self.session in (None, self.connection.session)
                self.session = self.connection.session
            elif frame.kind < frames.FIRST_LINK_KIND:
                self.got[frame.stream].append(int.from_bytes(frame.body[:4], "big"))


class PipeMachine(RuleBasedStateMachine):
    """Two sessions that are joined by one connection after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = (End(Side.DIALER), End(Side.LISTENER))
        self.number = 0
        self.connect()
        self.flush()

    @property
    def connected(self) -> bool:
        return self.ends[0].connection is not None

    @rule(
        end=st.integers(0, 1),
        stream=st.integers(1, 4),
        sizes=st.lists(st.integers(0, 196), min_size=1, max_size=6),
        kind=st.sampled_from([Kind.EVENT, Kind.DATA, 99]),
    )
    def send(self, end: int, stream: int, sizes: list[int], kind: int) -> None:
        sender = self.ends[end]
        for size in sizes:
            self.number += 1
            assert sender.session is not None
            sender.session.send(stream, data(stream, self.number, size, kind))
            sender.sent[stream].append(self.number)

    @precondition(lambda self: self.connected)
    @rule(end=st.integers(0, 1), budget=st.integers(1, 700))
    def write(self, end: int, budget: int) -> None:
        writer = self.ends[end]
        assert writer.connection is not None
        writer.wire += writer.connection.data_to_send(budget)

    @precondition(lambda self: self.connected)
    @rule(end=st.integers(0, 1), size=st.integers(1, 700))
    def deliver(self, end: int, size: int) -> None:
        source = self.ends[end]
        piece, source.wire = source.wire[:size], source.wire[size:]
        if piece:
            self.ends[1 - end].receive(piece)

    @precondition(lambda self: self.connected)
    @rule(end=st.integers(0, 1))
    def ping(self, end: int) -> None:
        connection = self.ends[end].connection
        assert connection is not None
        connection.ping(0.0)

    @precondition(lambda self: self.connected)
    @rule()
    def cut(self) -> None:
        for end in self.ends:
            end.cut()

    @precondition(lambda self: not self.connected)
    @rule()
    def connect(self) -> None:
        for end in self.ends:
            end.connect()

    @precondition(lambda self: self.connected)
    @rule()
    def flush(self) -> None:
        """Both write and read until nothing moves."""
        quiet = 0
        while quiet < 2:
            quiet += 1
            for number in (0, 1):
                self.write(number, 500)
                if self.ends[number].wire:
                    self.deliver(number, len(self.ends[number].wire))
                    quiet = 0

    @invariant()
    def each_frame_came_once_and_in_order(self) -> None:
        for end, other in (self.ends, self.ends[::-1]):
            for stream, numbers in end.got.items():
                assert numbers == other.sent[stream][: len(numbers)]

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        for end in self.ends:
            session = end.session
            assert session is not None
            assert 0 <= session.unacknowledged_size <= BUFFER + LARGEST
            assert session.unacknowledged_size == sum(map(len, session._unacknowledged))
            assert session.acknowledged <= session.sent

    def teardown(self) -> None:
        if not self.connected:
            self.connect()
        # What the last acknowledgement still owes comes with the next heartbeat.
        while True:
            self.flush()
            if not any(end.session is not None and end.session.queue for end in self.ends):
                break
            self.ping(0)
            self.ping(1)
        for end, other in (self.ends, self.ends[::-1]):
            assert {k: v for k, v in end.got.items() if v} == {k: v for k, v in other.sent.items() if v}
            assert end.session is not None
            assert end.session.received == sum(map(len, other.sent.values()))


PipeMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestPipeMachine = PipeMachine.TestCase


def durable(buffer_size: int = BUFFER) -> Session:
    return Session(bytes(16), buffer_size)


def test_frames_are_kept_until_acknowledged_and_sent_again_after_a_resume() -> None:
    session = durable()
    sent = [data(1, number) for number in range(5)]
    for frame in sent:
        session.send(1, frame)
    assert session.take(1000) == sent
    session.acknowledge(2)
    assert (session.acknowledged, session.unacknowledged_size) == (2, sum(map(len, sent[2:])))
    session.resume(3)
    session.send(1, data(1, 9))
    assert session.take(1) == [sent[3]]
    assert session.take(1000) == [sent[4], data(1, 9)]
    session.acknowledge(6)
    assert (session.unacknowledged_size, session.pending) == (0, False)


def test_a_break_amid_the_replay_sends_all_of_it_again() -> None:
    session = durable()
    sent = [data(1, number) for number in range(4)]
    for frame in sent:
        session.send(1, frame)
    session.take(1000)
    session.resume(0)
    assert session.take(1) == sent[:1]
    session.resume(0)
    assert session.take(1000) == sent


def test_a_full_session_pauses_until_the_other_side_answers() -> None:
    session = durable(buffer_size=100)
    for number in range(10):
        session.send(1, data(1, number, 20))
    assert len(session.take(10_000)) == 3
    assert session.full
    assert session.pending
    assert session.take(10_000) == []
    session.acknowledge(1)
    assert len(session.take(10_000)) == 1


def test_a_frame_larger_than_the_buffer_passes_alone() -> None:
    session = durable(buffer_size=10)
    session.send(1, data(1, 1, 500))
    session.send(1, data(1, 2))
    assert session.take(10_000) == [data(1, 1, 500)]


@settings(deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 1 << 64))
def test_a_resume_with_a_count_that_cannot_be_is_refused(taken: int, acked: int, count: int) -> None:
    session = durable(10_000)
    for number in range(taken):
        session.send(1, data(1, number))
    session.take(10_000)
    acked = min(taken, acked)
    session.acknowledge(acked)
    if acked <= count <= taken:
        session.resume(count)
        assert len(session.take(10_000)) == taken - count
    else:
        with pytest.raises(ProtocolError) as caught:
            session.resume(count)
        assert caught.value.code is Code.BAD_FRAME
        assert (session.acknowledged, session.take(10_000)) == (acked, [])


def test_an_acknowledgement_of_what_was_never_sent_is_refused_and_an_old_one_is_no_news() -> None:
    session = durable()
    session.send(1, data(1, 1))
    session.take(1000)
    with pytest.raises(ProtocolError) as caught:
        session.acknowledge(2)
    assert caught.value.code is Code.BAD_FRAME
    session.acknowledge(1)
    session.acknowledge(0)
    assert session.acknowledged == 1


def test_without_a_buffer_nothing_is_kept() -> None:
    session = durable(buffer_size=0)
    for number in range(100):
        session.send(1, data(1, number, 100))
    assert len(session.take(1_000_000)) == 100
    assert not session.durable
    assert not session.full
    assert (session.unacknowledged_size, len(session._unacknowledged)) == (0, 0)
    session.acknowledge(1 << 60)


def test_whoever_attached_last_is_woken() -> None:
    session = durable()
    woken: list[str] = []

    def first() -> None:
        woken.append("first")

    def second() -> None:
        woken.append("second")

    session.send(1, data(1, 1))
    session.attach(first)
    session.send(1, data(1, 2))
    session.attach(second)
    session.detach(first)
    session.send(1, data(1, 3))
    session.detach(second)
    session.send(1, data(1, 4))
    assert woken == ["first", "second"]
    assert len(session.take(1000)) == 4


def test_the_kit_knows_its_largest_frame() -> None:
    assert len(data(4, 1, 196)) == LARGEST
    assert isinstance(frames.FrameDecoder().feed(data(1, 1))[0], Frame)
