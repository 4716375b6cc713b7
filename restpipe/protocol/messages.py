"""Heads of frames: how they are read, and the reset that daemons and workers alike send."""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from restpipe.errors import Code, Delivered, ProtocolError, Reset
from restpipe.protocol import frames, schema_pb2
from restpipe.protocol.frames import Frame

MAX_REPLIES: Final = 1024
"""Events that a handler worker may have beside its CAPACITY: those whose replies are being sent."""

MessageT = TypeVar("MessageT", bound=Message)

_CODES: dict[int, Code] = {value.value: value for value in Code}
_DELIVERED: dict[int, Delivered] = {value.value: value for value in Delivered}
_MAX_DETAIL = 500
_MAX_NAMES = 50
_MAX_NAME = 253
"""Together these fit a head in any case."""


def read_message(message: MessageT, frame: Frame) -> MessageT:
    """Fills `message` from a frame's head; `ProtocolError` when that cannot be read."""
    try:
        message.ParseFromString(frame.payload[: frame.head_size])
    except DecodeError as error:
        raise ProtocolError(Code.BAD_MESSAGE, f"a head that is no {message.DESCRIPTOR.name}") from error
    return message


def encode_reset(stream: int, reset: Reset) -> bytes:
    """Return the RESET frame that tells the other side why a stream ended."""
    head = schema_pb2.Reset(
        code=reset.code,
        detail=reset.detail[:_MAX_DETAIL],
        delivered=schema_pb2.Delivered.Name(reset.delivered),
        names=(name[:_MAX_NAME] for name in reset.names[:_MAX_NAMES]),
    )
    return frames.encode(frames.RESET, stream, head.SerializeToString())


def read_reset(frame: Frame) -> Reset:
    """Return why the other side gave a stream up. A code that this version does not know is `UNSPECIFIED`."""
    head = read_message(schema_pb2.Reset(), frame)
    code = _CODES.get(head.code, Code.UNSPECIFIED)
    delivered = _DELIVERED.get(head.delivered, Delivered.UNKNOWN)
    return Reset(code, head.detail, delivered, tuple(head.names))


def encode_goaway(code: Code, detail: str) -> bytes:
    """Return the GOAWAY frame with which a side says that it will close the link, and why."""
    head = schema_pb2.Goaway(code=code, detail=detail[:_MAX_DETAIL])
    return frames.encode(frames.GOAWAY, head=head.SerializeToString())
