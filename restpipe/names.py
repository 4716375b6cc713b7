"""How the names of hosts compare: as DNS has it, whoever spells them."""

from __future__ import annotations

import re
import string
import unicodedata

_LONGEST = 254
"""Characters of a host name, its last dot included (RFC 1035, section 2.3.4)."""
_CAPITALS = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_URI = re.compile(
    r"(?![0-9a-f:.]+\Z)"  # Hexadecimal digits between colons are an address, of IPv6 or of a network card.
    r"([a-z][a-z0-9+.-]*:)(?:(//(?:[^/?#]*@)?)([^/?#]*))?(.*)",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)


def canonical(name: str) -> str:
    """Return the one form in which a name is kept, compared and logged.

    The letters A to Z are small, and no others (RFC 4343, section 3); a last dot says no more than that the
    name is whole. In a URI, only the scheme and the host have small letters (RFC 3986, section 6.2.2.1).
    Unicode is composed (NFC), unless that would put another character in the place of a single one.
    """
    if ":" in name and (uri := _URI.fullmatch(name)):
        scheme, user, host, rest = uri.groups(default="")
        return f"{scheme.lower()}{user}{host.translate(_CAPITALS)}{rest}"
    small = name.lower() if name.isascii() else _small_unicode(name)
    whole = small.endswith(".") and not small.endswith("..") and small != "."
    return small[:-1] if whole else small


def _small_unicode(name: str) -> str:
    if not all(unicodedata.is_normalized("NFC", each) for each in set(name)):
        # The Kelvin sign would be a K, and the name another host's.
        return name.translate(_CAPITALS)
    # Some marks go with a small letter alone.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).translate(_CAPITALS))


def spellings(name: str) -> tuple[str, ...]:
    """Return the canonical names that a caller may mean: as it is written, and what DNS has for Unicode.

    The latter only if it stands for the same letters, be they capital or small: `strasse` is not `straße`.
    """
    kept = canonical(name)
    if kept.isascii() or len(kept) > _LONGEST:
        return (kept,)
    try:
        encoded = kept.encode("idna").lower()
        small = encoded.decode("idna")
    except UnicodeError:
        return (kept,)
    if small != "".join(map(_small, kept)):
        return (kept,)
    return tuple(dict.fromkeys((kept, small, encoded.decode("ascii"))))


def _small(letter: str) -> str:
    """Return its small letter, if that is the small letter of no other."""
    small = letter.lower()
    return small if small.upper() == letter else letter
