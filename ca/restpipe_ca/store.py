"""The CA's folder on disk.

    ca.key       the CA's private key, for its owner alone; never overwritten
    ca.pem       the CA's certificate
    index.json   every certificate ever issued
    crl.pem      the revocation list, and the only record of what is revoked
    port         what clients dial where an address names none; without it 1234
    *.pending    a bundle whose certificate is in the index but which has not reached its place yet
    lock         held by the one command that changes something

Each of these is replaced as a whole, and each command changes exactly one of `ca.key`, `index.json`
and `crl.pem` as its last step that counts: a command that breaks off has happened or has not.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from restpipe_ca import authority, bundle, files
from restpipe_ca.authority import Authority
from restpipe_ca.bundle import Bundle
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import Role

DEFAULT_DIRECTORY = Path("/var/lib/restpipe/ca")
LOCK_TIMEOUT_S = 30.0

KEY, CERTIFICATE, INDEX, CRL, LOCK = "ca.key", "ca.pem", "index.json", "crl.pem", "lock"
PORT = "port"
PENDING_SUFFIX = ".pending"
_PENDING = re.compile(r"[0-9a-f]{2,40}\.pending")
MODES = {KEY: 0o600, CERTIFICATE: 0o644, INDEX: 0o640, CRL: 0o644, PORT: 0o644}
PENDING_MODE = 0o600
# Others may look in: a daemon that runs as another user reads the CA's certificate and the list here.
DIRECTORY_MODE = 0o755

INDEX_VERSION = 1


@dataclass(frozen=True)
class Record:
    """One certificate of the index."""

    name: str
    role: Role
    certificate: x509.Certificate

    @property
    def serial(self) -> int:
        """The certificate's serial number."""
        return self.certificate.serial_number


class Store:
    """Reading takes no lock; whatever writes does so inside `writing()`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> Path:
        """Where a file of the store stands."""
        return self.directory / name

    @property
    def initialised(self) -> bool:
        """Whether a CA stands here: its key is the last thing that `init` writes."""
        return self.path(KEY).exists()

    def certificate(self) -> x509.Certificate:
        """The CA's certificate."""
        with _about(self.path(CERTIFICATE)):
            return bundle.load_certificate(self._read(CERTIFICATE))

    def unlock(self, passphrase: Callable[[], bytes]) -> Authority:
        """The CA with its key; `passphrase` is asked only if the key has one."""
        certificate = self.certificate()
        with _about(self.path(KEY)):
            key = _load_key(self._read(KEY), passphrase)
            if authority.public_bytes(key.public_key()) != authority.public_bytes(certificate.public_key()):
                raise CaError(f"does not belong to {CERTIFICATE}")
        return Authority(certificate, key)

    def records(self) -> tuple[Record, ...]:
        """Every certificate ever issued, oldest first."""
        with _about(self.path(INDEX)):
            return _decode_index(self._read(INDEX))

    def revocation_list(self) -> x509.CertificateRevocationList:
        """The list in force, its signature checked."""
        with _about(self.path(CRL)):
            try:
                found = x509.load_pem_x509_crl(self._read(CRL))
            except (CaError, OSError):
                raise
            except Exception:
                # What the library raises for a damaged one differs between its versions.
                raise CaError("is not a revocation list") from None
            if not authority.list_signed_by(found, self.certificate()):
                raise CaError("is not signed by this CA")
            return found

    def port(self) -> int:
        """The one to dial where an address names none."""
        try:
            port = int(files.read(self.path(PORT)))
        except FileNotFoundError:
            return bundle.DEFAULT_PORT
        except ValueError:
            port = 0
        if not 0 < port < 65536:
            raise CaError(f"{self.path(PORT)}: is no port: run restpipe-ca init --port PORT")
        return port

    def pending(self, record: Record) -> Bundle | None:
        """The record's bundle, if it has not reached its place."""
        try:
            return bundle.decode(files.read(self.path(_pending_name(record.serial))))
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def writing(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Be the one writer, and clear away what a broken-off command has left. Not reentrant."""
        fd = os.open(self.path(LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PENDING_MODE)
        try:
            self._own(fd)
            self._lock(fd, timeout_s)
            self._sweep()
            yield
        finally:
            os.close(fd)

    def put_authority(
        self, ca: Authority, revocation_list: x509.CertificateRevocationList, passphrase: bytes | None
    ) -> None:
        """Write a new CA and its first list. Its key comes last: without it nothing has happened."""
        # The index comes first: where it is and the key is not, `init` has broken off and can begin again.
        self._replace(INDEX, _encode_index(()))
        self.put_revocation_list(revocation_list)
        self._replace(CERTIFICATE, bundle.pem(ca.certificate))
        key = bundle.key_pem(ca.key, passphrase)
        files.create(self.directory, KEY, key, MODES[KEY], inherit_owner=True)

    def put_port(self, port: int) -> None:
        """Replace the port."""
        self._replace(PORT, f"{port}\n".encode())

    def put_records(self, records: Iterable[Record]) -> None:
        """Replace the index."""
        self._replace(INDEX, _encode_index(records))

    def put_revocation_list(self, revocation_list: x509.CertificateRevocationList) -> None:
        """Replace the revocation list."""
        self._replace(CRL, revocation_list.public_bytes(serialization.Encoding.PEM))

    def put_pending(self, pending: Bundle) -> None:
        """Keep a bundle until it has reached its place."""
        name = _pending_name(pending.certificate.serial_number)
        files.create(self.directory, name, pending.encode(), PENDING_MODE, inherit_owner=True)

    def drop_pending(self, record: Record) -> None:
        """Forget the record's bundle, and with it the last private key kept here that is not the CA's."""
        files.remove(self.directory, _pending_name(record.serial))

    def _read(self, name: str) -> bytes:
        try:
            return files.read(self.path(name))
        except FileNotFoundError:
            if self.initialised or (name == KEY and self.path(CERTIFICATE).exists()):
                raise CaError("is missing: put it back from a copy") from None
            raise CaError(
                "there is no CA here yet: the server's first start makes it "
                "(systemctl start restpipe-server), and so does restpipe-ca init"
            ) from None

    def _replace(self, name: str, data: bytes) -> None:
        files.replace(self.directory, name, data, MODES[name], inherit_owner=True)

    def _own(self, fd: int) -> None:
        # A second name would mean that the folder's owner has linked somebody else's file here.
        if os.geteuid() == 0 and os.fstat(fd).st_nlink == 1:
            folder = self.directory.stat()
            os.fchown(fd, folder.st_uid, folder.st_gid)

    def _lock(self, fd: int, timeout_s: float) -> None:
        give_up = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise CaError(f"{self.directory}: another restpipe-ca is at work here") from None
                time.sleep(0.02)
            else:
                return

    def _sweep(self) -> None:
        records = self.records() if self.path(INDEX).exists() else ()
        known = {_pending_name(record.serial) for record in records}
        for path in self.directory.iterdir():
            unsigned = _PENDING.fullmatch(path.name) and path.name not in known
            if unsigned or files.is_temporary(path.name):
                files.remove(self.directory, path.name)


def _pending_name(serial: int) -> str:
    return authority.serial_text(serial) + PENDING_SUFFIX


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    try:
        yield
    except CaError as error:
        raise CaError(f"{path}: {error}") from None


def _load_key(data: bytes, passphrase: Callable[[], bytes]) -> ec.EllipticCurvePrivateKey:
    encrypted = b"BEGIN ENCRYPTED PRIVATE KEY" in data
    secret = passphrase() if encrypted else None
    try:
        key = serialization.load_pem_private_key(data, secret)
    except Exception:
        # Nothing of what the library says is shown: it might quote the key.
        raise CaError("the passphrase is wrong" if encrypted else "is not a private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CaError("is not an ECDSA key")
    return key


def _encode_index(records: Iterable[Record]) -> bytes:
    entries = [
        {"name": record.name, "role": record.role, "certificate": bundle.pem(record.certificate).decode()}
        for record in records
    ]
    return (json.dumps({"version": INDEX_VERSION, "certificates": entries}, indent=1) + "\n").encode()


def _decode_index(data: bytes) -> tuple[Record, ...]:
    try:
        content = json.loads(data)
        if content["version"] != INDEX_VERSION:
            raise CaError(f"has version {content['version']!a}, this program knows {INDEX_VERSION}")
        return tuple(
            Record(entry["name"], Role(entry["role"]), bundle.load_certificate(entry["certificate"].encode()))
            for entry in content["certificates"]
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CaError("is damaged: put it back from a copy") from None
