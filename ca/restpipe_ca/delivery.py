"""Where an issued identity goes: one bundle file, or a folder of separate PEM files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from restpipe_ca import authority, files
from restpipe_ca.bundle import Bundle, pem
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import PublicKey

KEY, CERTIFICATE, CA, CRL = "key.pem", "certificate.pem", "ca.pem", "crl.pem"
SECRET_MODE, PUBLIC_MODE = 0o600, 0o644


@dataclass(frozen=True)
class Destination:
    """One or both places to write to; neither is for a caller who takes the bundle as a value."""

    bundle: Path | None = None
    pem_directory: Path | None = None

    def prepare(self, key: PublicKey | None) -> None:
        """Make the folder, and raise CaError for all that can be known before a certificate is signed.

        `key` is the one to be certified, None where a new one will be made.
        """
        if self.bundle is not None:
            if _stands(self.bundle):
                raise CaError(
                    f"{self.bundle} exists and is not overwritten: move it away or give another --out"
                )
            _check_writable(self.bundle.parent)
        if self.pem_directory is not None:
            files.make_directory(self.pem_directory, 0o700)
            _check_writable(self.pem_directory)
            _check_key(self.pem_directory / KEY, key)

    def deliver(self, bundle: Bundle, revocation_list: x509.CertificateRevocationList) -> None:
        """Write. Each file is whole or absent, and a private key comes last.

        CaError where one cannot be written: what has been signed waits in the CA's folder until it can.
        """
        try:
            if self.pem_directory is not None:
                _deliver_pem(self.pem_directory, bundle, revocation_list)
            if self.bundle is not None:
                # The mode does not depend on a key being in it: one rule to remember.
                _create(self.bundle, bundle.encode(), inherit_owner=False)
        except OSError as error:
            raise CaError(
                f"{error.filename}: {error.strerror}; the certificate is signed and its bundle waits here: "
                "the same command delivers it, with another --out or --pem-directory if need be"
            ) from error


def _deliver_pem(directory: Path, bundle: Bundle, revocation_list: x509.CertificateRevocationList) -> None:
    files.make_directory(directory, 0o700)
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
        if files.read(path) != data:
            raise CaError(f"{path} exists and is not overwritten") from None


def _stands(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _check_writable(directory: Path) -> None:
    if not directory.is_dir():
        raise CaError(f"{directory}: there is no such folder")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise CaError(f"{directory}: you may not write there")


def _check_key(path: Path, key: PublicKey | None) -> None:
    if not _stands(path):
        return
    if key is None:
        raise CaError(f"{path} exists, and a key is never overwritten")
    try:
        standing = serialization.load_pem_private_key(files.read(path), None).public_key()
    except TypeError:
        return  # It is encrypted: nobody can tell.
    except OSError:
        raise
    except Exception:
        raise CaError(f"{path} is not a private key") from None
    if authority.public_bytes(standing) != authority.public_bytes(key):
        raise CaError(f"{path} is another key than the certificate's")
