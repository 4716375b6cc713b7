from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.host.config import Role
from restpipe.web.paths import BadTarget, Destination, UnknownPath, parse

VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, blacklist_characters="#%"))


@pytest.mark.parametrize(
    ("raw", "to", "target"),
    [
        (b"/client/a/time", "a", "/time"),
        (b"/client/a/time/utc//x", "a", "/time/utc//x"),
        (b"/client/a/cat//hello%20/world?x=%2F&y", "a", "/cat//hello%20/world?x=%2F&y"),
        (b"/client/caf%C3%A9.example/time", "caf\xe9.example", "/time"),
        (b"/client/WEB1.Corp.Example./Time", "web1.corp.example", "/Time"),
        (b"/client/a%2Fb/time", "a/b", "/time"),
        (b"/client/%3Fx/time", "?x", "/time"),
        (b"/client/[::1]/time", "[::1]", "/time"),
        (b"/client/a/", "a", "/"),
        (b"HTTPS://host:1/client/a/time", "a", "/time"),
    ],
)
def test_the_servers_paths(raw: bytes, to: str, target: str) -> None:
    assert parse(raw, Role.SERVER) == Destination(to, target)


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        (b"/server/time", "/time"),
        (b"/server//time", "//time"),
        (b"/server/cat//%2F/", "/cat//%2F/"),
        (b"/server/?", "/?"),
        (b"http://a/server/time", "/time"),
    ],
)
def test_the_clients_paths(raw: bytes, target: str) -> None:
    assert parse(raw, Role.CLIENT) == Destination("", target)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"*",
        b"client/a/time",
        b"a:80",
        b"ftp://h/client/a/time",
        b"http:///client/a/time",
        b"/client/a/time#top",
        b"/client/a/ti me",
        b"/client/a/time\x00",
        b"/client/a/time\x7f",
        b"/client/a/\xe9",
        b"/client/a/%",
        b"/client/a/%4",
        b"/client/a/%g0",
        b"/client/a/x?%0",
        b"/client//time",
        b"/client/%FF/time",
        b"/client/%C0%AF/time",
        b"/client/a%00/time",
        b"/client/a%0D%0A/time",
    ],
)
def test_malformed_targets(raw: bytes) -> None:
    with pytest.raises(BadTarget):
        parse(raw, Role.SERVER)


@pytest.mark.parametrize(
    "raw", [b"/", b"/x", b"/client", b"/client/", b"/client/a", b"/client/a?x/y", b"/Client/a/x"]
)
def test_unknown_paths_say_what_there_is(raw: bytes) -> None:
    with pytest.raises(UnknownPath, match="/client/NAME/NOUN"):
        parse(raw, Role.SERVER)
    with pytest.raises(UnknownPath, match="/server/NOUN"):
        parse(raw, Role.CLIENT)


@given(VISIBLE)
def test_what_follows_the_name_is_kept(rest: str) -> None:
    assert parse(b"/client/a/" + rest.encode(), Role.SERVER).target == "/" + rest
    assert parse(b"/server/" + rest.encode(), Role.CLIENT).target == "/" + rest


@given(st.binary(max_size=40))
def test_anything_else_is_refused_clearly(raw: bytes) -> None:
    for role in Role:
        try:
            parse(raw, role)
        except (BadTarget, UnknownPath) as refusal:
            assert str(refusal)
