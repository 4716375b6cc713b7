"""Certificates of any shape, good and bad, as other CAs (and attackers) would make them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

USES = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}
DAY_S = 86400.0

Extension = tuple[x509.ExtensionType, bool]
"""What it says, and whether it is critical."""


@dataclass(frozen=True)
class Made:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any
    issuer: Made | None = None

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key_pem_with(serialization.NoEncryption())

    def key_pem_with(self, encryption: serialization.KeySerializationEncryption) -> bytes:
        pem: bytes = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
        return pem

    @property
    def chain(self) -> bytes:
        """Its own certificate and all above it but the root."""
        above = self.issuer
        if above is None:
            return self.pem
        return self.pem + (above.chain if above.issuer is not None else b"")

    def write(self, directory: Path, ca: Made, crl: bytes | None = None) -> Path:
        """key.pem, certificate.pem and ca.pem (and crl.pem) in a folder, plain files."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "certificate.pem").write_bytes(self.chain)
        (directory / "ca.pem").write_bytes(ca.pem)
        if crl is not None:
            (directory / "crl.pem").write_bytes(crl)
        key = directory / "key.pem"
        key.touch(0o600)
        key.write_bytes(self.key_pem)
        return directory


def authority(name: str, issuer: Made | None = None, *, key: Any = None, days: float = 30) -> Made:
    """A root, or a CA below `issuer`."""
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    return _made(name, issuer, key, -1, days, [(constraints, True), (_ca_usage(), True)])


def leaf(
    name: str,
    issuer: Made | None,
    uses: Sequence[str] = ("client",),
    *,
    names: Sequence[x509.GeneralName] | None = None,
    from_day: float = -1,
    days: float = 30,
    key: Any = None,
    serial: int = 0,
    extensions: Sequence[Extension] = (),
) -> Made:
    """An end certificate; self-signed without an issuer. Times are in days from now."""
    alternatives = [x509.DNSName(name)] if names is None else list(names)
    held: list[Extension] = [(x509.BasicConstraints(ca=False, path_length=None), True), *extensions]
    if uses:
        held.append((x509.ExtendedKeyUsage([USES[use] for use in uses]), False))
    if alternatives:
        held.append((x509.SubjectAlternativeName(alternatives), False))
    return _made(name, issuer, key, from_day, days, held, serial)


def revocation_list(
    issuer: Made,
    revoked: Sequence[Made] = (),
    *,
    from_day: float = -60,
    days: float = 30,
    names_key: bool = False,
    extensions: Sequence[Extension] = (),
) -> bytes:
    """PEM. With negative days it is out of date. `names_key`: it says by which key it is signed."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now + timedelta(days=from_day))
        .next_update(now + timedelta(days=days))
    )
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now).build())
    if names_key:
        builder = builder.add_extension(_key_identifier(issuer.key), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer.key, _hash_for(issuer.key)).public_bytes(serialization.Encoding.PEM)


def _key_identifier(key: Any) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    )


def _hash_for(key: Any) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


def load(directory: Path, certificate: str = "ca.pem", key: str = "ca.key") -> Made:
    """A CA from its folder, as `restpipe-ca` keeps it."""
    return Made(
        x509.load_pem_x509_certificate((directory / certificate).read_bytes()),
        serialization.load_pem_private_key((directory / key).read_bytes(), None),
    )


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def openssl(*arguments: str, data: bytes = b"", timeout_s: float = 30) -> subprocess.CompletedProcess[bytes]:
    """The real one."""
    return subprocess.run(
        ["openssl", *arguments], input=data, capture_output=True, timeout=timeout_s, check=False
    )


def _made(
    name: str,
    issuer: Made | None,
    key: Any,
    from_day: float,
    days: float,
    extensions: list[Extension],
    serial: int = 0,
) -> Made:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(now + timedelta(days=from_day))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_key_identifier(issuer.key if issuer else key), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signing = issuer.key if issuer else key
    return Made(builder.sign(signing, _hash_for(signing)), key, issuer)


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
