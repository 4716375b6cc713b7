"""What is wrong with a CA's folder, or with an identity that somebody presents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from restpipe_ca import authority, bundle, files
from restpipe_ca.bundle import Bundle
from restpipe_ca.commands import State, state
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import Role
from restpipe_ca.store import KEY, MODES, Record, Store


def of_store(store: Store, now: datetime, passphrase: bytes | None = None) -> list[str]:
    """Everything that is wrong with the CA's folder, one line each."""
    try:
        ca = store.certificate()
        found = _faults_of_ca(store, ca, now, passphrase)
        found += _faults_of_list(store, now)
        found += _faults_of_records(store.records(), ca)
        return found + [_waits(each) for each in map(store.pending, store.records()) if each]
    except CaError as error:
        return [str(error)]


def of_identity(store: Store, data: bytes, role: Role | None, now: datetime) -> list[str]:
    """Everything that speaks against an identity (a bundle or PEM file), one line each."""
    try:
        key, certificates = bundle.split(data)
    except CaError as error:
        return [str(error)]
    leaf = certificates[0]
    record = Record(authority.common_name(leaf), authority.role(leaf) or Role.CLIENT, leaf)
    found = _faults_of_use(leaf, role)
    if not authority.signed_by(leaf, store.certificate()):
        return [*found, "the certificate is not signed by this CA"]
    now_worth = state(record, authority.revocations(store.revocation_list()), now)
    if now_worth is not State.VALID:
        found.append(f"the certificate is {now_worth}")
    if leaf.serial_number not in {known.serial for known in store.records()}:
        found.append("the certificate is not in the index of this CA")
    if key is not None and not _matches(key, leaf):
        found.append("the private key does not belong to the certificate")
    return found


def _faults_of_ca(store: Store, ca: x509.Certificate, now: datetime, passphrase: bytes | None) -> list[str]:
    found = []
    if not authority.is_ca(ca) or not authority.signed_by(ca, ca):
        found.append("ca.pem is not the self-signed certificate of a CA")
    if not authority.not_before(ca) <= now <= authority.not_after(ca):
        found.append(f"ca.pem is not valid now ({authority.stamp(now)})")
    for name, mode in MODES.items():
        actual = store.path(name).stat().st_mode & 0o777 if store.path(name).exists() else mode
        if actual & ~mode:
            found.append(f"{name} has mode {actual:04o}, it must not be wider than {mode:04o}")
    return found + _faults_of_key(store, passphrase)


def _faults_of_key(store: Store, passphrase: bytes | None) -> list[str]:
    if not store.initialised:
        return [f"{KEY} is not here: nothing can be signed"]
    if passphrase is None and b"ENCRYPTED" in files.read(store.path(KEY)):
        return []
    try:
        store.unlock(lambda: passphrase or b"")
    except CaError as error:
        return [str(error)]
    return []


def _faults_of_list(store: Store, now: datetime) -> list[str]:
    end = authority.next_update(store.revocation_list())
    return [] if now < end else [f"crl.pem was good until {authority.stamp(end)} only: run restpipe-ca crl"]


def _faults_of_records(records: Sequence[Record], ca: x509.Certificate) -> list[str]:
    found = []
    for record in records:
        leaf = record.certificate
        if not authority.signed_by(leaf, ca):
            found.append(f"index.json: a certificate of {record.name!a} is not signed by this CA")
        if authority.common_name(leaf) != record.name or authority.role(leaf) is not record.role:
            found.append(
                f"index.json: the entry of {record.role} {record.name!a} belongs to another certificate"
            )
    if len({record.serial for record in records}) != len(records):
        found.append("index.json: a serial number occurs twice")
    return found


def _waits(pending: Bundle) -> str:
    command = "renew" if pending.key is None else "issue"
    return f"a bundle of {pending.role} {pending.name} waits to be delivered: run restpipe-ca {command} again"


def _faults_of_use(leaf: x509.Certificate, role: Role | None) -> list[str]:
    actual = authority.role(leaf)
    if authority.is_ca(leaf) or actual is None:
        return ["the first certificate is neither a client's nor a server's"]
    if role is not None and role is not actual:
        return [f"the certificate is a {actual}'s, not a {role}'s"]
    return []


def _matches(key: bytes, certificate: x509.Certificate) -> bool:
    try:
        loaded = serialization.load_pem_private_key(key, None)
    except Exception:
        return False
    return authority.public_bytes(loaded.public_key()) == authority.public_bytes(certificate.public_key())
