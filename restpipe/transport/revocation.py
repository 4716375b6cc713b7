"""Revocation lists: read from PEM or DER, held against the authorities that signed them.

They are asked here and not in OpenSSL, so that one rule holds for connections to come and for those that
stand, a refusal can name whom it concerns, and neither a list that is out of date nor an authority without a
list cuts every link: what a list says holds until a newer one is there, and its age is complained about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import __version__ as version
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519

from restpipe.errors import ConfigError
from restpipe.files import read_file
from restpipe.transport import pem
from restpipe.transport.certificates import Certificate, authority_of, issuer_name, moment

MAX_LIST = 16 << 20
"""No file of lists is larger (bytes): some 400,000 certificates are revoked then."""


class RevocationList(NamedTuple):
    """One authority's list."""

    issuer: str
    authority: bytes
    """Which one of those that may bear that name (see `authority_of`)."""
    revoked: frozenset[int]
    """Serial numbers."""
    next_update: float | None
    """Unix time; None: it does not say."""


class Revocations:
    """What all lists at hand say together."""

    def __init__(self, lists: Iterable[RevocationList] = ()) -> None:
        self._revoked: dict[bytes, frozenset[int]] = {}
        self._next_update: dict[bytes, float] = {}
        self._names: dict[bytes, str] = {}
        for entry in lists:
            authority = entry.authority
            known = self._revoked.get(authority, frozenset())
            self._revoked[authority] = known | entry.revoked
            self._names[authority] = entry.issuer
            end = float("inf") if entry.next_update is None else entry.next_update
            # Of two copies of one authority's list, the newer says how old the knowledge is.
            self._next_update[authority] = max(end, self._next_update.get(authority, 0.0))

    def covers(self, certificate: Certificate) -> bool:
        """Whether the certificate is revoked, or an authority between it and the one that is trusted."""
        return any(signed.serial in self._revoked.get(signed.authority, ()) for signed in certificate.chain)

    def stale(self, now: float) -> list[str]:
        """The authorities whose list should have been replaced by now (Unix time)."""
        return [self._names[authority] for authority, end in self._next_update.items() if end < now]


def read_lists(path: Path, authorities: Sequence[x509.Certificate]) -> tuple[list[RevocationList], list[str]]:
    """The lists in a file, and the names of the authorities whose lists were left out because they are not
    among `authorities`. `ConfigError` when the file cannot be read or a list in it is not what it should be.
    """
    try:
        data = read_file(path, MAX_LIST)
    except OSError as error:
        raise ConfigError(f"tls.crl {path}: {error.strerror}") from error
    found: list[RevocationList] = []
    unknown: list[str] = []
    try:
        for number, der in enumerate(_ders(data), 1):
            authority, entry = _read(der, number, authorities)
            if entry is None:
                unknown.append(authority)
            else:
                found.append(entry)
    except ValueError as error:
        raise ConfigError(f"tls.crl {path}: {error}; it must hold revocation lists, PEM or DER") from error
    return found, unknown


def _ders(data: bytes) -> list[bytes]:
    return pem.ders(data, "X509 CRL", "revocation list") if b"-----BEGIN" in data else [data]


def _read(
    der: bytes, number: int, authorities: Sequence[x509.Certificate]
) -> tuple[str, RevocationList | None]:
    """Return whose list it is, and what it says; None if that authority is not among `authorities`."""
    loaded = _load(der, number)
    try:
        issuer = issuer_name(loaded.issuer)
        fault = "; ".join(_faults(loaded))
        named = [authority for authority in authorities if authority.subject == loaded.issuer]
        foreign = _is_foreign(loaded, named)
        revoked = frozenset(entry.serial_number for entry in loaded)
        end = moment(loaded, "next_update") if _has_next_update(loaded) else None
    except Exception as error:
        # Anybody may have made it. What the library raises for what it does not expect has no common class.
        raise ValueError(f"a part of revocation list {number} in it cannot be understood") from error
    if foreign:
        return issuer, None
    if fault:
        raise ValueError(f"the list of {issuer} {fault}")
    signer = _signer(loaded, named, issuer)
    next_update = None if end is None else end.timestamp()
    return issuer, RevocationList(issuer, authority_of(signer), revoked, next_update)


def _load(der: bytes, number: int) -> x509.CertificateRevocationList:
    try:
        return x509.load_der_x509_crl(der)
    except Exception as error:
        raise ValueError(f"entry {number} is not a valid revocation list") from error


def _faults(loaded: x509.CertificateRevocationList) -> Iterator[str]:
    """Say why a list must not be relied on (RFC 5280, section 5.2)."""
    for extension in loaded.extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            yield "has changes alone (a delta list), and a whole list is wanted"
        elif isinstance(value, x509.IssuingDistributionPoint):
            # What is on a list of some certificates, or of some reasons, is revoked all the same.
            if value.indirect_crl:
                yield "has certificates of other authorities, too (an indirect list), and is not understood"
        elif extension.critical and isinstance(value, x509.UnrecognizedExtension):
            yield f"has a critical extension that is not understood ({extension.oid.dotted_string})"


def _signer(
    loaded: x509.CertificateRevocationList, named: Sequence[x509.Certificate], issuer: str
) -> x509.Certificate:
    """Return the one that signed it. Raises ValueError if none did, or nobody can tell."""
    try:
        signer = next((authority for authority in named if _is_signed_by(loaded, authority)), None)
    except Exception as error:
        raise ValueError(
            f"the list of {issuer} is signed in a way that the library here (cryptography {version}) cannot "
            "check: it has no effect"
        ) from error
    if signer is None:
        raise ValueError(f"the list of {issuer} is not signed by it")
    return signer


def _is_signed_by(loaded: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        # Before version 40 the library has a method only for the other kinds.
        try:
            key.verify(loaded.signature, loaded.tbs_certlist_bytes)
        except InvalidSignature:
            return False
        return True
    # The newest versions of the library type the key narrower than what certificates hold.
    return loaded.is_signature_valid(key)  # type: ignore[arg-type]


def _is_foreign(loaded: x509.CertificateRevocationList, named: Sequence[x509.Certificate]) -> bool:
    """Tell whether none of those who bear its issuer's name can have made it: none has the key it names."""
    wanted = _key_identifier(loaded.extensions, x509.AuthorityKeyIdentifier)
    held = [_key_identifier(authority.extensions, x509.SubjectKeyIdentifier) for authority in named]
    return wanted not in held if wanted and all(held) else not named


def _key_identifier(
    extensions: x509.Extensions, kind: type[x509.AuthorityKeyIdentifier | x509.SubjectKeyIdentifier]
) -> bytes | None:
    try:
        return extensions.get_extension_for_class(kind).value.key_identifier
    except x509.ExtensionNotFound:
        return None


def _has_next_update(loaded: x509.CertificateRevocationList) -> bool:
    attribute = "next_update_utc" if hasattr(type(loaded), "next_update_utc") else "next_update"
    return getattr(loaded, attribute) is not None
