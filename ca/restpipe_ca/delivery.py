"""Where an issued identity goes: one bundle file, or a folder of separate PEM files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from restpipe_ca import authority, files
from restpipe_ca.bundle import Bundle, pem
from restpipe_ca.errors import CaError

KEY, CERTIFICATE, CA, CRL = "key.pem", "certificate.pem", "ca.pem", "crl.pem"
SECRET_MODE, PUBLIC_MODE = 0o600, 0o644


@dataclass(frozen=True)
class Destination:
    """One or both places to write to; neither is for a caller who takes the bundle as a value."""

    bundle: Path | None = None
    pem_directory: Path | None = None

    def check(self, *, new_key: bool) -> None:
        """CaError for what can be known before a certificate is signed."""
        if self.bundle is not None:
            if not self.bundle.parent.is_dir():
                raise CaError(f"{self.bundle.parent}: there is no such folder")
            if self.bundle.is_symlink() or self.bundle.exists():
                raise CaError(
                    f"{self.bundle} exists and is not overwritten: move it away or give another --out"
                )
        if new_key and self.pem_directory is not None:
            key = self.pem_directory / KEY
            if key.is_symlink() or key.exists():
                raise CaError(f"{key} exists, and a key is never overwritten")

    def deliver(self, bundle: Bundle, revocation_list: x509.CertificateRevocationList) -> None:
        """Write. Each file is whole or absent, and a private key comes last."""
        if self.pem_directory is not None:
            _deliver_pem(self.pem_directory, bundle, revocation_list)
        if self.bundle is not None:
            # The mode does not depend on a key being in it: one rule to remember.
            _create(self.bundle, bundle.encode(), inherit_owner=False)


def _deliver_pem(directory: Path, bundle: Bundle, revocation_list: x509.CertificateRevocationList) -> None:
    files.make_directory(directory, 0o700)
    if bundle.key is None:
        _check_key(directory / KEY, bundle.certificate)
    public = {
        CERTIFICATE: pem(bundle.certificate),
        CA: pem(bundle.ca),
        CRL: revocation_list.public_bytes(serialization.Encoding.PEM),
    }
    for name, data in public.items():
        files.replace(directory, name, data, PUBLIC_MODE, inherit_owner=True)
    if bundle.key is not None:
        _create(directory / KEY, bundle.key, inherit_owner=True)


def _create(path: Path, data: bytes, *, inherit_owner: bool) -> None:
    try:
        files.create(path.parent, path.name, data, SECRET_MODE, inherit_owner=inherit_owner)
    except FileExistsError:
        # An earlier delivery of the same identity may have broken off just after this.
        if path.read_bytes() != data:
            raise CaError(f"{path} exists and is not overwritten") from None


def _check_key(path: Path, certificate: x509.Certificate) -> None:
    # A key that is not there, or is encrypted, cannot tell.
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (FileNotFoundError, TypeError):
        return
    except ValueError:
        raise CaError(f"{path} is not a private key") from None
    if authority.public_bytes(key.public_key()) != authority.public_bytes(certificate.public_key()):
        raise CaError(f"{path} is not the key of this certificate")
