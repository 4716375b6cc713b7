from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restpipe.errors import Code, Delivered, ProtocolError, Reset
from restpipe.protocol import schema_pb2
from restpipe.protocol.frames import EVENT, MAX_HEAD, RESET, Frame, FrameDecoder
from restpipe.protocol.messages import encode_reset, read_message, read_reset
from restpipe.protocol.schema_pb2 import Event, Goaway, Hello, Notice, Origin, Reply, Welcome


def frame_of(head: bytes) -> Frame:
    return Frame(RESET, 0, len(head), 1, head)


def sent_and_read(reset: Reset) -> Reset:
    (frame,) = FrameDecoder().feed(encode_reset(5, reset))
    assert (frame.kind, frame.stream, frame.body) == (RESET, 5, b"")
    return read_reset(frame)


@settings(deadline=None)
@given(
    st.sampled_from(Code),
    st.text(max_size=400),
    st.sampled_from(Delivered),
    st.lists(st.text(max_size=30), max_size=5),
)
def test_a_reset_comes_back(code: Code, detail: str, delivered: Delivered, names: list[str]) -> None:
    read = sent_and_read(Reset(code, detail, delivered, tuple(names)))
    assert (read.code, read.detail, read.delivered, read.names) == (code, detail, delivered, tuple(names))


def test_a_reset_always_fits_its_frame() -> None:
    names = tuple(f"client-{number}.{'x' * 200}.example" for number in range(10_000))
    reset = Reset(Code.AMBIGUOUS_PEER, "\N{PILE OF POO}" * 100_000, Delivered.NO, names)
    assert len(encode_reset(1, reset)) < MAX_HEAD
    read = sent_and_read(reset)
    assert read.code is Code.AMBIGUOUS_PEER
    assert read.names == names[: len(read.names)]
    assert len(read.names) >= 10
    one_long_name = Reset(Code.AMBIGUOUS_PEER, "", Delivered.NO, ("n" * 100_000,))
    assert sent_and_read(one_long_name).code is Code.AMBIGUOUS_PEER


def test_what_a_newer_version_says_is_understood_as_far_as_possible() -> None:
    head = schema_pb2.Reset(code=12345, detail="new", delivered=77).SerializeToString()  # type: ignore[arg-type]
    read = read_reset(frame_of(head))
    assert (read.code, read.detail, read.delivered) == (Code.UNSPECIFIED, "new", Delivered.UNKNOWN)
    # Field 1000, a varint: of a later version.
    assert read_message(Goaway(), frame_of(Goaway(code=7).SerializeToString() + b"\xc0\x3e\x01")).code == 7


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_arbitrary_heads_raise_protocol_errors_only(head: bytes) -> None:
    for message in (Hello, Welcome, Event, Origin, Reply, schema_pb2.Reset, Goaway, Notice):
        try:
            read_message(message(), frame_of(head))
        except ProtocolError as fault:
            assert fault.code is Code.BAD_MESSAGE
            assert message.DESCRIPTOR.name in fault.detail


def test_the_body_is_no_part_of_the_head() -> None:
    head = Event(verb="GET").SerializeToString()
    frame = Frame(EVENT, 0, len(head), 1, head + b"\xff\xff")
    assert read_message(Event(), frame).verb == "GET"


def test_text_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(ProtocolError):
        read_message(Goaway(), frame_of(b"\x12\x02\xff\xff"))
