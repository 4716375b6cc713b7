"""What the pipe needs to know of a certificate: whom it names, what for, and until when."""

from __future__ import annotations

import enum
import functools
import hashlib
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from restpipe import names
from restpipe.transport import pem


class Use(enum.StrEnum):
    """What a certificate may be shown as (extended key usage)."""

    CLIENT = "client"
    SERVER = "server"


SOON_S = 30 * 86400.0
"""A certificate that ends within this time is warned of, or renewed (seconds)."""
KNOWN = 4096
"""Certificates whose facts are kept: a client that comes back shows the same."""

MAX_FILE = 1 << 20
"""No file of certificates or keys is larger (bytes)."""

KNOWN_AUTHORITIES = 256
"""Authorities above certificates that are kept: they are few, and the same in all chains."""

_LONGEST_REASON = 200
_USES = {ExtendedKeyUsageOID.CLIENT_AUTH: Use.CLIENT, ExtendedKeyUsageOID.SERVER_AUTH: Use.SERVER}


class Signed(NamedTuple):
    """A certificate as its authority knows it: what a revocation list means by it."""

    authority: bytes
    """Of whoever signed it (see `authority_of`)."""
    serial: int


class Certificate(NamedTuple):
    """A certificate's facts."""

    name: str
    """The first DNS or URI name, else the common name; empty when it bears none (RFC 9525, section 6.4)."""
    names: tuple[str, ...]
    """All DNS, URI and IP names. They are canonical, as `name` is (see `restpipe.names`)."""
    uses: frozenset[Use]
    """Those that it is expressly meant for."""
    issuer: str
    """The name of the authority that signed it (RFC 4514)."""
    serial: int
    not_before: float
    """Unix time."""
    not_after: float
    """Unix time."""
    chain: tuple[Signed, ...] = ()
    """Itself and those between it and what is trusted: empty where it is trusted itself, or its chain is not
    known."""
    root: bytes = b""
    """What its chain ends at, which is trusted (see `authority_of`): an authority, or the certificate itself.
    Empty where its chain is not known."""

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


def read_chain(ders: Sequence[bytes]) -> Certificate:
    """Return the facts of a certificate that OpenSSL has verified, and of the chain by which it did.

    `ders` begins with the certificate and ends with the authority that is trusted. Raises ValueError if there
    is none, or one cannot be understood.
    """
    if not ders:
        raise ValueError("none was shown")
    own, *above = ders
    return _read(own, tuple(map(_authority, above)), _authority(ders[-1]).identifier)


class _Authority(NamedTuple):
    identifier: bytes
    serial: int


@functools.lru_cache(maxsize=KNOWN)
def _read(der: bytes, above: tuple[_Authority, ...], root: bytes) -> Certificate:
    certificate = read_certificate(der)
    serials = (certificate.serial, *(each.serial for each in above))
    # The last one is trusted as it is: nobody revokes it.
    pairs = zip(above, serials, strict=False)
    chain = tuple(Signed(each.identifier, serial) for each, serial in pairs)
    return certificate._replace(chain=chain, root=root)


@functools.lru_cache(maxsize=KNOWN_AUTHORITIES)
def _authority(der: bytes) -> _Authority:
    loaded = load_certificate(der)
    return _Authority(authority_of(loaded), loaded.serial_number)


def authority_of(certificate: x509.Certificate) -> bytes:
    """Return what tells one authority from all others: its name and its key, in a digest.

    Names are chosen freely: two authorities may bear the same, and count their serial numbers each from one.
    Where the library does not know the kind of its key, it is told by its whole certificate.
    """
    try:
        key = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except Exception:
        key = certificate.public_bytes(serialization.Encoding.DER)
    return hashlib.sha256(certificate.subject.public_bytes() + key).digest()


def read_certificate(der: bytes) -> Certificate:
    """Return the facts of a certificate. Raises `ValueError` if it is none, or cannot be understood."""
    return describe(load_certificate(der))


def load_certificate(der: bytes) -> x509.Certificate:
    """Raises ValueError, without a word of what is in it, if it is none."""
    try:
        return x509.load_der_x509_certificate(der)
    except Exception:
        # Which exceptions a broken one raises, and what they quote, differs between versions of the library.
        raise ValueError("it is no certificate, or a broken one") from None


def describe(certificate: x509.Certificate) -> Certificate:
    """The same of a certificate that is loaded already."""
    try:
        return _described(certificate)
    except Exception as error:
        # Anybody may have made it. What the library raises for what it does not expect has no common class.
        why = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ValueError(f"a part of it cannot be understood: {why}") from error


def _described(certificate: x509.Certificate) -> Certificate:
    extensions = certificate.extensions
    found = _names(extensions)
    subject = common_name(certificate.subject)
    identities = [str(name.value) for name in found if not isinstance(name, x509.IPAddress)]
    return Certificate(
        name=names.canonical(identities[0] if identities else subject),
        names=tuple(names.canonical(str(name.value)) for name in found),
        uses=_uses(extensions),
        issuer=issuer_name(certificate.issuer),
        serial=certificate.serial_number,
        not_before=moment(certificate, "not_valid_before").timestamp(),
        not_after=moment(certificate, "not_valid_after").timestamp(),
    )


def load_certificates(data: bytes) -> list[x509.Certificate]:
    """Those in a PEM file, in their order; ValueError when there are none or one is broken."""
    loaded: list[x509.Certificate] = []
    for number, der in enumerate(pem.ders(data, "CERTIFICATE", "certificate"), 1):
        try:
            certificate = load_certificate(der)
            describe(certificate)
        except ValueError as error:
            raise ValueError(f"certificate {number} in it is broken: {error}") from None
        loaded.append(certificate)
    return loaded


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
