"""What the pipe needs to know of a certificate: whom it names, what for, and until when."""

from __future__ import annotations

import enum
import functools
import re
import sys
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Use(enum.StrEnum):
    """What a certificate may be shown as (extended key usage)."""

    CLIENT = "client"
    SERVER = "server"


SOON_S = 30 * 86400.0
"""A certificate that ends within this time is warned of, or renewed (seconds)."""
KNOWN = 4096
"""Certificates whose facts are kept: a client that comes back shows the same."""

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_USES = {ExtendedKeyUsageOID.CLIENT_AUTH: Use.CLIENT, ExtendedKeyUsageOID.SERVER_AUTH: Use.SERVER}


class Certificate(NamedTuple):
    """A certificate's facts."""

    name: str
    """The first DNS or URI name, else the common name; empty when it bears none (RFC 9525, section 6.4)."""
    names: tuple[str, ...]
    """All DNS, URI and IP names."""
    uses: frozenset[Use]
    """Those that it is expressly meant for."""
    issuer: str
    """The name of the authority that signed it (RFC 4514)."""
    serial: int
    not_before: float
    """Unix time."""
    not_after: float
    """Unix time."""

    @property
    def serial_text(self) -> str:
        """The serial number as openssl prints it: hexadecimal, two digits a byte."""
        text = f"{self.serial:x}"
        return text.zfill(len(text) + len(text) % 2)


def fault_of_use(certificate: Certificate, use: Use) -> str:
    """Why it may not be shown as this, in words; empty when it may."""
    if use in certificate.uses:
        return ""
    actual = " and a ".join(sorted(certificate.uses))
    what = f"it is for use as a {actual}" if actual else "it names no such use (extended key usage)"
    return f"the certificate is not for use as a {use}: {what}"


@functools.lru_cache(maxsize=KNOWN)
def read_certificate(der: bytes) -> Certificate:
    """Return the facts of a certificate. Raises `ValueError` if it is none, or cannot be understood."""
    try:
        return describe(x509.load_der_x509_certificate(der))
    except Exception as error:
        # Strangers send these, and what a broken one raises differs between versions of the library.
        raise ValueError(str(error)) from error


def describe(certificate: x509.Certificate) -> Certificate:
    """The same of a certificate that is loaded already."""
    try:
        extensions = certificate.extensions
        names = _names(extensions)
        identities = [str(name.value) for name in names if not isinstance(name, x509.IPAddress)]
        return Certificate(
            name=identities[0] if identities else common_name(certificate.subject),
            names=tuple(str(name.value) for name in names),
            uses=_uses(extensions),
            issuer=issuer_name(certificate.issuer),
            serial=certificate.serial_number,
            not_before=moment(certificate, "not_valid_before").timestamp(),
            not_after=moment(certificate, "not_valid_after").timestamp(),
        )
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(str(error)) from error


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """Those in a PEM file, in their order; ValueError when there are none or one is broken."""
    blocks = _BLOCK.findall(pem)
    if not blocks:
        raise ValueError("there is no certificate in it")
    return [x509.load_pem_x509_certificate(block) for block in blocks]


def issuer_name(name: x509.Name) -> str:
    # Thousands of links hold the same few names.
    return sys.intern(name.rfc4514_string())


def common_name(subject: x509.Name) -> str:
    """The first one, or an empty string."""
    for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        return attribute.value if isinstance(attribute.value, str) else ""
    return ""


def moment(thing: Any, attribute: str) -> datetime:
    """A time of a certificate or a list, aware of its zone in every version of the library."""
    # Before version 42 there are only the naive attributes, from 42 on they are deprecated.
    aware: datetime | None = getattr(thing, f"{attribute}_utc", None)
    if aware is not None:
        return aware
    naive: datetime = getattr(thing, attribute)
    return naive.replace(tzinfo=UTC)


def stamp(unix_time: float) -> str:
    """A moment in UTC, as RFC 3339 has it."""
    return datetime.fromtimestamp(unix_time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _names(extensions: x509.Extensions) -> list[x509.GeneralName]:
    try:
        value = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    wanted = (x509.DNSName, x509.UniformResourceIdentifier, x509.IPAddress)
    return [name for name in value if isinstance(name, wanted)]


def _uses(extensions: x509.Extensions) -> frozenset[Use]:
    try:
        value = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(use for oid, use in _USES.items() if oid in value)
