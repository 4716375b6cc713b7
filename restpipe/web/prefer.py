"""What a caller prefers (RFC 7240): how long it is willing to wait. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PREFERENCE = re.compile(r'(?:"(?:[^"\\]|\\.)*(?:"|$)|[^,"])+')
_WAIT = re.compile(
    r'\s*wait\s*=\s*(?:"\s*(\d+(?:\.\d+)?)\s*"|(\d+(?:\.\d+)?))\s*(?:;|$)', re.IGNORECASE | re.ASCII
)
_LONGEST = 1024
"""Characters of the header that are read; a preference may be ignored."""


def wait_s(fields: Iterable[str], most_s: float) -> float | None:
    """Return the seconds of the first usable `wait` in the values of the Prefer header, or None.

    What cannot be read is passed over, for it is a preference; so is zero. More than `most_s` is cut to it.
    Fractions of a second are served too.
    """
    for preference in _PREFERENCE.findall(",".join(fields)[:_LONGEST]):
        wait = _WAIT.match(preference)
        seconds = float(wait[1] or wait[2]) if wait else 0.0
        if seconds > 0:
            return min(seconds, most_s)
    return None


def applied(seconds: float) -> str:
    """Return the value of Preference-Applied that says which wait is in force."""
    return f"wait={seconds:.10g}"
