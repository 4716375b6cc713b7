"""Where a request begins and ends (RFC 9112), strictly. Pure.

HTTP parsers differ, between their versions too, in what they forgive: bare line feeds, folded lines, two
lengths, sloppy chunks. Whatever two parsers may read in two ways can smuggle a request past the one in front,
so all of it is refused here, before the parser sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from restpipe.errors import Problem
from restpipe.web import responses
from restpipe.web.events import VERBS

MAX_HEAD = 32768
"""Bytes of request line and headers together, so that an event's head always fits its frame."""
MAX_CHUNK_LINE = 1024
MAX_TRAILERS = 8192

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_REQUEST_LINE = _TOKEN + rb" [\x21-\xff]++ HTTP/1\.[01]\r\n"
_FIELD = _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n"
_START = re.compile(_REQUEST_LINE)
_HEAD = re.compile(_REQUEST_LINE + rb"(?:" + _FIELD + rb")*+\r\n")
_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\x00")
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r]*+", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*+;[\t\x20-\x7e\x80-\xff]*+)?\r\n")
_TRAILER = re.compile(_FIELD)

_VERBS = frozenset(verb.encode() for verb in VERBS)

FRAMING_NAMES = frozenset({b"content-length", b"transfer-encoding", b"host", b"expect"})
"""Headers that `decide` must be shown."""


class Malformed(Exception):
    """The bytes are no request that can be read in one way only: answer `problem`, then close."""

    def __init__(self, detail: str, problem: Problem = responses.MALFORMED) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problem = problem


def head_size(data: bytes) -> int:
    """Bytes of the request head at the start of `data`; 0 while it is not all there.

    Raises `Malformed` as soon as it can be told.
    """
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0:
        _check_start(data)
        return 0
    if not _HEAD.fullmatch(data, 0, end + 4):
        raise Malformed("the request line or a header is malformed")
    # Parsers know different lists of verbs, and read differently what follows some of them.
    if data[: data.find(b" ")] not in _VERBS:
        raise Malformed(f"the verbs served are {', '.join(sorted(VERBS))}", responses.UNKNOWN_VERB)
    return end + 4


def _check_start(data: bytes) -> None:
    """A head that can never become well formed must not keep its sender waiting."""
    if len(data) >= MAX_HEAD:
        raise Malformed(
            f"the request line and headers together exceed {MAX_HEAD} bytes", responses.HEAD_TOO_LARGE
        )
    if _BARE.search(data):
        raise Malformed("a line in the request's head does not end with CRLF")
    if b"\n" in data and not _START.match(data):
        raise Malformed("the request line is malformed")


def without_upgrade(head: bytes) -> bytes:
    """The head without Upgrade headers: a server may ignore them (RFC 9110, section 7.8), parsers do not."""
    return _UPGRADE.sub(b"", head) if b"\r\nupgrade:" in head.lower() else head


class Framing(NamedTuple):
    """How the body of a request is delimited."""

    length: int | None
    """Bytes of body; None when it comes in chunks."""
    expects_continue: bool


NO_BODY = Framing(0, False)


def decide(version: str, fields: Iterable[tuple[bytes, bytes]]) -> Framing:
    """How the body is delimited, from the headers named in FRAMING_NAMES (RFC 9112, sections 3.2 and 6).

    Raises `Malformed` where the standard leaves room for two readings.
    """
    lengths: list[bytes] = []
    codings: list[bytes] = []
    hosts = 0
    expects = False
    for name, value in fields:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths.append(value.strip(b" \t"))
        elif name == b"transfer-encoding":
            codings.append(value.strip(b" \t").lower())
        else:
            expects = value.strip(b" \t").lower() == b"100-continue"
    if hosts > 1 or (not hosts and version != "1.0"):
        raise Malformed("there must be exactly one Host header")
    if not lengths and not codings:
        return Framing(0, expects) if expects else NO_BODY
    return Framing(_length(version, lengths, codings), expects)


def _length(version: str, lengths: list[bytes], codings: list[bytes]) -> int | None:
    if codings:
        if lengths:
            raise Malformed("Content-Length and Transfer-Encoding exclude each other")
        if version == "1.0":
            raise Malformed("HTTP/1.0 has no Transfer-Encoding")
        if codings != [b"chunked"]:
            raise Malformed("the only Transfer-Encoding served is 'chunked'", responses.UNKNOWN_CODING)
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Malformed("Content-Length must stand once, with one number")
    return int(lengths[0])


class Body(Protocol):
    """Follows a request's body through the bytes that arrive."""

    done: bool

    def take(self, data: bytes) -> int:
        """How many bytes of `data` belong to this body; `Malformed` when it is broken."""


class SizedBody:
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        self.done = not length
        self._left = length

    def take(self, data: bytes) -> int:
        taken = min(self._left, len(data))
        self._left -= taken
        self.done = not self._left
        return taken


class ChunkedBody:
    """A body in chunks, with its trailers, checked byte for byte."""

    def __init__(self) -> None:
        self.done = False
        self._line = b""
        self._left = 0
        """Bytes of the current chunk and its CRLF still to come."""
        self._in_trailers = False
        self._trailers = 0

    def take(self, data: bytes) -> int:
        at = 0
        while at < len(data) and not self.done:
            at = self._take_chunk(data, at) if self._left else self._take_line(data, at)
        return at

    def _take_chunk(self, data: bytes, at: int) -> int:
        stop = min(at + self._left, len(data))
        for place in range(max(at, at + self._left - 2), stop):
            if data[place] != b"\n\r"[at + self._left - place - 1]:
                raise Malformed("a chunk is not as long as it says")
        self._left -= stop - at
        return stop

    def _take_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end + 1
        self._line += data[at:stop]
        if len(self._line) > (MAX_TRAILERS if self._in_trailers else MAX_CHUNK_LINE):
            raise Malformed("a chunk's size line or a trailer is too long")
        if end >= 0:
            line, self._line = self._line, b""
            if self._in_trailers:
                self._take_trailer(line)
            else:
                self._begin_chunk(line)
        return stop

    def _begin_chunk(self, line: bytes) -> None:
        size = _CHUNK_LINE.fullmatch(line)
        if size is None:
            raise Malformed("a chunk's size line is malformed")
        length = int(size[1], 16)
        self._in_trailers = not length
        self._left = length + 2 if length else 0

    def _take_trailer(self, line: bytes) -> None:
        self._trailers += len(line)
        if line == b"\r\n":
            self.done = True
        elif not _TRAILER.fullmatch(line) or self._trailers > MAX_TRAILERS:
            raise Malformed("a trailer is malformed or too long")


def body_of(framing: Framing) -> Body | None:
    """What follows the body of a request so framed; None when it has none."""
    if framing.length is None:
        return ChunkedBody()
    return SizedBody(framing.length) if framing.length else None
