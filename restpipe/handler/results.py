"""From what a method returned or raised to the head and body of a reply. Pure."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

from restpipe.handler.api import UNHANDLED_EVENT_CODE, UNHANDLED_EXCEPTION_CODE, EventError, Reply
from restpipe.protocol import schema_pb2

JSON = "application/json"
BYTES = "application/octet-stream"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_NOT_THE_HANDLERS = frozenset(
    ("connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
) | {"content-type", "x-event-return-code"}
_CODES = range(-(2**31), 2**31)
_BODILESS = frozenset((204, 304))
_NO_STREAM = frozenset((dict, list, int, float, bool))
# `allow_nan=False`: NaN is no JSON, and few callers could read it.
_encode_json = json.JSONEncoder(allow_nan=False).encode


class Stream(NamedTuple):
    """A body that is read while it is sent."""

    source: Any
    """A binary file, an iterator or an async iterator."""
    length: int | None
    """Bytes of it, where that is known beforehand."""


class Answer(NamedTuple):
    """A reply that can be sent."""

    head: schema_pb2.Reply
    body: bytes | Stream


def answer_of(result: Any) -> Answer:
    """What a method returned, ready to be sent. TypeError or ValueError when nobody can make sense of it."""
    if isinstance(result, Reply):
        return _answer(result)
    if isinstance(result, tuple):
        if len(result) != 3:
            raise TypeError(
                f"a tuple must be (mime type, code, data), not {len(result)} long; JSON wants a list"
            )
        content_type, code, data = result
        return _answer(Reply(data, code=code, content_type=content_type))
    return _answer(Reply(result))


def answer_of_exception(exc: BaseException) -> Answer:
    """The document that a caller gets for an exception."""
    code, status = UNHANDLED_EXCEPTION_CODE, 500
    if isinstance(exc, EventError):
        code, status = exc.code, exc.status
    document = {
        "exception": {
            "message": _message(exc),
            "traceback": "".join(traceback.format_exception(exc)),
            "class": type(exc).__name__,
        }
    }
    return _answer(Reply(document, code=code, status=status))


def answer_unhandled(verb: str, noun: str, allowed: list[str]) -> Answer:
    """No method for this verb and noun."""
    message = f"no method handles {verb} of {noun[:200]!r}"
    document = {"error": {"message": message, "verb": verb, "noun": noun, "allow": allowed}}
    return _answer(Reply(document, code=UNHANDLED_EVENT_CODE, status=404))


def answer_options(allowed: list[str]) -> Answer:
    """For OPTIONS, where the handler has no method of its own."""
    return _answer(Reply(status=204, headers={"Allow": ", ".join(allowed)}))


def _answer(reply: Reply) -> Answer:
    head = schema_pb2.Reply(code=_check_code(reply.code), status=_check_status(reply.status))
    for name, value in reply.headers:
        _check_header(name, value)
        head.headers.add(name=name, value=value)
    body, content_type = _encode(reply.data, reply.content_type)
    if content_type:
        _check_header("Content-Type", content_type, own=True)
        head.content_type = content_type
    length = body.length if isinstance(body, Stream) else len(body)
    if reply.status in _BODILESS:
        if length != 0:
            raise ValueError(f"an answer of status {reply.status} has no body")
    elif length is not None:
        head.body_length = length
    return Answer(head, body)


def _encode(data: Any, content_type: str | None) -> tuple[bytes | Stream, str]:
    if content_type is not None and not isinstance(content_type, str):
        raise TypeError(f"a mime type is a str, not {type(content_type).__name__}")
    if data is None:
        return b"", content_type or ""
    if isinstance(data, str):
        return data.encode("utf-8"), content_type or JSON
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data), content_type or BYTES
    # Asking what is a stream takes long, and most answers are one of these.
    if type(data) not in _NO_STREAM and is_stream(data):
        return Stream(data, _length(data)), content_type or BYTES
    if content_type is None or is_json(content_type):
        return _encode_json(data).encode("ascii"), content_type or JSON
    raise TypeError(f"{type(data).__name__} cannot be sent as {content_type}: str, bytes or a stream can")


def is_json(content_type: str) -> bool:
    """Whether data of this type is JSON."""
    mime = content_type.partition(";")[0].strip().lower()
    return mime == JSON or mime.endswith("+json")


def is_stream(data: Any) -> bool:
    """A body that is read piece by piece."""
    if isinstance(data, io.TextIOBase):
        raise TypeError("a file must be opened in binary mode to be sent")
    return isinstance(data, (Iterator, AsyncIterator)) or is_file(data)


def is_file(data: Any) -> bool:
    return callable(getattr(data, "read", None))


def _length(data: Any) -> int | None:
    """Bytes from where a file stands to its end; None for what is no regular file."""
    if isinstance(data, io.BytesIO):
        return max(0, data.getbuffer().nbytes - data.tell())
    # Of the open file, not of its name: that may lead to another one by now. A file object that unpacks
    # what it reads has a descriptor too, with another length.
    if not isinstance(data, (io.BufferedReader, io.BufferedRandom, io.FileIO)):
        return None
    if not isinstance(getattr(data, "raw", data), io.FileIO):
        return None
    status = os.fstat(data.fileno())
    return max(0, status.st_size - data.tell()) if stat.S_ISREG(status.st_mode) else None


def _check_code(code: Any) -> int:
    if isinstance(code, int) and code in _CODES:
        return int(code)
    raise ValueError(f"a code is an integer of 32 bits, not {code!r}")


def _check_status(status: Any) -> int:
    if isinstance(status, int) and 200 <= status <= 599:
        return int(status)
    raise ValueError(f"a status is an integer from 200 to 599, not {status!r}")


def _check_header(name: Any, value: Any, *, own: bool = False) -> None:
    """Nothing in it may end the header, and those that frame the message are not the handler's to set."""
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header")
    if not own and name.lower() in _NOT_THE_HANDLERS:
        raise ValueError(f"the header {name} cannot be set so")
    if not isinstance(value, str) or _NOT_IN_VALUE.search(value):
        raise ValueError(f"{value!r} cannot be the value of the header {name}")


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:
        return f"({type(exc).__name__}, which cannot say what it means)"
