from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restpipe.errors import Code, ProtocolError
from restpipe.protocol import frames
from restpipe.protocol.connection import (
    ACK_EVERY_BYTES,
    ACK_EVERY_FRAMES,
    MAJOR,
    Connection,
    Side,
    new_session_id,
)
from restpipe.protocol.frames import ACK, DATA, EVENT, GOAWAY, HELLO, PING, PONG, WELCOME, Frame, FrameDecoder
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_HANDLER, ROLE_PIPE, Goaway, Hello, Role, Welcome
from restpipe.protocol.session import Session
from tests.unit.protocol.kit import received

HEARTBEAT = 5.0
BUFFER = 100_000


def dialer(*, session: Session | None = None, role: Role = ROLE_PIPE, now: float = 0.0) -> Connection:
    connection = Connection(Side.DIALER, heartbeat_s=HEARTBEAT, handshake_s=10.0, now=now)
    connection.say_hello(role, session=session, buffer_size=BUFFER)
    return connection


def listener(now: float = 0.0) -> Connection:
    return Connection(Side.LISTENER, heartbeat_s=HEARTBEAT, handshake_s=10.0, now=now)


def connected(
    session: Session | None = None, buffer_size: int = BUFFER, now: float = 0.0
) -> tuple[Connection, Connection]:
    """Both ends of a link whose handshake is over."""
    near, far = dialer(now=now), listener(now=now)
    (hello,) = received(far, near.data_to_send(1000), now)
    far.accept(session or Session(new_session_id(), buffer_size), read_message(Hello(), hello), now=now)
    received(near, far.data_to_send(1000), now)
    return near, far


def parsed(data: bytes) -> list[Frame]:
    return FrameDecoder().feed(data)


def kinds(data: bytes) -> list[int]:
    return [frame.kind for frame in parsed(data)]


def event(stream: int = 1) -> bytes:
    return frames.encode(EVENT, stream)


# The handshake.


def test_a_new_session_begins() -> None:
    near, far = dialer(role=ROLE_HANDLER), listener()
    (frame,) = received(far, near.data_to_send(1000), 0.0)
    hello = read_message(Hello(), frame)
    assert (hello.major, hello.role, hello.session, hello.received) == (MAJOR, ROLE_HANDLER, b"", 0)
    assert hello.software.startswith("restpipe/")
    assert far.session is None

    session = Session(new_session_id(), BUFFER)
    far.accept(session, hello, now=0.0, name="alpha")
    (frame,) = received(near, far.data_to_send(1000), 0.0)
    welcome = read_message(Welcome(), frame)
    assert (welcome.major, welcome.name, welcome.resumed) == (MAJOR, "alpha", False)
    assert near.session is not None
    assert near.session.id == session.id == welcome.session
    assert near.session.durable
    assert not near.resumed
    assert not far.resumed


def test_a_session_goes_on_over_a_new_connection() -> None:
    near, far = connected()
    ours, theirs = near.session, far.session
    assert ours is not None
    assert theirs is not None
    for stream in (1, 3, 5):
        ours.send(stream, event(stream))
    theirs.send(2, event(2))
    data = near.data_to_send(1000)
    received(far, data[:32], 0.0)
    far.data_to_send(1000)

    near, far = dialer(session=ours), listener()
    (hello,) = received(far, near.data_to_send(1000), 1.0)
    assert near.data_to_send(1000) == b""
    far.accept(theirs, read_message(Hello(), hello), now=1.0)
    got = received(near, far.data_to_send(1000), 1.0)
    assert [(frame.kind, frame.stream) for frame in got] == [(WELCOME, 0), (EVENT, 2)]
    assert near.resumed
    assert far.resumed
    assert near.session is ours
    assert [frame.stream for frame in received(far, near.data_to_send(1000), 1.0)] == [5]


def test_a_listener_that_does_not_know_the_session_begins_another() -> None:
    near = dialer(session=Session(new_session_id(), BUFFER))
    far = listener()
    (hello,) = received(far, near.data_to_send(1000), 0.0)
    far.accept(Session(new_session_id(), BUFFER), read_message(Hello(), hello), now=0.0)
    received(near, far.data_to_send(1000), 0.0)
    assert not near.resumed
    assert near.session is far.session or (near.session and far.session and near.session.id == far.session.id)


def welcome(**fields: object) -> bytes:
    fields = {"major": MAJOR, "session": b"s" * 16} | fields
    return frames.encode(WELCOME, head=Welcome(**fields).SerializeToString())  # type: ignore[arg-type]


@pytest.mark.parametrize("session", [None, Session(b"t" * 16, BUFFER)])
def test_a_listener_that_resumes_what_was_not_asked_for_is_refused(session: Session | None) -> None:
    with pytest.raises(ProtocolError, match="not asked for") as caught:
        received(dialer(session=session), welcome(resumed=True), 0.0)
    assert caught.value.code is Code.HANDSHAKE


@pytest.mark.parametrize("identifier", [b"", b"short", b"x" * 17])
def test_a_session_must_be_named_by_16_bytes(identifier: bytes) -> None:
    with pytest.raises(ProtocolError, match="16 bytes"):
        received(dialer(), welcome(session=identifier), 0.0)


def test_wrong_resume_counts_are_refused_on_both_sides() -> None:
    with pytest.raises(ProtocolError, match="cannot go on after frame 7") as caught:
        received(dialer(session=Session(b"s" * 16, BUFFER)), welcome(resumed=True, received=7), 0.0)
    assert caught.value.code is Code.BAD_FRAME
    hello = Hello(major=MAJOR, session=b"s" * 16, received=7)
    far = listener()
    with pytest.raises(ProtocolError, match="cannot go on after frame 7"):
        far.accept(Session(b"s" * 16, BUFFER), hello, now=0.0)
    assert far.session is None
    assert far.data_to_send(1000) == b""


def test_another_major_version_is_refused_in_words_on_both_sides() -> None:
    expected = "the other side speaks version 2 of the protocol, this side version 1"
    hello = frames.encode(HELLO, head=Hello(major=2, minor=7).SerializeToString())
    far = listener()
    with pytest.raises(ProtocolError, match=expected) as caught:
        received(far, hello, 0.0)
    assert caught.value.code is Code.VERSION
    with pytest.raises(ProtocolError, match=expected):
        received(dialer(), welcome(major=2), 0.0)

    near = dialer()
    (frame,) = received(near, far.goodbye(caught.value.code, caught.value.detail), 0.0)
    goaway = read_message(Goaway(), frame)
    assert goaway.code == Code.VERSION
    assert expected in goaway.detail


def test_a_newer_minor_version_is_welcome() -> None:
    # Field 1000, a varint: something of a later version.
    head = Hello(major=MAJOR, minor=99).SerializeToString() + b"\xc0\x3e\x01"
    (frame,) = received(listener(), frames.encode(HELLO, head=head), 0.0)
    assert frame.kind == HELLO


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"G", b"\x16\x03\x01\x02\x00", b"\0"])
def test_strangers_are_known_by_their_first_byte(data: bytes) -> None:
    for side in (listener(), dialer()):
        with pytest.raises(ProtocolError, match="the first bytes are not RestPipe's") as caught:
            received(side, data, 0.0)
        assert caught.value.code is Code.HANDSHAKE


def test_the_wrong_first_frame_is_refused() -> None:
    for side, first in (
        (listener(), welcome()),
        (dialer(), dialer().data_to_send(1000)),
        (listener(), event()),
    ):
        with pytest.raises(ProtocolError, match="not RestPipe's"):
            received(side, first, 0.0)


def test_a_hello_may_come_byte_by_byte() -> None:
    far = listener()
    hello = dialer().data_to_send(1000)
    got = [frame for byte in hello for frame in received(far, bytes((byte,)), 0.0)]
    assert [frame.kind for frame in got] == [HELLO]


def test_frames_before_the_handshake_is_over_are_refused() -> None:
    with pytest.raises(ProtocolError, match="before the handshake is over") as caught:
        received(listener(), dialer().data_to_send(1000) + event(), 0.0)
    assert caught.value.code is Code.HANDSHAKE
    far = listener()
    received(far, dialer().data_to_send(1000), 0.0)
    with pytest.raises(ProtocolError):
        received(far, event(), 0.0)


def test_frames_right_behind_the_welcome_are_not() -> None:
    near = dialer()
    got = received(near, welcome() + event(2) + event(4), 0.0)
    assert [frame.kind for frame in got] == [WELCOME, EVENT, EVENT]
    assert near.session is not None
    assert near.session.received == 2


@pytest.mark.parametrize("kind", [HELLO, WELCOME])
def test_a_second_handshake_is_refused(kind: int) -> None:
    for side in connected():
        with pytest.raises(ProtocolError, match="second handshake"):
            received(side, frames.encode(kind), 0.0)


def test_a_refusal_is_handed_over_even_before_the_handshake() -> None:
    for side in (listener(), dialer()):
        (frame,) = received(side, listener().goodbye(Code.TOO_MANY_LINKS, "full"), 0.0)
        assert read_message(Goaway(), frame).detail == "full"
        assert side.peer_goes


def test_the_other_side_says_that_it_goes() -> None:
    near, far = connected()
    (frame,) = received(near, far.goodbye(Code.SHUTDOWN, "x" * 5000), 0.0)
    assert near.peer_goes
    assert read_message(Goaway(), frame).detail == "x" * 500
    assert not far.peer_goes


# Numbers and acknowledgements.


def test_unknown_kinds_are_skipped_but_numbered_rightly() -> None:
    _, far = connected()
    assert far.session is not None
    data = frames.encode(77, 1, b"head", b"body") + frames.encode(200, 0, b"head", b"body") + event()
    assert [frame.kind for frame in received(far, data, 0.0)] == [77, EVENT]
    assert far.session.received == 2


def test_frames_are_acknowledged_by_number_and_by_size() -> None:
    _, far = connected()
    received(far, event() * (ACK_EVERY_FRAMES - 1), 0.0)
    assert far.data_to_send(1000) == b""
    received(far, event(), 0.0)
    (ack,) = parsed(far.data_to_send(1000))
    assert (ack.kind, frames.decode_count(ack)) == (ACK, ACK_EVERY_FRAMES)
    received(far, frames.encode(DATA, 1, body=bytes(ACK_EVERY_BYTES)), 0.0)
    (ack,) = parsed(far.data_to_send(1000))
    assert frames.decode_count(ack) == ACK_EVERY_FRAMES + 1


def test_acknowledgements_and_heartbeats_free_what_was_kept() -> None:
    for kind in (ACK, PING, PONG):
        near, _ = connected()
        assert near.session is not None
        near.session.send(1, event())
        near.data_to_send(1000)
        assert near.session.unacknowledged_size
        received(near, frames.encode_count(kind, 1), 0.0)
        assert near.session.unacknowledged_size == 0


def test_links_that_keep_nothing_acknowledge_nothing() -> None:
    _, far = connected(Session(new_session_id(), 0))
    received(far, event() * 1000, 0.0)
    assert far.data_to_send(1000) == b""


@pytest.mark.parametrize("kind", [ACK, PING, PONG])
@pytest.mark.parametrize("body", [b"", b"1234567", b"123456789"])
def test_counts_of_a_wrong_size_are_refused(kind: int, body: bytes) -> None:
    near, _ = connected()
    with pytest.raises(ProtocolError) as caught:
        received(near, frames.encode(kind, body=body), 0.0)
    assert caught.value.code is Code.BAD_FRAME


@pytest.mark.parametrize("kind", [ACK, PING, PONG])
def test_counts_of_what_was_never_sent_are_refused(kind: int) -> None:
    near, _ = connected()
    with pytest.raises(ProtocolError, match="1 frames acknowledged, but only 0 were sent"):
        received(near, frames.encode_count(kind, 1), 0.0)


def test_a_peer_that_pings_but_does_not_read_pins_no_memory() -> None:
    _, far = connected()
    ping = frames.encode_count(PING, 0)
    for _ in range(1000):
        received(far, ping + event() * ACK_EVERY_FRAMES, 0.0)
    answer = parsed(far.data_to_send(1000))
    assert [frame.kind for frame in answer] == [PONG]
    assert frames.decode_count(answer[0]) == 1000 * ACK_EVERY_FRAMES
    assert far.data_to_send(1000) == b""


def test_control_frames_go_before_streams() -> None:
    near, _ = connected()
    assert near.session is not None
    near.session.send(1, event())
    near.send_control(frames.encode(GOAWAY))
    assert kinds(near.data_to_send(1000)) == [GOAWAY, EVENT]


# Heartbeats.


def run_clock(connection: Connection, now: float, until: float) -> float:
    """Ticks at each moment that the connection asks for, up to `until`; returns the last."""
    while connection.next_tick <= until:
        assert connection.next_tick >= now
        now = connection.next_tick
        connection.tick(now)
    return now


def test_nothing_by_the_end_of_the_handshake_ends_it() -> None:
    for side in (listener(now=100.0), dialer(now=100.0)):
        with pytest.raises(ProtocolError, match="no handshake in time") as caught:
            run_clock(side, 100.0, 1000.0)
        assert caught.value.code is Code.HANDSHAKE
        assert side.next_tick <= 110.0


@pytest.mark.parametrize("start", [0.0, 1000.0])
def test_links_at_rest_stay_up(start: float) -> None:
    near, far = connected(now=start)
    now, pongs = start, 0
    for _ in range(100):
        now = min(near.next_tick, far.next_tick)
        for one, other in ((near, far), (far, near)):
            if one.next_tick <= now:
                one.tick(now)
                received(other, one.data_to_send(1000), now + 0.01)
                pongs += any(f.kind == PONG for f in received(one, other.data_to_send(1000), now + 0.25))
    assert now > start + 40 * HEARTBEAT
    assert pongs >= 40
    assert near.pinged_at is None
    assert near.round_trip_s == pytest.approx(0.25)
    assert far.round_trip_s is None, "the dialer's pings are enough for both"


def test_a_listener_pings_a_dialer_that_is_silent() -> None:
    """Its interval may be a longer one."""
    near, far = connected()
    for _ in range(5):
        assert far.pinged_at is None
        while far.pinged_at is None:
            now = far.next_tick
            far.tick(now)
        assert received(near, far.data_to_send(1000), now) == []
        (pong,) = received(far, near.data_to_send(1000), now + 0.1)
        assert pong.kind == PONG
    assert now > 5 * HEARTBEAT
    assert far.round_trip_s == pytest.approx(0.1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.0, 4.0), max_size=12))
def test_a_dead_peer_is_found_within_two_intervals_whatever_is_sent_to_it(pauses: list[float]) -> None:
    near, _ = connected()
    assert near.session is not None
    heard_at = 0.0
    for pause in pauses:
        while near.next_tick < heard_at + pause:
            near.tick(near.next_tick)
        heard_at += pause
        received(near, event(2), heard_at)
    now = heard_at
    with pytest.raises(ProtocolError, match="nothing heard") as caught:
        while True:
            now = near.next_tick
            near.session.send(1, event())
            near.data_to_send(1000)
            near.tick(now)
    assert caught.value.code is Code.HEARTBEAT
    assert now - heard_at == pytest.approx(2 * HEARTBEAT)


def test_the_first_of_several_unanswered_pings_counts() -> None:
    near, _ = connected(now=0.0)
    near.ping(0.0)
    assert near.pinged_at == 0.0
    near.tick(HEARTBEAT)
    near.ping(6.0)
    assert near.pinged_at == 0.0
    received(near, frames.encode_count(PONG, 0), 7.0)
    assert near.pinged_at is None
    assert near.round_trip_s == 7.0


def test_a_process_that_was_stopped_does_not_blame_its_peer() -> None:
    near, _ = connected()
    near.tick(HEARTBEAT)
    near.data_to_send(1000)
    near.tick(1000.0)
    assert near.next_tick > 1000.0
    # But it does not forgive for ever: whoever is silent from now on is dead.
    with pytest.raises(ProtocolError, match="nothing heard"):
        run_clock(near, 1000.0, 1000.0 + 2 * HEARTBEAT)


@pytest.mark.parametrize("interval", [0.5, 50.0])
def test_the_interval_changes_while_the_link_is_up(interval: float) -> None:
    near, _far = connected()
    near.tick(HEARTBEAT)
    near.data_to_send(1000)
    now = HEARTBEAT + 1.0
    near.set_heartbeat(interval, now)
    assert near.next_tick == now + interval
    # Whatever wakes its owner before, or later, as it has set its timer by the interval before.
    near.tick(now)
    assert kinds(near.data_to_send(1000)) == []
    late = max(near.next_tick, HEARTBEAT * 2)
    near.tick(late)
    assert kinds(near.data_to_send(1000)) == [PING]
    with pytest.raises(ProtocolError, match="nothing heard"):
        for _ in range(4):
            near.tick(near.next_tick)


def test_silence_can_be_borne_for_longer() -> None:
    near = Connection(Side.DIALER, heartbeat_s=1.0, handshake_s=10.0, dead_s=10.0, now=0.0)
    received(near, welcome(), 0.0)
    run_clock(near, 0.0, 9.9)
    with pytest.raises(ProtocolError):
        run_clock(near, 9.0, 10.0)


# Anything at all.

some_frame = st.builds(
    lambda kind, stream, head, body: frames.encode(kind, stream, head, body),
    st.integers(0, 255),
    st.integers(0, 5),
    st.one_of(
        st.binary(max_size=20),
        st.just(Hello(major=MAJOR).SerializeToString()),
        st.just(Welcome(major=MAJOR, session=b"s" * 16).SerializeToString()),
    ),
    st.one_of(st.binary(max_size=20), st.integers(0, 3).map(lambda n: n.to_bytes(8, "big"))),
)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["dialer", "listener", "open dialer", "open listener"]),
    st.lists(st.one_of(some_frame, st.binary(max_size=40)), max_size=8),
)
def test_arbitrary_bytes_in_any_state_raise_protocol_errors_only(state: str, pieces: list[bytes]) -> None:
    near, far = connected()
    connection = {"dialer": dialer(), "listener": listener(), "open dialer": near, "open listener": far}[
        state
    ]
    assert near.session is not None
    near.session.send(1, event())
    near.data_to_send(1000)
    try:
        for piece in pieces:
            received(connection, piece, 0.0)
            connection.data_to_send(1000)
        connection.tick(0.0)
    except ProtocolError as fault:
        assert kinds(connection.goodbye(fault.code, fault.detail)) == [GOAWAY]
