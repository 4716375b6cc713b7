"""From what a method returned or raised to the head and body of a reply. Pure."""

from __future__ import annotations

import io
import json
import os
import stat
import traceback
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from restpipe.errors import message_of
from restpipe.handler.api import (
    UNHANDLED_EVENT_CODE,
    UNHANDLED_EXCEPTION_CODE,
    EventError,
    Reply,
    check_code,
    check_status,
)
from restpipe.http import BODILESS, RESERVED, is_field_value, is_token
from restpipe.protocol import schema_pb2

JSON = "application/json"
BYTES = "application/octet-stream"

DOCUMENTS = frozenset((dict, list, int, float, bool))
"""Types of which a result is JSON, whatever else it could be."""
# `allow_nan=False`: NaN is no JSON, and few callers could read it.
_encode_json = json.JSONEncoder(allow_nan=False).encode
_Head = schema_pb2.Reply


class Stream(NamedTuple):
    """A body that is read while it is sent."""

    source: Any
    """A binary file, an iterator or an async iterator."""
    length: int | None
    """Bytes of it; None if that is not known beforehand."""


Answer: TypeAlias = tuple[bytes, bytes | Stream]
"""A reply that can be sent: its head as it is on the wire, and its body."""


def answer_of(result: Any) -> Answer:
    """Make the answer of what a method returned. Raises TypeError or ValueError if it cannot be sent."""
    if type(result) in DOCUMENTS:
        body = _encode_json(result).encode("ascii")
        return _Head(status=200, content_type=JSON, body_length=len(body)).SerializeToString(), body
    if isinstance(result, Reply):
        return _answer(result.data, result.content_type, result.code, result.status, result.headers)
    if isinstance(result, tuple):
        if len(result) != 3:
            raise TypeError(
                f"a tuple must be (mime type, code, data), not {len(result)} long; JSON wants a list"
            )
        content_type, code, data = result
        if content_type is not None and not isinstance(content_type, str):
            raise TypeError(
                f"a tuple must be (mime type, code, data), and {content_type!r:.100} is no mime type; "
                "JSON wants a list"
            )
        return _answer(data, content_type, code)
    return _answer(result)


def answer_of_exception(exc: BaseException) -> Answer:
    """Make the document that a caller gets for an exception."""
    code, status = code_and_status(exc)
    document = {
        "exception": {
            "message": message_of(exc),
            "traceback": _traceback_of(exc),
            "class": type(exc).__name__,
        }
    }
    return _answer(document, code=code, status=status)


def code_and_status(exc: BaseException) -> tuple[int, int]:
    """Return what an exception is answered with: 251 and 500 unless it has a good choice of its own."""
    if isinstance(exc, EventError):
        try:
            code, status = check_code(exc.code), check_status(exc.status)
        except (AttributeError, TypeError, ValueError):
            pass  # of a class that does not call EventError's own `__init__`, say
        else:
            if code != 0 and status not in BODILESS:
                return code, status
    return UNHANDLED_EXCEPTION_CODE, 500


def of_head(answer: Answer) -> Answer:
    """Make the answer of a method for HEAD alone, which need not know how long the answer to GET would be."""
    head, body = answer
    return answer if body else (without_length(head), body)


def without_length(head: bytes) -> bytes:
    """Return the head of a reply without the length of its body."""
    read = _Head.FromString(head)
    read.ClearField("body_length")
    return read.SerializeToString()


def of_nothing(head: bytes) -> bytes:
    """Return the head of a reply with a body that has turned out to be empty."""
    read = _Head.FromString(head)
    read.body_length = 0
    return read.SerializeToString()


def answer_unhandled(verb: str, noun: str, allowed: list[str]) -> Answer:
    """Make the answer to an event that no method handles."""
    message = f"no method handles {verb} of {noun[:200]!r}"
    document = {"error": {"message": message, "verb": verb, "noun": noun, "allow": allowed}}
    return _answer(document, code=UNHANDLED_EVENT_CODE, status=404)


def answer_options(allowed: list[str]) -> Answer:
    """Make the answer to OPTIONS, where the handler has no method of its own."""
    return _answer(None, status=204, headers=[("Allow", ", ".join(allowed))])


def _answer(
    data: Any,
    content_type: Any = None,
    code: Any = 0,
    status: Any = 200,
    headers: Iterable[tuple[Any, Any]] = (),
) -> Answer:
    head = _Head(code=check_code(code), status=check_status(status))
    for name, value in headers:
        _check_header(name, value)
        head.headers.add(name=name, value=value)
    body, content_type = _encode(data, content_type)
    if content_type:
        head.content_type = content_type
    length = body.length if isinstance(body, Stream) else len(body)
    if status in BODILESS:
        if length != 0:
            raise ValueError(f"an answer of status {status} has no body")
    elif length is not None:
        head.body_length = length
    return head.SerializeToString(), body


def _encode(data: Any, content_type: Any) -> tuple[bytes | Stream, str]:
    """Body and content type, which is empty if there is neither."""
    if content_type is not None:
        _check_content_type(content_type)
    if data is None:
        return b"", content_type or ""
    if isinstance(data, str):
        return data.encode("utf-8"), content_type or JSON
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data), content_type or BYTES
    # Asking what is a stream takes long, and most answers are one of these.
    if type(data) not in DOCUMENTS and is_stream(data):
        return Stream(data, _length(data)), content_type or BYTES
    if content_type is None or is_json(content_type):
        return _encode_json(data).encode("ascii"), content_type or JSON
    raise TypeError(f"{type(data).__name__} cannot be sent as {content_type}: str, bytes or a stream can")


def is_json(content_type: str) -> bool:
    """Tell whether data of this type is JSON."""
    mime = content_type.partition(";")[0].strip().lower()
    return mime == JSON or mime.endswith("+json")


def is_stream(data: Any) -> bool:
    """Tell whether `data` is a body that is read piece by piece."""
    if isinstance(data, io.TextIOBase):
        raise TypeError("a file must be opened in binary mode to be sent")
    return isinstance(data, (Iterator, AsyncIterator)) or is_file(data)


def is_file(data: Any) -> bool:
    return callable(getattr(data, "read", None))


def _length(data: Any) -> int | None:
    """Bytes from where a file stands to its end; None if it is no regular file."""
    if isinstance(data, io.BytesIO):
        return max(0, data.getbuffer().nbytes - data.tell())
    # Of the open file, not of its name: that may lead to another one by now. A file object that unpacks
    # what it reads has a descriptor too, with another length.
    if not isinstance(data, (io.BufferedReader, io.BufferedRandom, io.FileIO)):
        return None
    if not isinstance(getattr(data, "raw", data), io.FileIO):
        return None
    status = os.fstat(data.fileno())
    # Files of the kernel (/proc) say that they have nothing.
    known = stat.S_ISREG(status.st_mode) and status.st_size > 0
    return max(0, status.st_size - data.tell()) if known else None


def _check_header(name: Any, value: Any) -> None:
    """Nothing in it may end the header, and those that RestPipe sets itself are not the handler's to set."""
    if not isinstance(name, str) or not is_token(name):
        raise ValueError(f"{name!r} is not the name of a header")
    if name.lower() in RESERVED:
        raise ValueError(f"the header {name} cannot be set by a handler")
    if not isinstance(value, str) or not is_field_value(value):
        raise ValueError(f"{value!r} cannot be the value of the header {name}")


def _check_content_type(content_type: Any) -> None:
    if not isinstance(content_type, str):
        raise TypeError(f"a mime type is a str, not {type(content_type).__name__}")
    if not is_field_value(content_type):
        raise ValueError(f"{content_type!r} cannot be the value of the header Content-Type")


def _traceback_of(exc: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(exc))
    except BaseException:
        return f"(a traceback of {type(exc).__name__} cannot be made)"
