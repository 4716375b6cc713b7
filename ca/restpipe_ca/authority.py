"""Certificates and revocation lists, built from values and taken apart again. No files, no clock."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from restpipe_ca import profiles
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import ALLOWANCE, PublicKey, Role


@dataclass(frozen=True)
class Revocation:
    """One entry of a revocation list."""

    serial: int
    at: datetime
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified


@dataclass(frozen=True)
class Authority:
    """A CA that can sign: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def issue(
        self, public_key: PublicKey, role: Role, names: Sequence[str], now: datetime, days: int
    ) -> x509.Certificate:
        """Sign a certificate for `role`; `names` have been checked. It never outlives the CA."""
        start, end = self._validity(now, days)
        return (
            x509.CertificateBuilder()
            .subject_name(_common_name(names[0]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(profiles.LEAF_KEY_USAGE, critical=True)
            .add_extension(x509.ExtendedKeyUsage([profiles.EXTENDED_KEY_USAGE[role]]), critical=False)
            .add_extension(profiles.alternative_names(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._key_identifier(), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def revocation_list(
        self, revocations: Iterable[Revocation], number: int, now: datetime, days: int | None = None
    ) -> x509.CertificateRevocationList:
        """Sign a list. Without `days` it is good as long as the CA is.

        Who reads it has it from this host's disk, where it is always the newest; a next update
        that passed unnoticed would only cut every link of the pipe.
        """
        now = now.replace(microsecond=0)
        end = not_after(self.certificate)
        if days is not None:
            end = min(end, now + timedelta(days=days))
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(max(now - ALLOWANCE, not_before(self.certificate)))
            .next_update(end)
            .add_extension(self._key_identifier(), critical=False)
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for revocation in revocations:
            builder = builder.add_revoked_certificate(_revoked(revocation))
        return builder.sign(self.key, hashes.SHA256())

    def _validity(self, now: datetime, days: int) -> tuple[datetime, datetime]:
        now = now.replace(microsecond=0)
        first, last = not_before(self.certificate), not_after(self.certificate)
        if now < first:
            raise CaError(
                f"this host's clock says {stamp(now)}, before the CA began ({stamp(first)}): set the clock"
            )
        if now >= last:
            raise CaError(f"the CA's own certificate expired at {stamp(last)}")
        return max(first, now - ALLOWANCE), min(last, now + timedelta(days=days))

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        extension = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh ECDSA P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def create(title: str, now: datetime, days: int) -> Authority:
    """A new self-signed CA that may sign end certificates only.

    A random word ends its name: two CAs of one pipe, old and new, must never share a subject.
    """
    name = f"{title} {secrets.token_hex(4)}"
    if not title.strip() or not title.isprintable() or len(name) > profiles.MAX_COMMON_NAME:
        raise CaError(f"the CA's name needs 1 to {profiles.MAX_COMMON_NAME - 9} printable characters")
    key = new_key()
    now = now.replace(microsecond=0)
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_common_name(name))
        .issuer_name(_common_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - ALLOWANCE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(profiles.CA_KEY_USAGE, critical=True)
        .add_extension(subject_key, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _revoked(revocation: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(revocation.serial)
        .revocation_date(revocation.at.replace(microsecond=0))
    )
    # RFC 5280, 5.3.1: the reason "unspecified" is said by leaving it out.
    if revocation.reason is not x509.ReasonFlags.unspecified:
        builder = builder.add_extension(x509.CRLReason(revocation.reason), critical=False)
    return builder.build()


def not_before(certificate: x509.Certificate) -> datetime:
    """When the certificate's validity begins."""
    return _moment(certificate, "not_valid_before")


def not_after(certificate: x509.Certificate) -> datetime:
    """When the certificate's validity ends."""
    return _moment(certificate, "not_valid_after")


def _moment(thing: Any, attribute: str) -> datetime:
    # cryptography before 42 knows only the naive attributes, from 42 on they are deprecated.
    aware: datetime | None = getattr(thing, f"{attribute}_utc", None)
    if aware is not None:
        return aware
    naive: datetime = getattr(thing, attribute)
    return naive.replace(tzinfo=UTC)


def stamp(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def serial_text(serial: int) -> str:
    """A serial number in the lower-case hexadecimal digits that openssl prints, two a byte."""
    text = f"{serial:x}"
    return text.zfill(len(text) + len(text) % 2)


def common_name(certificate: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """The subject's (first) common name, or an empty string."""
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        return attribute.value if isinstance(attribute.value, str) else ""
    return ""


def names(certificate: x509.Certificate | x509.CertificateSigningRequest) -> tuple[str, ...]:
    """The host names and addresses in subjectAltName, as text, in their order."""
    try:
        value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in value if isinstance(name, x509.DNSName | x509.IPAddress))


def role(certificate: x509.Certificate) -> Role | None:
    """The one role that the certificate's extended key usage allows, or None."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    for candidate, oid in profiles.EXTENDED_KEY_USAGE.items():
        if list(usages) == [oid]:
            return candidate
    return None


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether the certificate may sign others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def public_bytes(key: Any) -> bytes:
    """A public key in the one form in which keys can be compared."""
    encoded: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def fingerprint(key: Any) -> str:
    """SHA-256 of a public key, for reading out to somebody."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public_bytes(key))
    return digest.finalize().hex()


def signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether this CA (whose key is ECDSA, as all of ours) signed the certificate under its name."""
    return certificate.issuer == ca.subject and _signature_holds(
        ca, certificate.signature, certificate.tbs_certificate_bytes, certificate.signature_hash_algorithm
    )


def list_signed_by(revocation_list: x509.CertificateRevocationList, ca: x509.Certificate) -> bool:
    """Whether this CA signed the revocation list under its name."""
    return revocation_list.issuer == ca.subject and _signature_holds(
        ca,
        revocation_list.signature,
        revocation_list.tbs_certlist_bytes,
        revocation_list.signature_hash_algorithm,
    )


def _signature_holds(
    ca: x509.Certificate, signature: bytes, data: bytes, algorithm: hashes.HashAlgorithm | None
) -> bool:
    key = ca.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or algorithm is None:
        return False
    try:
        key.verify(signature, data, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def list_number(revocation_list: x509.CertificateRevocationList) -> int:
    """The list's number; each list has a higher one than the last."""
    return revocation_list.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def next_update(revocation_list: x509.CertificateRevocationList) -> datetime:
    """Until when the list may be relied on."""
    return _moment(revocation_list, "next_update")


def revocations(revocation_list: x509.CertificateRevocationList) -> dict[int, Revocation]:
    """The list's entries by serial number."""
    return {entry.serial_number: _revocation(entry) for entry in revocation_list}


def _revocation(entry: x509.RevokedCertificate) -> Revocation:
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        reason = x509.ReasonFlags.unspecified
    return Revocation(entry.serial_number, _moment(entry, "revocation_date"), reason)
