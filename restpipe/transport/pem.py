"""PEM as it is found in files (RFC 7468): blocks between lines of text. Pure.

Nothing that a block holds is ever part of a message: it may be a private key.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import NamedTuple

_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"
_LONGEST_LABEL = 64
_DER_SEQUENCE = 0x30
_CERTIFICATE = "CERTIFICATE"
_OLD_CERTIFICATE, _TRUSTED_CERTIFICATE = "X509 CERTIFICATE", "TRUSTED CERTIFICATE"
"""Labels that OpenSSL reads as certificates, too. What follows the certificate in the latter is its own."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class Block(NamedTuple):
    """One block of a file."""

    label: str
    """`CERTIFICATE`, `X509 CRL`, `PRIVATE KEY` and the like."""
    text: bytes
    """All of it, from its BEGIN line to its END line, which ends with a line feed."""
    body: bytes
    """What stands between these two lines."""

    def der(self) -> bytes:
        """Return what its base64 says. Raises ValueError."""
        try:
            return base64.b64decode(b"".join(self.body.split()), validate=True)
        except binascii.Error:
            raise ValueError("its base64 is broken") from None


def blocks(data: bytes) -> Iterator[Block]:
    """Yield the blocks of a file, in time that grows with its size alone.

    Raises ValueError when it comes to one that does not end as it began.
    """
    start, number = data.find(_BEGIN), 0
    while start >= 0:
        number += 1
        label, inside = _label(data, start + len(_BEGIN))
        end = data.find(_END, inside)
        closing = _END + label + _DASHES
        if not label or end < 0 or not data.startswith(closing, end):
            raise ValueError(f"PEM block {number} in it has no proper end")
        body = data[inside:end]
        if _BEGIN in body:
            raise ValueError(f"PEM block {number} in it has no proper end")
        after = end + len(closing)
        yield Block(label.decode("ascii", "replace"), data[start:after] + b"\n", body)
        start = data.find(_BEGIN, after)


def _label(data: bytes, start: int) -> tuple[bytes, int]:
    """Return the label of the block that begins there (empty if there is none), and where its body begins."""
    end = data.find(_DASHES, start, start + _LONGEST_LABEL + len(_DASHES))
    return (data[start:end], end + len(_DASHES)) if end >= 0 else (b"", start)


def ders(data: bytes, label: str, what: str) -> list[bytes]:
    """Return what the blocks of this label hold. Raises ValueError if there are none, or one is broken.

    `what` is the word for them, fit for "no … in it".
    """
    found: list[bytes] = []
    for block in blocks(data):
        if label == _CERTIFICATE and block.label == _TRUSTED_CERTIFICATE:
            raise ValueError(
                f"{what} {len(found) + 1} in it is a {_TRUSTED_CERTIFICATE}, which OpenSSL alone reads "
                "(openssl x509 -in FILE writes a plain one)"
            )
        if block.label == label or (label == _CERTIFICATE and block.label == _OLD_CERTIFICATE):
            try:
                found.append(block.der())
            except ValueError as error:
                raise ValueError(f"{what} {len(found) + 1} in it is broken: {error}") from None
    if not found:
        raise ValueError(f"there is no {what} in it{seems(data)}")
    return found


def seems(data: bytes) -> str:
    """Say what a file without the wanted PEM blocks is instead, in words to be added; empty if unknown."""
    if not data.strip():
        return ": it is empty"
    if data[:1] == bytes((_DER_SEQUENCE,)) and _BEGIN not in data:
        return (
            ": it is DER or PKCS#12, and PEM is wanted (openssl x509, openssl pkey, openssl pkcs12 convert)"
        )
    if data.startswith(_UTF_16):
        return ": it is UTF-16 text, and PEM is wanted in ASCII"
    return ""
