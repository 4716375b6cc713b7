"""The declarations themselves keep to the rules that the rest relies on."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from restpipe.host.options import Role, options, parse_address
from restpipe.host.values import coerce


@pytest.mark.parametrize("role", Role)
def test_no_name_sets_two_options(role: Role) -> None:
    names = Counter(name for o in options(role) for name in {*o.variables(role), *o.constants})
    assert {name for name, n in names.items() if n > 1} == set()


@pytest.mark.parametrize("role", Role)
def test_every_default_is_allowed(role: Role) -> None:
    for option in options(role):
        default = option.default(role)
        if default not in (None, (), "") and option.key != "sockets.directory":
            assert coerce(option, default, "here", Path("/")) == default


def test_every_number_has_a_least_value_and_every_text_a_pattern() -> None:
    for option in options():
        if option.kind in (int, float):
            assert option.spec.low is not None, option.key
        if option.kind in (str, tuple):
            assert option.spec.pattern, option.key
            assert option.spec.allowed, option.key


def test_help_is_one_sentence() -> None:
    for option in options():
        assert option.spec.help.endswith("."), option.key
        assert "\n" not in option.spec.help


@pytest.mark.parametrize(
    "text", ["a", "a:", ":1", "a:0", "a:65536", "::1:1", "[a:1", "a b:1", "a:1 ", "[x]:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_address(text)
