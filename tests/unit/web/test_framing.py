from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.web import framing
from restpipe.web.framing import ChunkedBody, Framing, Malformed, SizedBody, decide, head_size

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
        assert fault.problem.status in (400, 501)
    else:
        assert not size or data[:size].endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "start", [b"GET /x\r\n", b"GET /x HTTP/1.1\n", b"\x00", b"GET /x HTTP/1.1\r\nA: b\rc"]
)
def test_a_head_that_cannot_become_good_is_refused_early(start: bytes) -> None:
    with pytest.raises(Malformed):
        head_size(start)


def test_a_head_is_bounded() -> None:
    start = b"GET /" + b"x" * framing.MAX_HEAD
    with pytest.raises(Malformed) as refused:
        head_size(start)
    assert refused.value.problem.status == 431


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE", b"uPGRADe"])
def test_upgrades_are_cut_out(name: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n%b: h2c\r\nA: b\r\n\r\n" % name
    assert framing.without_upgrade(head) == b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n"
    kept = b"GET / HTTP/1.1\r\nX-Upgrade: h2c\r\nUpgrade-X: a\r\n\r\n"
    assert framing.without_upgrade(kept) == kept


@pytest.mark.parametrize(
    ("version", "fields", "expected"),
    [
        ("1.1", [HOST], Framing(0, False)),
        ("1.0", [], Framing(0, False)),
        ("1.1", [HOST, (b"content-length", b" 12 ")], Framing(12, False)),
        ("1.1", [HOST, (b"content-length", b"0012")], Framing(12, False)),
        ("1.1", [HOST, (b"transfer-encoding", b"Chunked ")], Framing(None, False)),
        ("1.1", [HOST, (b"expect", b"100-Continue"), (b"content-length", b"1")], Framing(1, True)),
        ("1.1", [HOST, (b"expect", b"other"), (b"content-length", b"1")], Framing(1, False)),
        ("1.1", [HOST, (b"expect", b"100-continue")], Framing(0, True)),
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
    assert (body.take(b"hel"), body.done) == (3, False)
    assert (body.take(b"lo, world"), body.done) == (2, True)


CHUNKED = b"5\r\nhello\r\n0A ;x=y\r\n0123456789\r\n000\r\nX-T: u\r\n\r\n"


@given(st.lists(st.integers(0, len(CHUNKED))), st.binary(max_size=5))
def test_a_chunked_body_is_followed_however_it_is_cut(cuts: list[int], after: bytes) -> None:
    body = ChunkedBody()
    edges = [0, *sorted(cuts), len(CHUNKED)]
    pieces = [CHUNKED[start:end] for start, end in itertools.pairwise(edges)]
    *first, last = pieces
    assert all(body.take(piece) == len(piece) for piece in first)
    if not body.done:
        assert body.take(last + after) == len(last)
    assert body.done


@given(st.binary(max_size=60))
def test_arbitrary_chunks_are_refused_or_waited_for(data: bytes) -> None:
    body = ChunkedBody()
    try:
        taken = body.take(data)
    except Malformed:
        return
    assert taken == len(data) or body.done


@given(st.integers(0, len(CHUNKED) - 1), st.integers(0, 255))
def test_a_changed_byte_never_moves_the_end_silently(at: int, byte: int) -> None:
    """Whatever is changed in the framing, what is accepted still follows the grammar to its last byte."""
    changed = CHUNKED[:at] + bytes([byte]) + CHUNKED[at + 1 :]
    body = ChunkedBody()
    try:
        taken = body.take(changed)
    except Malformed:
        return
    if body.done:
        assert changed[:taken].endswith(b"\r\n\r\n")
