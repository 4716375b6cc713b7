"""Revocation lists: read from PEM or DER, held against the authorities that signed them.

They are asked here and not in OpenSSL, so that one rule holds for connections to come and for those that
stand, a refusal can name whom it concerns, and neither a list that is out of date nor an authority without a
list cuts every link: what a list says holds until a newer one is there, and its age is complained about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from restpipe.errors import ConfigError
from restpipe.transport.certificates import Certificate, issuer_name, moment

_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class RevocationList(NamedTuple):
    """One authority's list."""

    issuer: str
    revoked: frozenset[int]
    """Serial numbers."""
    next_update: float | None
    """Unix time; None: it does not say."""


class Revocations:
    """What all lists at hand say together."""

    def __init__(self, lists: Iterable[RevocationList] = ()) -> None:
        self._revoked: dict[str, frozenset[int]] = {}
        self._next_update: dict[str, float] = {}
        for entry in lists:
            known = self._revoked.get(entry.issuer, frozenset())
            self._revoked[entry.issuer] = known | entry.revoked
            end = float("inf") if entry.next_update is None else entry.next_update
            # Of two copies of one authority's list, the newer says how old the knowledge is.
            self._next_update[entry.issuer] = max(end, self._next_update.get(entry.issuer, 0.0))

    def covers(self, certificate: Certificate) -> bool:
        """Whether the certificate is revoked."""
        return certificate.serial in self._revoked.get(certificate.issuer, ())

    def stale(self, now: float) -> list[str]:
        """The authorities whose list should have been replaced by now (Unix time)."""
        return [issuer for issuer, end in self._next_update.items() if end < now]


def read_lists(path: Path, authorities: Sequence[x509.Certificate]) -> tuple[list[RevocationList], list[str]]:
    """The lists in a file, and the names of the authorities whose lists were left out because they are not
    among `authorities`. `ConfigError` when the file cannot be read or a list in it is not what it should be.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"tls.crl {path}: {error.strerror}") from error
    found: list[RevocationList] = []
    unknown: list[str] = []
    try:
        for loaded in _load(data):
            if _signed_by_any(loaded, authorities):
                found.append(_taken_apart(loaded))
            else:
                unknown.append(issuer_name(loaded.issuer))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"tls.crl {path}: {error}; it must hold revocation lists, PEM or DER") from error
    return found, unknown


def _load(data: bytes) -> list[x509.CertificateRevocationList]:
    blocks = _BLOCK.findall(data)
    if blocks:
        return [x509.load_pem_x509_crl(block) for block in blocks]
    if data.count(b"-----BEGIN"):
        raise ValueError("there is no revocation list in it")
    return [x509.load_der_x509_crl(data)]


def _signed_by_any(loaded: x509.CertificateRevocationList, authorities: Sequence[x509.Certificate]) -> bool:
    """False when its authority is not among them; ValueError when it is, but did not sign the list."""
    named = [authority for authority in authorities if authority.subject == loaded.issuer]
    if not named:
        return False
    # The newest versions of the library type the key narrower than what certificates hold.
    if not any(loaded.is_signature_valid(authority.public_key()) for authority in named):  # type: ignore[arg-type]
        raise ValueError(f"the list of {issuer_name(loaded.issuer)} is not signed by it")
    return True


def _taken_apart(loaded: x509.CertificateRevocationList) -> RevocationList:
    end = moment(loaded, "next_update") if _has_next_update(loaded) else None
    return RevocationList(
        issuer_name(loaded.issuer),
        frozenset(entry.serial_number for entry in loaded),
        None if end is None else end.timestamp(),
    )


def _has_next_update(loaded: x509.CertificateRevocationList) -> bool:
    attribute = "next_update_utc" if hasattr(type(loaded), "next_update_utc") else "next_update"
    return getattr(loaded, attribute) is not None
