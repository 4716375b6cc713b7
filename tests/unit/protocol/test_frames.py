from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restpipe.errors import Code, ProtocolError
from restpipe.protocol import frames
from restpipe.protocol.frames import (
    ACK,
    CAPACITY,
    DATA,
    END,
    EVENT,
    GOAWAY,
    HEADER,
    HEADER_SIZE,
    HELLO,
    MAX_BODY,
    MAX_HEAD,
    NOTICE,
    ORIGIN,
    PING,
    PONG,
    REPLY,
    RESET,
    TURN,
    WELCOME,
    WINDOW,
    Frame,
    FrameDecoder,
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
    frame = Frame(DATA, 0, 0, 7, b"x" * MAX_BODY)
    data = encoded(frame)
    for byte in data[:-1]:
        assert decoder.feed(bytes((byte,))) == []
    # The header was joined once; each byte behind it is held as it came.
    assert len(decoder._data) == HEADER_SIZE
    assert len(decoder._pieces) == MAX_BODY - 1
    assert decoder.feed(data[-1:]) == [frame]
    assert decoder._pieces == []


def test_the_largest_frame_passes() -> None:
    frame = Frame(EVENT, END, MAX_HEAD, U64, b"h" * MAX_HEAD + b"b" * MAX_BODY)
    assert FrameDecoder().feed(encoded(frame)) == [frame]


def test_a_larger_one_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="head of 65536"):
        frames.encode(EVENT, 1, head=b"h" * (MAX_HEAD + 1))
    with pytest.raises(ValueError, match="body of 65537"):
        frames.encode(DATA, 1, body=b"b" * (MAX_BODY + 1))


def test_a_larger_one_is_refused_by_its_first_bytes_alone() -> None:
    announced = HEADER.pack(DATA, 0, 0, MAX_BODY + 1, 1)
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
    (renumbered,) = FrameDecoder().feed(frame.renumbered(stream))
    assert renumbered == Frame(frame.kind, frame.flags, frame.head_size, stream, frame.payload)


@given(st.integers(0, U64), st.integers(0, (1 << 32) - 1))
def test_numbers_come_back(count: int, credit: int) -> None:
    (frame,) = FrameDecoder().feed(frames.encode_count(ACK, count))
    assert frames.decode_count(frame) == count
    (frame,) = FrameDecoder().feed(frames.encode_credit(WINDOW, 9, credit))
    assert (frame.stream, frames.decode_credit(frame)) == (9, credit)


@given(st.binary(max_size=3), st.binary(max_size=12))
def test_numbers_of_another_size_are_refused(head: bytes, body: bytes) -> None:
    frame = Frame(ACK, 0, len(head), 0, head + body)
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
    (frame,) = FrameDecoder().feed(frames.encode(TURN, body=bytes(7)))
    with pytest.raises(ProtocolError):
        frames.decode_turn(frame)


def test_kinds_are_on_their_side_of_the_border() -> None:
    of_streams = {EVENT, REPLY, DATA, RESET, WINDOW, ORIGIN}
    of_links = {HELLO, WELCOME, ACK, PING, PONG, GOAWAY, CAPACITY, NOTICE, TURN}
    assert max(of_streams) < frames.FIRST_LINK_KIND == min(of_links)
    assert max(of_links) < 256


@given(st.binary(max_size=200), st.integers(1, 5))
def test_frames_taken_by_turns_are_the_same(payload: bytes, most: int) -> None:
    encoded = [frames.encode(DATA, stream, body=payload[:stream]) for stream in range(20)]
    whole, by_turns = FrameDecoder(), FrameDecoder()
    stream = b"".join(encoded)
    taken = by_turns.feed(stream + encoded[0][:-1], most)
    while by_turns.behind:
        more = by_turns.feed(b"", most)
        assert 0 < len(more) <= most
        taken += more
    assert taken == whole.feed(stream)
    assert by_turns.feed(encoded[0][-1:]) == FrameDecoder().feed(encoded[0])
    assert by_turns.empty


def test_what_comes_before_earlier_frames_were_taken_waits_behind_them() -> None:
    decoder = FrameDecoder()
    first = [frames.encode(DATA, stream) for stream in range(4)]
    taken = decoder.feed(b"".join(first), 1)
    assert decoder.behind
    taken += decoder.feed(frames.encode(DATA, 9), 2)
    taken += decoder.feed(b"", 9)
    assert [frame.stream for frame in taken] == [0, 1, 2, 3, 9]
    assert not decoder.behind
