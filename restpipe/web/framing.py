"""Where a request begins and ends (RFC 9112), strictly. Pure.

HTTP parsers differ, between their versions too, in what they forgive: bare line feeds, folded lines, two
lengths, sloppy chunks. What two parsers may read in two ways can smuggle a request past the one in front, so
all of it is refused here. What is left has one reading: a head is split at its line ends, spaces and colons.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple, NoReturn, Protocol

from restpipe.errors import Problem
from restpipe.http import AUTHORITY, FIELD_CHARACTERS, NAME_CHARACTERS, VERBS
from restpipe.web import responses

MAX_HEAD: Final = 32768
"""Bytes of request line and headers together, so that an event's head always fits its frame."""
MAX_CHUNK_LINE: Final = 1024
MAX_TRAILERS: Final = 8192

_TOKEN = rb"[%b]++" % NAME_CHARACTERS.encode()
_VALUE = rb"[%b]*+" % FIELD_CHARACTERS.encode()
_REQUEST_LINE = _TOKEN + rb" [\x21-\xff]++ HTTP/[0-9]\.[0-9]\r\n"
_FIELD = _TOKEN + rb":" + _VALUE + rb"\r\n"
_START = re.compile(_REQUEST_LINE)
_HEAD = re.compile(_REQUEST_LINE + rb"(?:" + _FIELD + rb")*+\r\n")
_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\x00")
_BLANK_LINES = re.compile(rb"(?:\r\n)++")
_HOST = re.compile(AUTHORITY.encode())
_LENGTH = re.compile(rb"0*+[0-9]{0,18}")
# Not possessive: see `restpipe.http.AUTHORITY`. What follows each part tells it from all others.
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t -\x7e\x80-\xff])*"'
_EXTENSION = rb"[ \t]*+;[ \t]*+" + _TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_CHUNK_LINE = re.compile(rb"(0*+[0-9A-Fa-f]{0,15})(?:" + _EXTENSION + rb")*\r\n")
_TRAILER = re.compile(_FIELD)

_VERBS = frozenset(verb.encode() for verb in VERBS)

FRAMING_NAMES: Final = frozenset({b"connection", b"content-length", b"expect", b"host", b"transfer-encoding"})
"""Headers that `decide` must be shown."""

Fields = list[tuple[bytes, bytes]]
"""Headers in their order: names in lower case, values without the white space around them."""


class Malformed(Exception):
    """The bytes are not a request that can be read in only one way: answer `problem`, then close."""

    def __init__(self, detail: str, problem: Problem = responses.MALFORMED) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problem = problem


def head_size(data: bytes) -> int:
    """Return the bytes of the request head at the start of `data`; 0 while it is not all there.

    Raises `Malformed` as soon as the head cannot become well formed.
    """
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0:
        _check_start(data)
        return 0
    if not _HEAD.fullmatch(data, 0, end + 4):
        raise Malformed("the request line or a header is malformed")
    if not data.startswith(b"HTTP/1.", data.find(b"\r\n") - len(b"HTTP/1.1")):
        raise Malformed("only HTTP/1.0 and 1.1 are served here", responses.UNKNOWN_VERSION)
    if data[: data.find(b" ")] not in _VERBS:
        raise Malformed(f"the verbs served are {', '.join(VERBS)}", responses.UNKNOWN_VERB)
    return end + 4


def _check_start(data: bytes) -> None:
    """Refuse a head that can never become well formed, so that its sender does not wait."""
    if len(data) >= MAX_HEAD:
        detail = f"the request line and headers together exceed {MAX_HEAD} bytes"
        problem = responses.HEAD_TOO_LARGE if b"\n" in data else responses.TARGET_TOO_LONG
        raise Malformed(detail, problem)
    if _BARE.search(data):
        raise Malformed("a line in the request's head does not end with CRLF")
    if b"\n" in data and not _START.match(data):
        raise Malformed("the request line is malformed")


def skip_blank_lines(data: bytes) -> bytes:
    """Return `data` without the empty lines that may precede a request (RFC 9112, section 2.2)."""
    blank = _BLANK_LINES.match(data)
    return data[blank.end() :] if blank else data


def split_head(head: bytes) -> tuple[bytes, bytes, str, Fields, Fields]:
    """Take a head apart that `head_size` has found whole and well formed.

    Returns verb, target as it stood, version (1.0 or 1.1), headers, and those of them named in FRAMING_NAMES.
    """
    line, _, rest = head[:-4].partition(b"\r\n")
    verb, target, protocol = line.split(b" ")
    fields: Fields = []
    framing_fields: Fields = []
    for line in rest.split(b"\r\n") if rest else ():
        name, _, value = line.partition(b":")
        field = (name.lower(), value.strip(b" \t"))
        fields.append(field)
        if field[0] in FRAMING_NAMES:
            framing_fields.append(field)
    return verb, target, "1.0" if protocol == b"HTTP/1.0" else "1.1", fields, framing_fields


class Framing(NamedTuple):
    """Where a request ends, and whether another may follow it."""

    length: int | None
    """Bytes of body; None if it comes in chunks."""
    expects_continue: bool
    """The caller sends the body only when it is told to (RFC 9110, section 10.1.1)."""
    persists: bool
    """The caller keeps the connection for another request (RFC 9112, section 9.3)."""


BODILESS: Final = Framing(0, False, True)
BODILESS_AND_LAST: Final = Framing(0, False, False)


def decide(version: str, fields: Iterable[tuple[bytes, bytes]]) -> Framing:
    """Return how a request is delimited, from its headers named in FRAMING_NAMES (RFC 9112, 3.2 and 6).

    Raises `Malformed` where the standard leaves room for two readings.
    """
    lengths: list[bytes] = []
    codings: list[bytes] = []
    options: list[bytes] = []
    hosts: list[bytes] = []
    expects = False
    for name, value in fields:
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            lengths.append(value.strip(b" \t"))
        elif name == b"transfer-encoding":
            codings.append(value.strip(b" \t").lower())
        elif name == b"connection":
            options += [option.strip(b" \t").lower() for option in value.split(b",")]
        else:
            # HTTP/1.0 knows no answer to it.
            expects = expects or (version != "1.0" and _lists(value, b"100-continue"))
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        raise Malformed("there must be exactly one Host header")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise Malformed("the Host header is not a host and a port")
    persists = _persists(version, options) if options else version != "1.0"
    if not lengths and not codings and not expects:
        return BODILESS if persists else BODILESS_AND_LAST
    return Framing(_length(version, lengths, codings) if lengths or codings else 0, expects, persists)


def _lists(value: bytes, member: bytes) -> bool:
    return member in [each.strip(b" \t").lower() for each in value.split(b",")]


def _persists(version: str, options: list[bytes]) -> bool:
    if b"close" in options:
        return False
    return version != "1.0" or b"keep-alive" in options


def _length(version: str, lengths: list[bytes], codings: list[bytes]) -> int | None:
    if codings:
        if lengths:
            raise Malformed("Content-Length and Transfer-Encoding exclude each other")
        if version == "1.0":
            raise Malformed("HTTP/1.0 has no Transfer-Encoding")
        if codings != [b"chunked"]:
            _refuse_codings(codings)
        return None
    if len(lengths) > 1 or not lengths[0] or not _LENGTH.fullmatch(lengths[0]):
        raise Malformed("Content-Length must stand once, with one number")
    return int(lengths[0])


def _refuse_codings(fields: list[bytes]) -> NoReturn:
    names = [name.strip(b" \t") for name in b",".join(fields).split(b",")]
    if names[-1] != b"chunked" or names.count(b"chunked") > 1:
        # Nobody can tell where such a body ends.
        raise Malformed("Transfer-Encoding must end with 'chunked', and name it once")
    raise Malformed("the only Transfer-Encoding served is 'chunked'", responses.UNKNOWN_CODING)


class Body(Protocol):
    """Follows a request's body through the bytes that arrive."""

    done: bool
    """All of it has arrived."""

    def take(self, data: bytes, content: list[bytes]) -> int:
        """Return how many bytes of `data` belong to this body, and append to `content` what they carry.

        Raises `Malformed` if the body is broken.
        """


class SizedBody:
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        self.done = not length
        self._left = length

    def take(self, data: bytes, content: list[bytes]) -> int:
        taken = min(self._left, len(data))
        self._left -= taken
        self.done = not self._left
        content.append(data if taken == len(data) else data[:taken])
        return taken


class ChunkedBody:
    """A body in chunks, checked byte for byte. Trailers are dropped: the event has left already."""

    def __init__(self) -> None:
        self.done = False
        self._line = b""
        self._left = 0
        """Bytes of the current chunk and its CRLF still to come."""
        self._in_trailers = False
        self._trailers = 0

    def take(self, data: bytes, content: list[bytes]) -> int:
        at = 0
        while at < len(data) and not self.done:
            at = self._take_chunk(data, at, content) if self._left else self._take_line(data, at)
        return at

    def _take_chunk(self, data: bytes, at: int, content: list[bytes]) -> int:
        stop = min(at + self._left, len(data))
        # Behind the chunk's content stands CRLF.
        ends = at + self._left - 2
        for place in range(max(at, ends), stop):
            if data[place] != b"\r\n"[place - ends]:
                raise Malformed("a chunk is not as long as it says")
        if ends > at:
            content.append(data[at : min(ends, stop)])
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
        if size is None or not size[1]:
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
    """Return what follows the body of a request so framed; None if it has none."""
    if framing.length is None:
        return ChunkedBody()
    return SizedBody(framing.length) if framing.length else None
