"""Takes the target of an event apart: noun, arguments, query. Pure.

    /time/utc//a%20b/c%2Fd?x=1   noun time, utc; arguments "a b", "c/d"; x = "1"

The noun ends at the first `//`. What follows is cut at each `/`, and only then percent-decoded (as UTF-8).
Nothing is left out: `/cat//a/` has the arguments "a" and "", and `/cat//` one that is empty.
In the query a `+` is a blank, as HTML forms have it; elsewhere it is a plus.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from restpipe.errors import Code, Delivered, Reset, StreamReset
from restpipe.http import BROKEN_ESCAPE

_NOT_A_TARGET = re.compile(rf"[^!-~]|#|{BROKEN_ESCAPE.pattern}")


class Target(NamedTuple):
    """The parts of a target, decoded."""

    noun: tuple[str, ...]
    """Its segments; `time/utc` has two."""
    arguments: tuple[str, ...]
    query: dict[str, str | list[str]]
    """A list where a parameter was repeated."""


def parse_target(text: str) -> Target:
    """Take `text` apart. Raises `StreamReset` (BAD_REQUEST, not delivered) if it is not well formed."""
    fault = _NOT_A_TARGET.search(text)
    if fault:
        raise bad_request(_describe(fault))
    path, _, query = text.partition("?")
    if path[:1] != "/":
        raise bad_request("a target begins with a slash")
    noun, arguments_follow, rest = path[1:].partition("//")
    if "%" not in path:
        arguments = tuple(rest.split("/")) if arguments_follow else ()
        return Target(tuple(noun.split("/")), arguments, _parse_query(query) if query else {})
    return Target(
        tuple(map(_decode, noun.split("/"))),
        tuple(map(_decode, rest.split("/"))) if arguments_follow else (),
        _parse_query(query) if query else {},
    )


def bad_request(detail: str) -> StreamReset:
    """Make the exception for a caller's fault that was found before any method was called."""
    return StreamReset(Reset(Code.BAD_REQUEST, detail, Delivered.NO))


def _describe(fault: re.Match[str]) -> str:
    text = fault.string[fault.start() : fault.start() + 3]
    if text[0] == "%":
        return f"{text!r} is not a percent-escape"
    return f"{text[0]!r} must be percent-encoded"


def _decode(text: str) -> str:
    if "%" not in text:
        return text
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise bad_request(f"{text[:100]!r} is not percent-encoded UTF-8") from None


def _parse_query(text: str) -> dict[str, str | list[str]]:
    found: dict[str, str | list[str]] = {}
    for piece in text.split("&"):
        if not piece:
            continue
        name, _, value = (_decode(part) for part in piece.replace("+", " ").partition("="))
        before = found.get(name)
        if before is None:
            found[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            found[name] = [before, value]
    return found
