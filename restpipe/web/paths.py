"""From the target of a request line to the peer that is meant and what is asked of it. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from restpipe.host.config import Role
from restpipe.http import AUTHORITY, BROKEN_ESCAPE
from restpipe.names import canonical

FORMS = {Role.SERVER: "/client/NAME/NOUN", Role.CLIENT: "/server/NOUN"}
"""The paths that are served, as problem documents name them."""

_PREFIXES = {Role.SERVER: "/client/", Role.CLIENT: "/server/"}

_VISIBLE = re.compile(rb"[\x21-\x7e]+")
_ORIGIN_OF_ABSOLUTE_FORM = re.compile(
    rb"https?://(?![:/?#])(?:" + AUTHORITY.encode() + rb")(?=[/?#]|\Z)", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Destination(NamedTuple):
    """Where an event goes, and what it asks for there."""

    to: str
    """The peer, percent-decoded and canonical (see `names`); empty on a client, which has one peer."""
    target: str
    """From the noun's slash on, query included, byte for byte as it stood."""


class BadTarget(ValueError):
    """The target is malformed, or in a form that is not served (HTTP status 400)."""


class UnknownPath(LookupError):
    """The target is well formed, but there is nothing at that path (HTTP status 404)."""


def parse(raw: bytes, role: Role) -> Destination:
    """Read a request target (RFC 9112, section 3.2) in origin-form or absolute-form.

    Raises `BadTarget` or `UnknownPath`, each with a sentence for the caller.
    """
    if not _VISIBLE.fullmatch(raw):
        raise BadTarget("the target has bytes that must be percent-encoded")
    target = (raw if raw.startswith(b"/") else _without_origin(raw)).decode("ascii")
    if "#" in target:
        raise BadTarget("a fragment ('#') does not belong in a request; write it as %23")
    if "%" in target and BROKEN_ESCAPE.search(target):
        raise BadTarget("a '%' in the target is not followed by two hexadecimal digits; write it as %25")
    prefix = _PREFIXES[role]
    if not target.startswith(prefix):
        raise UnknownPath(_forms(role))
    if role == Role.CLIENT:
        return Destination("", target[len(prefix) - 1 :])
    name, slash, rest = target[len(prefix) :].partition("/")
    if not slash or "?" in name:
        raise UnknownPath(_forms(role))
    decoded = _decode_name(name) if not name or "%" in name else name
    return Destination(canonical(decoded), "/" + rest)


def _without_origin(raw: bytes) -> bytes:
    origin = _ORIGIN_OF_ABSOLUTE_FORM.match(raw)
    if origin is None:
        raise BadTarget("the target must begin with '/', or with 'http://', a host and perhaps a port")
    rest = raw[origin.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def _forms(role: Role) -> str:
    return f"there is nothing at this path; the paths here are {FORMS[role]}"


def _decode_name(name: str) -> str:
    try:
        decoded = unquote_to_bytes(name).decode()
    except UnicodeDecodeError:
        raise BadTarget("the client's name is not UTF-8") from None
    if not decoded or _CONTROL.search(decoded):
        raise BadTarget("the client's name is empty or has control characters")
    return decoded
