"""Callers: requests as bytes, their targets, headers and bodies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from restpipe.errors import Code, StreamReset
from restpipe.handler.post_data import decode_body
from restpipe.handler.target import parse_target
from restpipe.host.config import Role
from restpipe.web import framing, prefer
from restpipe.web.framing import Malformed
from restpipe.web.paths import BadTarget, UnknownPath, parse
from tests.fuzz.target import Target, one_line


class _Reader:
    """Reads requests from what arrives, as a connection does."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.ended = ""
        self._kept = b""
        self._body: framing.Body | None = None
        self._content: list[bytes] = []

    def take(self, data: bytes) -> None:
        data = self._kept + data
        self._kept = b""
        try:
            while data and not self.ended:
                data = self._step(data)
        except Malformed as fault:
            one_line(fault)
            self.ended = "malformed"

    def _step(self, data: bytes) -> bytes:
        if self._body is None:
            size = framing.head_size(data)
            if not size:
                self._kept = data
                return b""
            verb, target, version, _, fields = framing.split_head(data[:size])
            decided = framing.decide(version, fields)
            self.requests.append((verb, target, version, decided))
            self._body, self._content = framing.body_of(decided), []
            data = data[size:]
            if self._body is None and not decided.persists:
                self.ended = "closed"
        if self._body is not None:
            data = data[self._body.take(data, self._content) :]
            if self._body.done:
                self.requests.append(b"".join(self._content))
                self._body = None
        return data


def check_framing(data: bytes) -> None:
    """However it is cut, it is read in the same way."""
    size, stream = data[:1], data[1:]
    whole, cut = _Reader(), _Reader()
    whole.take(stream)
    step = size[0] % 16 + 1 if size else 1
    for at in range(0, len(stream), step):
        cut.take(stream[at : at + step])
    assert (whole.requests, whole.ended) == (cut.requests, cut.ended)


def framing_seeds() -> Iterator[bytes]:
    get = b"GET /client/a/time?x=%20y HTTP/1.1\r\nHost: x\r\nPrefer: wait=5\r\n\r\n"
    post = b"POST /client/a/x HTTP/1.1\r\nHost: x\r\n"
    yield b"\0" + get + get
    yield b"\0" + post + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello" + get
    yield b"\0" + post + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n" + get
    yield b"\0GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get
    yield b"\0" + post + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


def check_requests(data: bytes) -> None:
    """What is in a request: its target here and at the other end, its wait, its body."""
    raw, _, body = data.partition(b"\n")
    text = raw.decode("latin-1")
    for role in Role:
        with contextlib.suppress(BadTarget, UnknownPath):
            destination = parse(raw, role)
            assert destination.to or role is Role.CLIENT
            _parse_target(destination.target)
    _parse_target(text)
    wait = prefer.wait_s([text], 3600.0)
    assert wait is None or 0 < wait <= 3600.0
    with contextlib.suppress(StreamReset):
        decode_body(text, body)


def _parse_target(text: str) -> None:
    try:
        parse_target(text)
    except StreamReset as reset:
        assert reset.code is Code.BAD_REQUEST


def request_seeds() -> Iterator[bytes]:
    yield b"/client/WEB1.example/time/utc//a/b%20c?x=1&x=2&y"
    yield b"/client/b%C3%BCcher.example/x"
    yield b"http://x/server/noun//argument?query=%2F"
    yield b'wait=5; foo="bar", respond-async, wait="2.5"'
    yield b'application/json\n{"a": [1, 2.5e10, null, "\\u00fc"]}'
    yield b"text/plain; charset=utf-16\n\xff\xfeh\0i\0"


TARGETS = {
    "framing": Target(check_framing, framing_seeds),
    "requests": Target(check_requests, request_seeds),
}
