"""docs/HTTP.md says what is served where the standard leaves a choice: each of its rows is tried here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from restpipe.errors import Code, Delivered
from restpipe.web.http1 import HEAD_TIMEOUT_S, KEEP_ALIVE_S, LINGER_S, MAX_LINGER_S
from restpipe.web.patience import STALLED_S
from restpipe.web.responding import KEEP_ALIVE_TOLD_S
from tests.unit.web.fake_daemon import FakeDaemon, FakeEvent
from tests.unit.web.web_process import WebProcess

TEXT = (Path(__file__).parents[3] / "docs" / "HTTP.md").read_text()


def rows(title: str) -> dict[str, list[str]]:
    """The table below a title: first cell of each row, and the others."""
    table = TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table.splitlines()
        if line[:1] == "|"
    ]
    return {first: others for first, *others in cells[2:]}


HOST = b"Host: a\r\nConnection: close\r\n"
POST = b"POST /client/a/echo HTTP/1.1\r\n" + HOST


def get(
    *fields: bytes, target: bytes = b"/client/a/echo", verb: bytes = b"GET", version: bytes = b"1.1"
) -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"%b %b HTTP/%b\r\n%b%b\r\n" % (verb, target, version, HOST, lines)


def chunked(trailer: bytes = b"", *fields: bytes) -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return POST + lines + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n" + trailer + b"\r\n"


REQUESTS: dict[str, list[bytes]] = {
    "a verb other than": [get(verb=verb) for verb in (b"TRACE", b"CONNECT", b"QUERY", b"get")],
    "`OPTIONS *`": [get(verb=b"OPTIONS", target=b"*")],
    "HTTP/1.2 and later": [get(version=b"1.2"), get(version=b"1.9")],
    "HTTP/2 without TLS": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", get(version=b"0.9")],
    "a request line without": [
        b"GET /client/a/echo\r\n",
        b"GET /client/a/echo\r\n" + HOST + b"\r\n",
        b"GET /\r\n\r\n",
    ],
    "`Upgrade`": [
        get(b"Connection: upgrade", b"Upgrade: websocket"),
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA"),
    ],
    "a transfer coding": [
        POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
        for coding in (b"gzip, chunked", b"x,chunked", b", chunked")
    ],
    "`Transfer-Encoding` that": [
        POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
        for coding in (b"identity", b"chunked, chunked", b"chunked, gzip", b"xchunked", b"")
    ],
    "`Content-Length` and": [chunked(b"", b"Content-Length: 2")],
    "`Content-Length` twice": [
        POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        POST + b"Content-Length: 2, 2\r\n\r\nhi",
    ],
    "a header that is folded": [get(b"A: b", b" c"), get(b"A: b", b"\tc")],
    "lines that end": [get().replace(b"\r\n", b"\n")],
    "a header with an underscore": [get(b"Content_Length: 5")],
    "`Content-Type` twice": [POST + b"Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 2\r\n\r\nhi"],
    "trailers": [chunked(b"A: b\r\n"), chunked(b"Content-Length: 9\r\n")],
    '`"`, `<`': [get(target=b'/client/a/echo//"<>\\^`{|}')],
    "an expectation other": [get(b"Expect: a=b")],
    "`Range`": [get(b"Range: bytes=1-", b'If-Match: "x"', b"If-Modified-Since: x", b"If-Range: y")],
    "`Accept-Encoding`": [get(b"Accept-Encoding: gzip, br;q=0.5, identity;q=0")],
    "JSON or text with": [POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b"],
}
"""By how the first cell of a row begins."""


def test_each_row_is_tried() -> None:
    assert [[row for row in rows("Choices") if row.startswith(start)] for start in REQUESTS] == [
        [row] for row in rows("Choices")
    ]


@pytest.mark.parametrize("start", REQUESTS)
def test_a_choice(start: str, web: WebProcess, daemon: FakeDaemon) -> None:
    (status,) = [int(cells[0]) for row, cells in rows("Choices").items() if row.startswith(start)]
    if status == 415:
        daemon.answer = packed
    for request in REQUESTS[start]:
        response = web.exchange(request)
        assert response.startswith(b"HTTP/1.1 %d " % status), request
        assert response.count(b"HTTP/1.1 ") == 1
        assert (b"\r\naccept-encoding: identity\r\n" in response) is (status == 415)


async def packed(event: FakeEvent) -> None:
    """Answers as a handler worker does, whose own tests say when."""
    event.fail(Code.UNSUPPORTED_CODING, Delivered.NO)


def test_the_times_are_those_of_the_code() -> None:
    told = [cells[0] for cells in rows("Time").values()]
    assert [re.findall(r"\d+", each) for each in told] == [
        [f"{HEAD_TIMEOUT_S:g}"],
        [f"{HEAD_TIMEOUT_S:g}", "408"],
        ["30"],
        [f"{LINGER_S:g}", f"{MAX_LINGER_S:g}"],
        [f"{KEEP_ALIVE_S:g}", f"{KEEP_ALIVE_TOLD_S}"],
        [f"{STALLED_S / 60:g}", "130"],
    ]
