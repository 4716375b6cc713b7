from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.web import framing
from restpipe.web.framing import ChunkedBody, Framing, Malformed, SizedBody, decide, head_size, split_head

HEAD = b"GET /x HTTP/1.1\r\nHost: a\r\nX-Empty:\r\n\r\n"
HOST = (b"host", b"a")


def test_a_head_ends_at_the_empty_line() -> None:
    assert head_size(HEAD) == len(HEAD)
    assert head_size(HEAD + b"body\n\r\n\r\n") == len(HEAD)


@given(st.integers(0, len(HEAD) - 1))
def test_the_start_of_a_good_head_is_no_fault(size: int) -> None:
    assert head_size(HEAD[:size]) == 0


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_refused_or_waited_for(data: bytes) -> None:
    try:
        size = head_size(data)
    except Malformed as fault:
        assert fault.problem.status in (400, 501, 505)
    else:
        assert not size or data[:size].endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "start", [b"GET /x\r\n", b"GET /x HTTP/1.1\n", b"\x00", b"GET /x HTTP/1.1\r\nA: b\rc"]
)
def test_a_head_that_cannot_become_good_is_refused_early(start: bytes) -> None:
    with pytest.raises(Malformed):
        head_size(start)


@pytest.mark.parametrize(("start", "status"), [(b"GET /", 414), (b"GET / HTTP/1.1\r\nA: ", 431)])
def test_a_head_is_bounded(start: bytes, status: int) -> None:
    with pytest.raises(Malformed) as refused:
        head_size(start + b"x" * framing.MAX_HEAD)
    assert refused.value.problem.status == status


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", (b"GET", b"/", "1.0", [])),
        (
            b"PUT http://b:1/?a HTTP/1.1\r\nHost: a\r\nX-A:b:c \r\nx-a:\t\xe4\t\r\nE:\r\n\r\n",
            (
                b"PUT",
                b"http://b:1/?a",
                "1.1",
                [(b"host", b"a"), (b"x-a", b"b:c"), (b"x-a", b"\xe4"), (b"e", b"")],
            ),
        ),
    ],
)
def test_a_head_is_split(head: bytes, expected: tuple[object, ...]) -> None:
    assert head_size(head) == len(head)
    assert split_head(head)[:4] == expected


def test_the_fields_that_frame_a_request_are_picked_out() -> None:
    names = [b"CONNECTION", b"Content-Length", b"Expect", b"HOST", b"Transfer-Encoding"]
    head = (
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%b: 1\r\n%b: 2\r\n" % (name, name) for name in names) + b"\r\n"
    )
    assert split_head(head)[4] == [(name.lower(), b"2") for name in names]


PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)


@given(
    st.lists(
        st.tuples(st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", fullmatch=True), st.text(PRINTABLE)),
        max_size=8,
    )
)
def test_what_is_split_is_what_was_written(fields: list[tuple[str, str]]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    head = b"GET /x HTTP/1.1\r\n" + lines.encode() + b"\r\n"
    assert head_size(head) == len(head)
    expected = [(name.lower().encode(), value.strip(" ").encode()) for name, value in fields]
    assert split_head(head)[3] == expected


@pytest.mark.parametrize(
    ("version", "fields", "expected"),
    [
        ("1.1", [HOST], Framing(0, False, True)),
        ("1.0", [], Framing(0, False, False)),
        ("1.0", [(b"connection", b"Keep-Alive")], Framing(0, False, True)),
        ("1.0", [(b"connection", b"keep-alive, close")], Framing(0, False, False)),
        ("1.0", [(b"expect", b"100-continue"), (b"content-length", b"1")], Framing(1, False, False)),
        ("1.1", [HOST, (b"connection", b"TE, close")], Framing(0, False, False)),
        ("1.1", [HOST, (b"connection", b"x"), (b"connection", b"CLOSE")], Framing(0, False, False)),
        ("1.1", [HOST, (b"connection", b"closed")], Framing(0, False, True)),
        ("1.1", [HOST, (b"content-length", b" 12 ")], Framing(12, False, True)),
        ("1.1", [HOST, (b"content-length", b"0012")], Framing(12, False, True)),
        ("1.1", [HOST, (b"transfer-encoding", b"Chunked ")], Framing(None, False, True)),
        ("1.1", [HOST, (b"expect", b"100-Continue"), (b"content-length", b"1")], Framing(1, True, True)),
        ("1.1", [HOST, (b"expect", b"other"), (b"content-length", b"1")], Framing(1, False, True)),
        ("1.1", [HOST, (b"expect", b"100-continue")], Framing(0, True, True)),
        ("1.1", [HOST, (b"expect", b"a=b , 100-continue")], Framing(0, True, True)),
        ("1.1", [HOST, (b"expect", b"100-continue"), (b"expect", b"a")], Framing(0, True, True)),
    ],
)
def test_framing(version: str, fields: list[tuple[bytes, bytes]], expected: Framing) -> None:
    assert decide(version, fields) == expected


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        ("1.1", []),
        ("1.1", [HOST, HOST]),
        ("1.0", [HOST, HOST]),
        ("1.1", [HOST, (b"content-length", b"")]),
        ("1.1", [HOST, (b"content-length", b"1"), (b"content-length", b"1")]),
        ("1.1", [HOST, (b"content-length", b"1"), (b"transfer-encoding", b"chunked")]),
        ("1.1", [HOST, (b"content-length", "\u0661".encode())]),
        ("1.1", [HOST, (b"transfer-encoding", b"")]),
        ("1.1", [HOST, (b"transfer-encoding", b"chunked, chunked")]),
        ("1.0", [HOST, (b"transfer-encoding", b"chunked")]),
    ],
)
def test_ambiguous_framing(version: str, fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Malformed):
        decide(version, fields)


def test_a_sized_body_takes_its_size() -> None:
    body = SizedBody(5)
    content: list[bytes] = []
    assert (body.take(b"hel", content), body.done) == (3, False)
    assert (body.take(b"lo, world", content), body.done) == (2, True)
    assert content == [b"hel", b"lo"]


CHUNKED = b"5\r\nhello\r\n0A ;x=y\r\n0123456789\r\n000\r\nX-T: u\r\n\r\n"


@given(st.lists(st.integers(0, len(CHUNKED))), st.binary(max_size=5))
def test_a_chunked_body_is_followed_however_it_is_cut(cuts: list[int], after: bytes) -> None:
    body = ChunkedBody()
    edges = [0, *sorted(cuts), len(CHUNKED)]
    pieces = [CHUNKED[start:end] for start, end in itertools.pairwise(edges)]
    *first, last = pieces
    content: list[bytes] = []
    assert all(body.take(piece, content) == len(piece) for piece in first)
    if not body.done:
        assert body.take(last + after, content) == len(last)
    assert body.done
    assert b"".join(content) == b"hello0123456789"


@given(st.binary(max_size=60))
def test_arbitrary_chunks_are_refused_or_waited_for(data: bytes) -> None:
    body = ChunkedBody()
    try:
        taken = body.take(data, [])
    except Malformed:
        return
    assert taken == len(data) or body.done


@given(st.integers(0, len(CHUNKED) - 1), st.integers(0, 255))
def test_a_changed_byte_never_moves_the_end_silently(at: int, byte: int) -> None:
    """Whatever is changed in the framing, what is accepted still follows the grammar to its last byte."""
    changed = CHUNKED[:at] + bytes([byte]) + CHUNKED[at + 1 :]
    body = ChunkedBody()
    try:
        taken = body.take(changed, [])
    except Malformed:
        return
    if body.done:
        assert changed[:taken].endswith(b"\r\n\r\n")
