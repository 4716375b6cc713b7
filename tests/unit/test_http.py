"""What HTTP allows: the sets agree with each other and with the standard's own examples."""

from __future__ import annotations

import pytest

from restpipe import http


def test_every_repeatable_verb_is_served() -> None:
    assert set(http.VERBS) > http.REPEATABLE
    assert set(http.VERBS) - http.REPEATABLE == {"POST", "PATCH"}


@pytest.mark.parametrize("verb", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_verbs_that_may_run_twice(verb: str) -> None:
    assert verb in http.REPEATABLE


@pytest.mark.parametrize("verb", ["POST", "PATCH", "TRACE"])
def test_verbs_that_must_not(verb: str) -> None:
    assert verb not in http.REPEATABLE


def test_reserved_headers_are_in_lower_case_and_include_those_of_one_hop() -> None:
    assert http.RESERVED > http.HOP_BY_HOP
    assert all(name == name.lower() for name in http.RESERVED)


@pytest.mark.parametrize("name", ["Accept", "x-event-return-code", "a!#$%&'*+-.^_`|~9"])
def test_tokens(name: str) -> None:
    assert http.is_token(name)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "\u00e4", "a\x00", "(a)"])
def test_not_tokens(name: str) -> None:
    assert not http.is_token(name)


@pytest.mark.parametrize("value", ["", "a\tb", "caf\xe9", "~ !"])
def test_field_values(value: str) -> None:
    assert http.is_field_value(value)


@pytest.mark.parametrize("value", ["a\r\nb", "a\x00", "a\x7f", "\u20ac"])
def test_not_field_values(value: str) -> None:
    assert not http.is_field_value(value)


@pytest.mark.parametrize(("text", "broken"), [("%41", False), ("a%2", True), ("%zz", True), ("100%", True)])
def test_broken_escapes(text: str, broken: bool) -> None:
    assert bool(http.BROKEN_ESCAPE.search(text)) is broken
