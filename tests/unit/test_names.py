from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.names import canonical, spellings


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("web1", "web1"),
        ("WEB1.Corp.Example", "web1.corp.example"),
        ("web1.corp.example.", "web1.corp.example"),
        (".", "."),
        ("web1..", "web1.."),
        ("", ""),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("SPIFFE://Corp.Example/Pipe/WEB1", "spiffe://corp.example/Pipe/WEB1"),
        ("spiffe://Corp.Example?Query=A#B", "spiffe://corp.example?Query=A#B"),
        ("https://User:Pass@WEB1:443/x", "https://User:Pass@web1:443/x"),
        ("URN:dev:mac:A", "urn:dev:mac:A"),
        ("FE80::A", "fe80::a"),
        ("AC:DE:48:00:11:22", "ac:de:48:00:11:22"),
        # DNS folds A to Z alone.
        ("BÜCHER.Example.", "bÜcher.example"),
        ("bu\u0308cher.example", "bücher.example"),
        ("BU\u0308CHER.example", "bÜcher.example"),
        ("H\u0331", "\u1e96"),
        # It looks like a K, which the composed form of Unicode has for it.
        ("bac\u212aup", "bac\u212aup"),
        ("BAC\u212aU\u0308P", "bac\u212au\u0308p"),
        ("\u0130x", "\u0130x"),
    ],
)
def test_there_is_one_form_of_a_name(name: str, kept: str) -> None:
    assert canonical(name) == kept
    assert canonical(kept) == kept


@pytest.mark.parametrize("name", ["bücher.example", "bu\u0308cher.example."])
def test_unicode_means_what_dns_has_for_it_as_well(name: str) -> None:
    assert spellings(name) == ("bücher.example", "xn--bcher-kva.example")


def test_a_caller_may_write_capitals_in_unicode() -> None:
    assert spellings("BÜCHER.Example.") == ("bÜcher.example", "bücher.example", "xn--bcher-kva.example")


@pytest.mark.parametrize(
    "name", ["straße", "bac\u212aup", "\ufb01le", "x\u3002y", "\u017f", "\u0130x", "ς", "ⅷ"]
)
def test_what_dns_has_for_other_characters_is_not_meant(name: str) -> None:
    assert spellings(name) == (name,)


@pytest.mark.parametrize("name", ["ü" * 64, "ü..example", "\udcff.example", "ü" * 60_000])
def test_what_cannot_be_a_name_of_dns_means_itself_alone(name: str) -> None:
    assert spellings(name) == (canonical(name),)


def test_ascii_has_one_spelling() -> None:
    assert spellings("WEB1") == ("web1",)


@given(st.text())
def test_a_canonical_name_is_its_own_canonical_form(name: str) -> None:
    assert canonical(canonical(name)) == canonical(name)
    assert canonical(name) == spellings(name)[0]
