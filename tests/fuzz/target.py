"""What is fuzzed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Target(NamedTuple):
    """One way in for data that others make."""

    check: Callable[[bytes], None]
    """Takes it in. Raises, or fails an assertion, only where something is wrong."""
    seeds: Callable[[], Iterable[bytes]]
    """Good data, and nearly good."""


def one_line(error: Exception) -> str:
    """The message of an error that is told to a user, which is one line and not empty."""
    text = str(error)
    assert text
    assert text.isprintable(), repr(text)
    return text
