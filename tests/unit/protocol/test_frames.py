from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restpipe.errors import Code, ProtocolError
from restpipe.protocol import frames
from restpipe.protocol.frames import (
    END,
    HEADER,
    HEADER_SIZE,
    MAX_BODY,
    MAX_HEAD,
    Frame,
    FrameDecoder,
    Kind,
)

U64 = (1 << 64) - 1

any_frame = st.builds(
    lambda kind, flags, head, body, stream: Frame(kind, flags, len(head), stream, head + body),
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=40),
    st.binary(max_size=90),
    st.integers(0, U64),
)


def encoded(frame: Frame) -> bytes:
    return frames.encode(frame.kind, frame.stream, frame.head, frame.body, flags=frame.flags)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


@settings(deadline=None)
@given(st.lists(any_frame, max_size=12), st.lists(st.integers(0, 5000), max_size=30))
def test_frames_survive_any_split(sent: list[Frame], cuts: list[int]) -> None:
    decoder = FrameDecoder()
    data = b"".join(map(encoded, sent))
    received = [frame for piece in split(data, cuts) for frame in decoder.feed(piece)]
    assert received == sent
    assert decoder.empty


@settings(deadline=None, max_examples=25)
@given(st.lists(any_frame, max_size=5))
def test_frames_survive_a_drip_and_come_as_soon_as_they_are_whole(sent: list[Frame]) -> None:
    decoder = FrameDecoder()
    for frame in sent:
        data = encoded(frame)
        early = [decoder.feed(data[at : at + 1]) for at in range(len(data) - 1)]
        assert not any(early)
        assert not decoder.empty
        assert decoder.feed(data[-1:]) == [frame]
        assert decoder.empty


def test_a_drip_is_held_in_pieces_and_joined_once() -> None:
    decoder = FrameDecoder()
    joined: list[int] = []
    cut = decoder._cut

    def counting_cut(data: bytes) -> list[Frame]:
        joined.append(len(data))
        return cut(data)

    decoder._cut = counting_cut  # type: ignore[method-assign]
    frame = Frame(Kind.DATA, 0, 0, 7, b"x" * MAX_BODY)
    received = [got for byte in encoded(frame) for got in decoder.feed(bytes((byte,)))]
    assert received == [frame]
    # The first byte, the whole header, the whole frame: each byte is looked at thrice, not 65,552 times.
    assert joined == [1, HEADER_SIZE, HEADER_SIZE + MAX_BODY]


def test_the_largest_frame_passes() -> None:
    frame = Frame(Kind.EVENT, END, MAX_HEAD, U64, b"h" * MAX_HEAD + b"b" * MAX_BODY)
    assert FrameDecoder().feed(encoded(frame)) == [frame]


def test_a_larger_one_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="head of 65536"):
        frames.encode(Kind.EVENT, 1, head=b"h" * (MAX_HEAD + 1))
    with pytest.raises(ValueError, match="body of 65537"):
        frames.encode(Kind.DATA, 1, body=b"b" * (MAX_BODY + 1))


def test_a_larger_one_is_refused_by_its_first_bytes_alone() -> None:
    announced = HEADER.pack(Kind.DATA, 0, 0, MAX_BODY + 1, 1)
    decoder = FrameDecoder()
    assert decoder.feed(announced[:-1]) == []
    with pytest.raises(ProtocolError, match="announces a body of 65537") as caught:
        decoder.feed(announced[-1:])
    assert caught.value.code is Code.BAD_FRAME


@settings(deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=10))
def test_arbitrary_bytes_raise_protocol_errors_only(pieces: list[bytes]) -> None:
    decoder = FrameDecoder()
    fed, cut_out = 0, 0
    try:
        for piece in pieces:
            fed += len(piece)
            cut_out += sum(HEADER_SIZE + len(frame.payload) for frame in decoder.feed(piece))
    except ProtocolError:
        return
    # No byte is lost or made up: what is no frame yet is held.
    assert decoder.empty == (fed == cut_out)
    assert cut_out <= fed


@given(any_frame, st.integers(0, U64))
def test_renumbering_changes_the_stream_alone(frame: Frame, stream: int) -> None:
    assert FrameDecoder().feed(frame.renumbered(stream)) == [frame._replace(stream=stream)]


@given(st.integers(0, U64), st.integers(0, (1 << 32) - 1))
def test_numbers_come_back(count: int, credit: int) -> None:
    (frame,) = FrameDecoder().feed(frames.encode_count(Kind.ACK, count))
    assert frames.decode_count(frame) == count
    (frame,) = FrameDecoder().feed(frames.encode_credit(Kind.WINDOW, 9, credit))
    assert (frame.stream, frames.decode_credit(frame)) == (9, credit)


@given(st.binary(max_size=3), st.binary(max_size=12))
def test_numbers_of_another_size_are_refused(head: bytes, body: bytes) -> None:
    frame = Frame(Kind.ACK, 0, len(head), 0, head + body)
    for decode, size in ((frames.decode_count, 8), (frames.decode_credit, 4)):
        if len(body) == size:
            decode(frame)
        else:
            with pytest.raises(ProtocolError, match=f"{size} bytes") as caught:
                decode(frame)
            assert caught.value.code is Code.BAD_FRAME


@given(st.floats(0, 4e6), st.floats(0, 4e6))
def test_turns_come_back_in_milliseconds(turn_s: float, round_s: float) -> None:
    (frame,) = FrameDecoder().feed(frames.encode_turn(turn_s, round_s))
    assert frames.decode_turn(frame) == (int(turn_s * 1000) / 1000, int(round_s * 1000) / 1000)


def test_a_turn_of_another_size_is_refused() -> None:
    (frame,) = FrameDecoder().feed(frames.encode(Kind.TURN, body=bytes(7)))
    with pytest.raises(ProtocolError):
        frames.decode_turn(frame)


def test_kinds_are_on_their_side_of_the_border() -> None:
    of_streams = {Kind.EVENT, Kind.REPLY, Kind.DATA, Kind.RESET, Kind.WINDOW, Kind.ORIGIN}
    assert {kind for kind in Kind if kind < frames.FIRST_LINK_KIND} == of_streams
