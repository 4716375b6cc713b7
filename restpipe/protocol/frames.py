"""The one frame format of every link, and its incremental decoder.

A frame is `u8 kind | u8 flags | u16 head length | u32 body length | u64 stream`, big-endian, followed by
the head (a protobuf message of `schema.proto`) and the body (opaque bytes).
"""

from __future__ import annotations

import enum
from struct import Struct
from typing import NamedTuple

from restpipe.errors import Code, ProtocolError

HEADER = Struct(">BBHIQ")
HEADER_SIZE = HEADER.size
MAX_BODY = 65536
"""Bytes of body in one frame; more is a run of DATA frames."""
MAX_HEAD = 65535
END = 1
"""Flag: the last frame of this side of the stream."""

_COUNT = Struct(">Q")
_CREDIT = Struct(">I")
_TURN = Struct(">II")


class Kind(enum.IntEnum):
    """Kinds below 128 belong to a stream and are numbered by their place; the others belong to the link.

    A receiver can so number rightly even a kind that it does not know.
    """

    EVENT = 1
    REPLY = 2
    DATA = 3
    RESET = 4
    WINDOW = 5
    ORIGIN = 6
    HELLO = 128
    WELCOME = 129
    ACK = 130
    PING = 131
    PONG = 132
    GOAWAY = 133
    CAPACITY = 134
    NOTICE = 135
    TURN = 136


FIRST_LINK_KIND = 128


class Frame(NamedTuple):
    """One frame as it came off a link; head and body are cut out only by whoever needs them."""

    kind: int
    flags: int
    head_size: int
    stream: int
    payload: bytes
    """Head and body, one after the other."""

    @property
    def head(self) -> bytes:
        return self.payload[: self.head_size]

    @property
    def body(self) -> bytes:
        return self.payload[self.head_size :]

    @property
    def ends(self) -> bool:
        return bool(self.flags & END)

    def renumbered(self, stream: int) -> bytes:
        """The frame's bytes as they go out on another link, where its stream has another number."""
        payload = self.payload
        body_size = len(payload) - self.head_size
        return HEADER.pack(self.kind, self.flags, self.head_size, body_size, stream) + payload


def encode(
    kind: int, stream: int = 0, head: bytes = b"", body: bytes | memoryview = b"", *, flags: int = 0
) -> bytes:
    """Bytes of one frame. `ValueError` when head or body are larger than a frame may carry."""
    head_size = len(head)
    body_size = len(body)
    if head_size > MAX_HEAD:
        raise ValueError(f"a head of {head_size} bytes; at most {MAX_HEAD} fit a frame")
    if body_size > MAX_BODY:
        raise ValueError(f"a body of {body_size} bytes; at most {MAX_BODY} fit a frame")
    return b"".join((HEADER.pack(kind, flags, head_size, body_size, stream), head, body))


def encode_count(kind: int, count: int) -> bytes:
    """ACK, PING or PONG: the number of numbered frames taken over so far (u64)."""
    return encode(kind, body=_COUNT.pack(count))


def encode_credit(kind: int, stream: int, credit: int) -> bytes:
    """WINDOW or CAPACITY: a u32."""
    return encode(kind, stream, body=_CREDIT.pack(credit))


def encode_turn(turn_s: float, round_s: float) -> bytes:
    """TURN: come back `turn_s` after a break; all clients take `round_s` (u32 each, milliseconds)."""
    return encode(Kind.TURN, body=_TURN.pack(int(turn_s * 1000), int(round_s * 1000)))


def decode_turn(frame: Frame) -> tuple[float, float]:
    """Inverse of `encode_turn`; `ProtocolError` when the body is not two u32."""
    _check_size(_TURN, frame)
    turn_ms, round_ms = _TURN.unpack_from(frame.payload, frame.head_size)
    return turn_ms / 1000, round_ms / 1000


def decode_count(frame: Frame) -> int:
    """Inverse of `encode_count`; `ProtocolError` when the body is not a u64."""
    return _decode_number(_COUNT, frame)


def decode_credit(frame: Frame) -> int:
    """Inverse of `encode_credit`; `ProtocolError` when the body is not a u32."""
    return _decode_number(_CREDIT, frame)


def _check_size(wanted: Struct, frame: Frame) -> None:
    if len(frame.payload) - frame.head_size != wanted.size:
        raise ProtocolError(
            Code.BAD_FRAME, f"frame kind {frame.kind} must have a body of {wanted.size} bytes"
        )


def _decode_number(number: Struct, frame: Frame) -> int:
    _check_size(number, frame)
    value: int = number.unpack_from(frame.payload, frame.head_size)[0]
    return value


class FrameDecoder:
    """Cuts a stream of bytes into frames, however it was split on the way."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._needed = HEADER_SIZE

    @property
    def empty(self) -> bool:
        """No unfinished frame is held."""
        return not self._size

    def feed(self, data: bytes) -> list[Frame]:
        """All frames that are whole now.

        Keeps at most one unfinished frame. `ProtocolError` when a frame says it is larger than allowed:
        what came before it in `data` is lost then too, for the link is over.
        """
        if self._size:
            self._pieces.append(data)
            self._size += len(data)
            # Joining only once the frame is whole keeps a dripping peer from costing quadratic time.
            if self._size < self._needed:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        unpack = HEADER.unpack_from
        at, size = 0, len(data)
        needed = HEADER_SIZE
        while size - at >= HEADER_SIZE:
            kind, flags, head_size, body_size, stream = unpack(data, at)
            if body_size > MAX_BODY:
                raise ProtocolError(
                    Code.BAD_FRAME,
                    f"a frame announces a body of {body_size} bytes; at most {MAX_BODY} are allowed",
                )
            needed = HEADER_SIZE + head_size + body_size
            if size - at < needed:
                break
            frames.append(Frame(kind, flags, head_size, stream, data[at + HEADER_SIZE : at + needed]))
            at += needed
            needed = HEADER_SIZE
        self._needed = needed
        self._size = size - at
        if self._size:
            self._pieces.append(data[at:])
        return frames
