"""The request's body, decoded."""

from __future__ import annotations

import codecs
import encodings
import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.errors import Code, Delivered, StreamReset
from restpipe.handler.post_data import _CHARSETS, decode_body
from restpipe.protocol.schema_pb2 import Header


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("", b"", ("", "")),
        ("application/json", b"", ("", "")),
        ("application/json", b'{"a": [1]}', ("application/json", {"a": [1]})),
        ("Application/JSON; charset=utf-8", b"1", ("application/json", 1)),
        ("application/vnd.x+json", b'"\xc3\xa9"', ("application/vnd.x+json", "é")),
        ("application/json", '"é"'.encode("utf-16"), ("application/json", "é")),
        ("application/json", b'\xef\xbb\xbf"x"', ("application/json", "x")),
        ("text/plain", b"\xc3\xa9", ("text/plain", "é")),
        ("text/plain; charset=ISO-8859-1", b"\xe9", ("text/plain", "é")),
        ('text/plain; charset="utf-8"', b"\xc3\xa9", ("text/plain", "é")),
        ("text/csv;header=present ; CharSet = cp1252", b"\x80", ("text/csv", "€")),
        ("application/octet-stream", b"\xff", ("application/octet-stream", b"\xff")),
        ("", b"x", ("application/octet-stream", b"x")),
        ("application/x-www-form-urlencoded", b"a=b", ("application/x-www-form-urlencoded", b"a=b")),
    ],
)
def test_decoding(content_type: str, body: bytes, expected: tuple[str, Any]) -> None:
    assert decode_body(content_type, body) == expected


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"{} x"),
        ("application/json", b"\xff\xfe\xfd"),
        ("application/json", b"NaN"),
        ("application/json", b"[-Infinity]"),
        ("application/json", b"[" * 100_000),
        ("application/json", b"1" * 5000),
        ("text/plain", b"\xff"),
        ("text/plain; charset=ascii", b"\xff"),
        ("text/plain; charset=unheard-of", b"x"),
        ("text/plain; charset=cp99999", b"x"),
        ("text/plain; charset=ut\u0444-8", b"x"),
        ("text/plain; charset=hex", b"00"),
        ("text/plain; charset=idna", b"x"),
        ("text/plain; charset=unicode_escape", b"x"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_the_callers_fault(content_type: str, body: bytes) -> None:
    with pytest.raises(StreamReset) as caught:
        decode_body(content_type, body)
    assert caught.value.code is Code.BAD_REQUEST


def test_a_made_up_charset_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python remembers each name that it has been asked for, known or not."""

    def refuse(name: str) -> None:
        raise AssertionError(f"asked for {name[:40]}")

    monkeypatch.setattr(encodings, "search_function", refuse)
    before = set(encodings._cache)  # type: ignore[attr-defined]
    for name in ("x-made-up", "x" * 30_000, "utf-8" + "." * 30_000, "iso8859-12", "hex", "idna"):
        with pytest.raises(StreamReset, match="unknown charset"):
            decode_body(f"text/plain; charset={name}", b"x")
    assert set(encodings._cache) == before  # type: ignore[attr-defined]


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "br", "gzip, identity", "GZIP", "deflate"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "text/plain; charset=latin-1"])
@pytest.mark.parametrize("body", [gzip.compress(b"{}"), b"{}"], ids=["packed", "as it is"])
def test_what_would_have_to_be_unpacked_is_refused_as_such(
    content_type: str, coding: str, body: bytes
) -> None:
    """Also where it could be read as it is: who unpacks it on the way would read something else."""
    headers = [Header(name="x-a", value="b"), Header(name="Content-Encoding", value=coding)]
    with pytest.raises(StreamReset) as refused:
        decode_body(content_type, body, headers)
    assert refused.value.code is Code.UNSUPPORTED_CODING
    assert refused.value.reset.delivered is Delivered.NO


def test_bytes_may_be_packed() -> None:
    packed = gzip.compress(b"{}")
    headers = [Header(name="content-encoding", value="gzip")]
    assert decode_body("application/gzip", packed, headers) == ("application/gzip", packed)


@pytest.mark.parametrize("coding", ["identity", "", "Identity , identity"])
def test_what_is_not_packed_is_read(coding: str) -> None:
    headers = [Header(name="content-encoding", value=coding)]
    assert decode_body("text/plain", b"a", headers)[1] == "a"
    with pytest.raises(StreamReset) as refused:
        decode_body("application/json", b"{", headers)
    assert refused.value.code is Code.BAD_REQUEST


def test_every_charset_of_the_list_is_there() -> None:
    for name in _CHARSETS:
        assert codecs.lookup(name)
        decode_body(f"text/plain; charset={name.upper().replace('_', '-')}", b"")


@pytest.mark.parametrize(
    "name", ["UTF8", "utf_8", "u8", "latin1", "ISO_8859-1:1987", "windows-1252", "sjis", "csISOLatin1"]
)
def test_charsets_have_many_names(name: str) -> None:
    assert decode_body(f"text/plain; charset={name}", b"a")[1] == "a"


@given(st.dictionaries(st.text(), st.lists(st.integers() | st.text())))
def test_json_comes_through(document: dict[str, Any]) -> None:
    assert decode_body("application/json", json.dumps(document).encode())[1] == document


@given(st.sampled_from(["", "application/json", "text/plain", "text/x; charset=utf-16", "a/b"]), st.binary())
def test_any_bytes_are_decoded_or_refused(content_type: str, body: bytes) -> None:
    try:
        mime, data = decode_body(content_type, body)
    except StreamReset as reset:
        assert reset.code is Code.BAD_REQUEST
    else:
        assert (mime, data) == ("", "") if not body else mime
