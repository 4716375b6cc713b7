"""How the names of hosts compare: as DNS has it, whoever spells them."""

from __future__ import annotations

import unicodedata

_LONGEST = 254
"""Characters of a host name, its last dot included (RFC 1035, section 2.3.4)."""


def canonical(name: str) -> str:
    """Return the one form in which a name is kept, compared and logged.

    Letters are small (RFC 4343), and a last dot says no more than that the name is whole. Of a URI that goes
    for scheme and host alone (RFC 3986, section 6.2.2.1). Unicode is composed (NFC).
    """
    scheme, is_uri, rest = name.partition("://")
    if is_uri:
        host, slash, path = rest.partition("/")
        return f"{scheme.lower()}://{host.lower()}{slash}{path}"
    small = name.lower()
    if not small.isascii():
        small = unicodedata.normalize("NFC", small)
    whole = small.endswith(".") and not small.endswith("..") and small != "."
    return small[:-1] if whole else small


def spellings(name: str) -> tuple[str, ...]:
    """Return the canonical names that a caller may mean: as it is written, and what DNS has for Unicode."""
    kept = canonical(name)
    if kept.isascii() or len(kept) > _LONGEST:
        return (kept,)
    try:
        return kept, kept.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return (kept,)
