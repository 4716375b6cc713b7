"""What HTTP allows, said once for the web worker, the handlers and the tester. Pure.

The rules of the file: a set of header names is in lower case; a pattern is for the whole of what it names;
text and bytes have the same patterns. Sources: RFC 9110 (semantics), RFC 9112 (HTTP/1.1), RFC 9457 (errors).
"""

from __future__ import annotations

import re
from typing import Final

VERBS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Verbs that an event can have, in the order of an Allow header."""
REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
"""Verbs of which a request may run twice (RFC 9110, section 9.2.2)."""
BODILESS: Final = frozenset({204, 205, 304})
"""Statuses whose response has no content (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5)."""

RETURN_CODE: Final = "x-event-return-code"
"""Header that bears the handler's own code."""
PROBLEM_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:restpipe:problem:"
"""Start of the stable `type` of each of RestPipe's problem documents."""

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that concern one connection only, and never cross the pipe (RFC 9110, section 7.6.1)."""
RESERVED: Final = HOP_BY_HOP | {"content-length", "content-type", "date", "server", RETURN_CODE}
"""Headers that a handler cannot set by name: they frame the response, or RestPipe sets them itself."""

NAME_CHARACTERS: Final = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
"""What the name of a header or verb may consist of (RFC 9110, section 5.6.2), for a set in a pattern."""
FIELD_CHARACTERS: Final = r"\t\x20-\x7e\x80-\xff"
"""What the value of a header may consist of (RFC 9110, section 5.5), for a set in a pattern."""
TOKEN: Final = re.compile(rf"[{NAME_CHARACTERS}]+")
FIELD_VALUE: Final = re.compile(rf"[{FIELD_CHARACTERS}]*")
# Python before 3.11.4 takes for a match of `(?:...|...)*+` what is none: only classes are possessive here.
AUTHORITY: Final = (
    r"(?:\[(?:[0-9A-Fa-f:.]++|[vV][0-9A-Fa-f]++\.[0-9A-Za-z\-._~!$&'()*+,;=:]++)\]"
    r"|(?:[0-9A-Za-z\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*+)?"
)
"""Host and port as they stand in Host and in a URI (RFC 9110, section 7.2; RFC 3986, section 3.2)."""
BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
"""A percent sign that escapes nothing (RFC 3986, section 2.1)."""


def is_token(name: str) -> bool:
    """Tell whether `name` can be the name of a header."""
    return TOKEN.fullmatch(name) is not None


def is_field_value(value: str) -> bool:
    """Tell whether HTTP can carry `value` in a header."""
    return FIELD_VALUE.fullmatch(value) is not None
