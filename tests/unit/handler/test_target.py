"""Taking an event's target apart."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.errors import Code, Delivered, StreamReset
from restpipe.handler.target import parse_target

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)


@pytest.mark.parametrize(
    ("text", "noun", "arguments"),
    [
        ("/time", ("time",), ()),
        ("/time/utc", ("time", "utc"), ()),
        ("/", ("",), ()),
        ("/time/", ("time", ""), ()),
        ("/cat//hello%20/world", ("cat",), ("hello ", "world")),
        ("/cat//a%2Fb", ("cat",), ("a/b",)),
        ("/cat//a%2fb%25", ("cat",), ("a/b%",)),
        ("/cat//", ("cat",), ("",)),
        ("/cat///", ("cat",), ("", "")),
        ("/cat//a//b/", ("cat",), ("a", "", "b", "")),
        ("/cat//a+b", ("cat",), ("a+b",)),
        ("/c%61t//x", ("cat",), ("x",)),
        ("/time%2Futc", ("time/utc",), ()),
        ("///a", ("",), ("a",)),
        ("/cat//%C3%A9", ("cat",), ("é",)),
        ("/cat//%00", ("cat",), ("\0",)),
    ],
)
def test_path(text: str, noun: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    target = parse_target(text)
    assert (target.noun, target.arguments, target.query) == (noun, arguments, {})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("x=1", {"x": "1"}),
        ("x=1&x=2&x=3", {"x": ["1", "2", "3"]}),
        ("x", {"x": ""}),
        ("x=&y=a+b%2B", {"x": "", "y": "a b+"}),
        ("&&x=1&", {"x": "1"}),
        ("x=a=b?c//d", {"x": "a=b?c//d"}),
        ("%C3%A9=%2F", {"é": "/"}),
    ],
)
def test_query(query: str, expected: dict[str, object]) -> None:
    assert parse_target(f"/cat//a?{query}").query == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "time",
        "?x=1",
        "/%",
        "/%2",
        "/%zz",
        "/cat//%FF",
        "/cat//%C3",
        "/cat//%ED%A0%80",
        "/cat//%C0%AF",
        "/cat?x=%f",
        "/cat?%FF=1",
        "/a b",
        "/é",
        "/a#b",
        "/a\r\nb",
        "/a\0",
    ],
)
def test_what_is_not_well_formed_is_the_callers_fault(text: str) -> None:
    with pytest.raises(StreamReset) as caught:
        parse_target(text)
    assert caught.value.code is Code.BAD_REQUEST
    assert caught.value.reset.delivered is Delivered.NO
    assert caught.value.reset.detail


@given(st.lists(TEXT.filter(bool), min_size=1, max_size=4), st.lists(TEXT, min_size=1, max_size=5))
def test_arguments_come_through_whatever_they_are(noun: list[str], arguments: list[str]) -> None:
    path = "/".join(quote(part, safe="") for part in noun)
    text = f"/{path}//" + "/".join(quote(part, safe="") for part in arguments)
    assert parse_target(text) == (tuple(noun), tuple(arguments), {})


@given(st.dictionaries(TEXT, TEXT, max_size=5))
def test_queries_as_forms_encode_them_come_through(query: dict[str, str]) -> None:
    assert parse_target("/x?" + urlencode(query)).query == query


@given(st.text(max_size=40) | st.text("/%?&=+aF2#", max_size=40).map(lambda text: "/" + text))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        target = parse_target(text)
    except StreamReset as reset:
        assert reset.code is Code.BAD_REQUEST
    else:
        path = text.partition("?")[0]
        slashes = len(target.noun) + len(target.arguments) + (1 if target.arguments else 0) - 1
        assert slashes == path.count("/") - 1
