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
        ("BÜCHER.example", "bücher.example"),
        ("bu\u0308cher.example", "bücher.example"),
    ],
)
def test_there_is_one_form_of_a_name(name: str, kept: str) -> None:
    assert canonical(name) == kept
    assert canonical(kept) == kept


@pytest.mark.parametrize("name", ["bücher.example", "BÜCHER.Example.", "bu\u0308cher.example"])
def test_unicode_means_what_dns_has_for_it_as_well(name: str) -> None:
    assert spellings(name) == ("bücher.example", "xn--bcher-kva.example")


@pytest.mark.parametrize("name", ["ü" * 64, "ü..example", "\udcff.example", "ü" * 60_000])
def test_what_cannot_be_a_name_of_dns_means_itself_alone(name: str) -> None:
    assert spellings(name) == (canonical(name),)


def test_ascii_has_one_spelling() -> None:
    assert spellings("WEB1") == ("web1",)


@given(st.text())
def test_a_canonical_name_is_its_own_canonical_form(name: str) -> None:
    assert canonical(canonical(name)) == canonical(name)
    assert canonical(name) == spellings(name)[0]
