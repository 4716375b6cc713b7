"""The one frame format of every link, and its incremental decoder.

A frame is `u8 kind | u8 flags | u16 head length | u32 body length | u64 stream`, big-endian, followed by
the head (a protobuf message of `schema.proto`) and the body (opaque bytes).

Kinds below 128 belong to a stream and are numbered by their place; the others belong to the link. So a
receiver numbers rightly even a kind that it does not know. Kinds are plain integers: to look up a member of
an enumeration takes longer than most of what is done with a frame.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, final

from restpipe.errors import Code, ProtocolError

HEADER: Final = Struct(">BBHIQ")
HEADER_SIZE: Final = 16
MAX_BODY: Final = 65536
"""Bytes of body in one frame; more is a run of DATA frames."""
MAX_HEAD: Final = 65535
END: Final = 1
"""Flag: the last frame of this side of the stream."""

EVENT: Final = 1
REPLY: Final = 2
DATA: Final = 3
RESET: Final = 4
WINDOW: Final = 5
ORIGIN: Final = 6
FIRST_LINK_KIND: Final = 128
HELLO: Final = 128
WELCOME: Final = 129
ACK: Final = 130
PING: Final = 131
PONG: Final = 132
GOAWAY: Final = 133
CAPACITY: Final = 134
NOTICE: Final = 135
TURN: Final = 136

MANY: Final = 1 << 30
"""More frames than any number of bytes here can hold."""

PINNED_PART: Final = 0.125
"""Part of a buffer that an unfinished frame must fill to keep it; less is copied out."""

_COUNT: Final = Struct(">Q")
_CREDIT: Final = Struct(">I")
_TURN: Final = Struct(">II")


@final
class Frame:
    """One frame as it came off a link; head and body are cut out only where they are needed."""

    __slots__ = ("flags", "head_size", "kind", "payload", "stream")

    def __init__(self, kind: int, flags: int, head_size: int, stream: int, payload: bytes) -> None:
        self.kind = kind
        self.flags = flags
        self.head_size = head_size
        self.stream = stream
        self.payload = payload
        """Head and body, one after the other."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self._parts() == other._parts()

    def _parts(self) -> tuple[int, int, int, int, bytes]:
        return self.kind, self.flags, self.head_size, self.stream, self.payload

    def __repr__(self) -> str:
        body_size = len(self.payload) - self.head_size
        return (
            f"<Frame kind {self.kind}, stream {self.stream}, head {self.head_size}, body {body_size} bytes>"
        )

    @property
    def head(self) -> bytes:
        return self.payload[: self.head_size]

    @property
    def body(self) -> bytes:
        return self.payload[self.head_size :]

    @property
    def ends(self) -> bool:
        return self.flags & END != 0

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
    header = HEADER.pack(kind, flags, head_size, body_size, stream)
    return b"".join((header, head, body))


def encode_count(kind: int, count: int) -> bytes:
    """ACK, PING or PONG: the number of numbered frames taken over so far (u64)."""
    return encode(kind, body=_COUNT.pack(count))


def encode_credit(kind: int, stream: int, credit: int) -> bytes:
    """WINDOW or CAPACITY: a u32."""
    return encode(kind, stream, body=_CREDIT.pack(credit))


def encode_turn(turn_s: float, round_s: float) -> bytes:
    """TURN: come back `turn_s` after a break; all clients take `round_s` (u32 each, milliseconds)."""
    return encode(TURN, body=_TURN.pack(int(turn_s * 1000), int(round_s * 1000)))


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
    """Cuts a stream of bytes into frames, however it was split on the way.

    A payload is copied once: out of what came in, or of the pieces that came in. An unfinished frame keeps
    the buffer that it begins in, unless it is much smaller than that.
    """

    def __init__(self) -> None:
        self.behind = False
        """Whole frames are here that have not been taken."""
        self._data = b""
        self._at = 0
        """Where in `_data` the next frame begins."""
        self._pieces: list[bytes] = []
        """What came in behind `_data` while its frame was unfinished."""
        self._size = 0
        """Bytes that are not cut into frames yet."""
        self._needed = HEADER_SIZE
        """Bytes of the next frame, as far as is known."""

    @property
    def empty(self) -> bool:
        """No unfinished frame is held."""
        return not self._size

    def feed(self, data: bytes, most: int = MANY) -> list[Frame]:
        """Take `data` in and return frames that are whole now, at most `most`; feed nothing to get others.

        Keeps at most one unfinished frame. Raises `ProtocolError` if a frame says it is larger than allowed:
        what came before it in `data` is lost then too, for the link is over.
        """
        frames: list[Frame] = []
        if not self._size:
            self._data, self._at, self._size = data, 0, len(data)
        elif data and not self._resume(data, frames):
            return frames
        data, at, size = self._data, self._at, len(self._data)
        needed = HEADER_SIZE
        behind = False
        while size - at >= HEADER_SIZE:
            kind, flags, head_size, body_size, stream = HEADER.unpack_from(data, at)
            if body_size > MAX_BODY:
                raise ProtocolError(
                    Code.BAD_FRAME,
                    f"a frame announces a body of {body_size} bytes; at most {MAX_BODY} are allowed",
                )
            needed = HEADER_SIZE + head_size + body_size
            if size - at < needed:
                break
            if len(frames) >= most:
                behind = True
                break
            frames.append(Frame(kind, flags, head_size, stream, data[at + HEADER_SIZE : at + needed]))
            at += needed
            needed = HEADER_SIZE
        self.behind = behind
        self._needed = needed
        self._size = size - at
        self._at = at
        if at == size:
            self._data, self._at = b"", 0
        elif not behind and self._size < PINNED_PART * size:
            self._data, self._at = data[at:], 0
        return frames

    def _resume(self, data: bytes, frames: list[Frame]) -> bool:
        """Put `data` behind what is here. False if no frame is whole yet; one that is may go to `frames`."""
        missing = self._needed - self._size
        self._size += len(data)
        if missing > len(data):
            # Joining only once the frame is whole keeps a dripping peer from costing quadratic time.
            self._pieces.append(data)
            return False
        if self._needed == HEADER_SIZE or missing <= 0:
            self._data = b"".join((self._data[self._at :], *self._pieces, data))
            self._at = 0
        else:
            frames.append(self._finish(memoryview(data)[:missing]))
            self._data, self._at = data, missing
        self._pieces.clear()
        return True

    def _finish(self, last: memoryview) -> Frame:
        """Return the frame that `_data` begins, with what was still missing of it."""
        at = self._at
        kind, flags, head_size, _, stream = HEADER.unpack_from(self._data, at)
        first = memoryview(self._data)[at + HEADER_SIZE :]
        return Frame(kind, flags, head_size, stream, b"".join((first, *self._pieces, last)))
