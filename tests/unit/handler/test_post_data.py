"""The request's body, decoded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.errors import Code, StreamReset
from restpipe.handler.post_data import decode_body


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
        ("text/plain; charset=hex", b"00"),
        ("text/plain; charset=idna", b"x"),
        ("text/plain; charset=unicode_escape", b"x"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_the_callers_fault(content_type: str, body: bytes) -> None:
    with pytest.raises(StreamReset) as caught:
        decode_body(content_type, body)
    assert caught.value.code is Code.BAD_REQUEST


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
