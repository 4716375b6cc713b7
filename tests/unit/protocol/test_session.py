from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from restpipe.errors import Code, ProtocolError
from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.frames import DATA, EVENT, HELLO, WELCOME, Frame
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Hello
from restpipe.protocol.session import Session
from tests.unit.protocol.kit import received

BUFFER = 600
LARGEST = 216
"""Bytes of the largest frame that is sent here."""


def data(stream: int, number: int, size: int = 0, kind: int = DATA) -> bytes:
    return frames.encode(kind, stream, body=number.to_bytes(4, "big") + b"x" * size)


class Wire:
    """One connection between the two; one end may be gone without the other's knowing."""

    def __init__(self) -> None:
        self.ends: list[Connection | None] = [
            Connection(side, heartbeat_s=5.0, handshake_s=10.0, now=0.0) for side in Side
        ]
        self.written = [b"", b""]
        """What each end has written and the other not received: it arrives even if its sender has left."""


class PipeMachine(RuleBasedStateMachine):
    """Two sessions that are joined by one connection after the other, and by none, and by an old one still.

    Each end behaves as its daemon does: 0 dials and holds one connection at a time, 1 listens and has a
    newer greeting take over, if its count can be. Either end may lose its connection, or its whole session.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.sizes: dict[int, int] = {}
        self.wires: list[Wire] = []
        self.current: list[Wire | None] = [None, None]
        """The connection that each end has joined to its session."""
        self.dialing: Wire | None = None
        self.sessions: list[Session | None] = [None, None]
        self.sent: list[dict[int, list[int]]] = [defaultdict(list), defaultdict(list)]
        self.got: list[dict[int, list[int]]] = [defaultdict(list), defaultdict(list)]
        self.connect()
        self.flush()

    # What the daemons do.

    def dial(self) -> None:
        wire = self.dialing = Wire()
        # What was overtaken long ago does not arrive any more.
        self.wires = [*self.wires[-2:], wire]
        dialer = wire.ends[0]
        assert dialer is not None
        dialer.say_hello(ROLE_PIPE, session=self.sessions[0], buffer_size=BUFFER)
        wire.written[0] = dialer.data_to_send(1)

    def drop(self, end: int, wire: Wire) -> None:
        """That end is gone, and knows it."""
        wire.ends[end] = None
        if self.current[end] is wire:
            self.current[end] = None
        if end == 0 and self.dialing is wire:
            self.dialing = None

    def greet(self, wire: Wire, hello: Hello) -> None:
        listener, session = wire.ends[1], self.sessions[1]
        assert listener is not None
        if session is None or hello.session != session.id:
            session = self.begin(1)
        else:
            session.check_count(hello.received)
        older = self.current[1]
        if older is not None:
            self.drop(1, older)
        listener.accept(session, hello, now=0.0)
        self.current[1] = wire

    def begin(self, end: int) -> Session:
        """A new session: of the old one nothing is owed any more."""
        self.number += 1
        session = Session(self.number.to_bytes(16, "big"), BUFFER)
        self.adopt(end, session)
        return session

    def adopt(self, end: int, session: Session) -> None:
        self.sessions[end] = session
        self.sent[end], self.got[end] = defaultdict(list), defaultdict(list)

    def welcomed(self, wire: Wire) -> None:
        dialer = wire.ends[0]
        assert dialer is not None
        assert dialer.session is not None
        if self.sessions[0] is not dialer.session:
            self.adopt(0, dialer.session)
        self.current[0] = wire

    def receive(self, end: int, wire: Wire, piece: bytes) -> None:
        connection = wire.ends[end]
        if connection is None:
            return
        try:
            for frame in received(connection, piece, 0.0):
                if frame.kind == HELLO:
                    self.greet(wire, read_message(Hello(), frame))
                elif frame.kind == WELCOME:
                    self.welcomed(wire)
                elif frame.kind < frames.FIRST_LINK_KIND:
                    self.got[end][frame.stream].append(int.from_bytes(frame.body[:4], "big"))
        except ProtocolError:
            # Only a greeting can be wrong here: one that is older than what has been acknowledged since.
            assert end == 1
            assert self.current[1] is not wire
            self.drop(end, wire)

    # What happens to them.

    @rule(
        end=st.integers(0, 1),
        stream=st.integers(1, 4),
        sizes=st.lists(st.integers(0, 196), min_size=1, max_size=6),
        kind=st.sampled_from([EVENT, DATA, 99]),
    )
    def send(self, end: int, stream: int, sizes: list[int], kind: int) -> None:
        session = self.sessions[end]
        for size in sizes if session is not None else ():
            self.number += 1
            assert session is not None
            frame = data(stream, self.number, size, kind)
            self.sizes[self.number] = len(frame)
            session.send(stream, frame)
            self.sent[end][stream].append(self.number)

    @rule(end=st.integers(0, 1), sizes=st.lists(st.integers(0, 196), min_size=2, max_size=6))
    def send_in_vain(self, end: int, sizes: list[int]) -> None:
        """All that is written now is lost with the connection."""
        wire = self.current[end]
        if wire is not None:
            self.send(end, 1, sizes, DATA)
            self.put(end, wire, 700)
            self.cut(end, arrives=False)

    @rule(end=st.integers(0, 1), stream=st.integers(1, 4))
    def forget_stream(self, end: int, stream: int) -> None:
        """A stream is reset: what of it has not been on any wire yet never will be."""
        session = self.sessions[end]
        if session is not None:
            waiting = session.queue.waiting(stream)
            session.queue.drop(stream)
            while waiting:
                waiting -= self.sizes[self.sent[end][stream].pop()]

    @rule(end=st.integers(0, 1), budget=st.integers(1, 700), which=st.integers(1, 3))
    def write(self, end: int, budget: int, which: int) -> None:
        if which <= len(self.wires):
            self.put(end, self.wires[-which], budget)

    def put(self, end: int, wire: Wire, budget: int) -> None:
        connection = wire.ends[end]
        if connection is not None and (connection.session is None or self.current[end] is wire):
            wire.written[end] += connection.data_to_send(budget)

    @rule(end=st.integers(0, 1), size=st.integers(1, 700), which=st.integers(1, 3))
    def deliver(self, end: int, size: int, which: int) -> None:
        """Bytes arrive, on an old connection too."""
        if which <= len(self.wires):
            wire = self.wires[-which]
            piece, wire.written[end] = wire.written[end][:size], wire.written[end][size:]
            if piece:
                self.receive(1 - end, wire, piece)

    @rule(end=st.integers(0, 1))
    def ping(self, end: int) -> None:
        wire = self.current[end]
        connection = wire.ends[end] if wire is not None else None
        if connection is not None:
            connection.ping(0.0)

    @rule(end=st.integers(0, 1), arrives=st.booleans())
    def cut(self, end: int, arrives: bool) -> None:
        """One end loses its connection, maybe with what it has written; the other knows nothing."""
        wire = self.current[end] or (self.dialing if end == 0 else None)
        if wire is not None:
            self.drop(end, wire)
            if not arrives:
                wire.written[end] = b""

    @rule()
    def connect(self) -> None:
        """0 takes what it has for dead, and dials."""
        self.cut(0, arrives=True)
        self.dial()

    @rule(size=st.integers(1, 300), asks=st.booleans())
    def resume(self, size: int, asks: bool) -> None:
        """A connection stands, and some of what is to be sent again is on it, maybe all that ever is."""
        self.connect()
        self.deliver(0, 1000, 1)
        self.write(1, size, 1)
        self.deliver(1, 1000, 1)
        self.write(0, size, 1)
        self.deliver(0, 1000, 1)
        if asks:
            self.ping(0)
            self.ping(1)

    @rule(which=st.integers(2, 3))
    def arrive_late(self, which: int) -> None:
        """All that is still under way on an old connection."""
        for end in (0, 1):
            self.deliver(end, 1 << 20, which)

    @rule()
    def lose_session(self) -> None:
        """1 is restarted, or has given the session up: whoever comes begins another."""
        if self.current[1] is not None:
            self.drop(1, self.current[1])
        self.begin(1)

    @rule()
    def flush(self) -> None:
        """The latest connection carries all that there is, if both ends still have it."""
        wire = self.wires[-1]
        quiet = 0
        while quiet < 2 and None not in wire.ends:
            quiet += 1
            for end in (0, 1):
                self.write(end, 500, 1)
                if wire.written[end]:
                    self.deliver(end, len(wire.written[end]), 1)
                    quiet = 0

    # What holds whatever happens.

    @property
    def one_session(self) -> bool:
        """Both have the same, so that what each owes the other can be told."""
        near, far = self.sessions
        return near is not None and far is not None and near.id == far.id

    @invariant()
    def each_frame_came_once_and_in_order(self) -> None:
        for end in (0, 1) if self.one_session else ():
            for stream, numbers in self.got[end].items():
                assert numbers == self.sent[1 - end][stream][: len(numbers)]

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        for session in filter(None, self.sessions):
            assert 0 <= session.unacknowledged_size <= BUFFER + LARGEST
            assert session.unacknowledged_size == sum(map(len, session._unacknowledged))
            assert session.acknowledged <= session.sent

    def teardown(self) -> None:
        """Given one more good connection, all arrives."""
        for end in (0, 1):
            wire = self.current[end] or (self.dialing if end == 0 else None)
            if wire is not None:
                self.drop(end, wire)
        self.dial()
        self.flush()
        assert self.one_session
        # What the last acknowledgement still owes comes with the next heartbeat.
        while any(session is not None and session.queue for session in self.sessions):
            self.ping(0)
            self.ping(1)
            self.flush()
        for end in (0, 1):
            sent = {stream: numbers for stream, numbers in self.sent[1 - end].items() if numbers}
            assert {stream: numbers for stream, numbers in self.got[end].items() if numbers} == sent
            session = self.sessions[end]
            assert session is not None
            assert session.received == sum(map(len, sent.values()))


PipeMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
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
