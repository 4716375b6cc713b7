"""What `restpipe-ca` does, as functions of plain values: for its command line and for tests."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509

from restpipe_ca import authority, bundle, files, profiles
from restpipe_ca.authority import Authority, Revocation
from restpipe_ca.bundle import Bundle
from restpipe_ca.delivery import Destination
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import PublicKey, Role
from restpipe_ca.store import CERTIFICATE, CRL, DIRECTORY_MODE, INDEX, KEY, Record, Store

NOWHERE = Destination()
"""For callers who take the returned bundle."""


class State(enum.StrEnum):
    """What a certificate is worth at a given moment."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"
    NOT_YET_VALID = "not yet valid"


def no_passphrase() -> bytes:
    """For `Store.unlock` where nobody can be asked."""
    raise CaError("has a passphrase, and none was given")


def init(
    store: Store,
    title: str,
    now: datetime,
    *,
    days: int = profiles.CA_DAYS,
    passphrase: bytes | None = None,
    port: int | None = None,
) -> bool:
    """Make the CA. False if one stands there already; then nothing but the port is changed."""
    if store.initialised:
        if port is not None:
            with store.writing():
                store.put_port(port)
        return False
    ca = authority.create(title, now, days)
    files.make_directory(store.directory, DIRECTORY_MODE)
    if store.directory.stat().st_mode & 0o002:
        raise CaError(f"{store.directory} can be written by everybody: not a place for a CA")
    with store.writing():
        if store.initialised:
            return False
        _refuse_without_key(store)
        if port is not None:
            store.put_port(port)
        store.put_authority(ca, ca.revocation_list([], 1, now), passphrase)
    return True


def _refuse_without_key(store: Store) -> None:
    """Raises CaError if the key is elsewhere; what an interrupted `init` has left may be made anew."""
    if store.path(INDEX).exists():
        if store.records():
            raise CaError(
                f"{store.path(KEY)} is missing, but this CA has issued certificates: put the key back"
            )
        return
    for name in (CERTIFICATE, CRL):
        if store.path(name).exists():
            raise CaError(
                f"{store.path(name)} is of a CA whose key is not here: move it away, or put {KEY} here"
            )


def issue(
    store: Store,
    ca: Authority,
    role: Role,
    names: Sequence[str],
    *,
    dial: str,
    now: datetime,
    days: int = profiles.CERTIFICATE_DAYS,
    again: bool = False,
    to: Destination = NOWHERE,
) -> Bundle:
    """Make a key and a certificate for a new name, and deliver them.

    Where an earlier call broke off between signing and delivering, its bundle is delivered instead. A name
    that has a valid certificate gets another only with `again`: its key may be in use.
    """
    names = profiles.check_names(role, names)
    with store.writing():
        waiting = _waiting(store, role, names[0])
        if waiting is None or waiting.key is None or authority.names(waiting.certificate) != names:
            if not again:
                _refuse_standing(
                    store,
                    role,
                    names[0],
                    now,
                    "renew it, or revoke it first; if its key is lost, add --again",
                )
            to.prepare(None)
            waiting = _with_new_key(store, ca, role, names, dial, now, days)
        return _deliver(store, waiting, dial, to)


def sign(
    store: Store,
    ca: Authority,
    role: Role,
    request: x509.CertificateSigningRequest,
    names: Sequence[str] = (),
    *,
    dial: str,
    now: datetime,
    days: int = profiles.CERTIFICATE_DAYS,
    again: bool = False,
    to: Destination = NOWHERE,
) -> Bundle:
    """Sign a request made elsewhere. Only its key is taken from it, and its names unless `names` are given.

    Where an earlier call for the same key and names broke off between signing and delivering, its bundle is
    delivered instead. A name that has a valid certificate gets another only with `again`: who asks may be
    somebody else.
    """
    names = profiles.check_names(role, names or requested_names(request))
    key = profiles.check_public_key(request.public_key())
    with store.writing():
        waiting = _waiting(store, role, names[0])
        if waiting is None or not _certifies(waiting.certificate, key, names):
            if not again:
                _refuse_standing(
                    store, role, names[0], now, "if this is the same host with a new key, add --again"
                )
            to.prepare(key)
            waiting = _with_key(store, ca, key, role, names, dial, now, days)
        return _deliver(store, waiting, dial, to)


def renew(
    store: Store,
    ca: Authority,
    role: Role,
    name: str,
    *,
    dial: str,
    now: datetime,
    days: int = profiles.CERTIFICATE_DAYS,
    new_key: bool = False,
    to: Destination = NOWHERE,
) -> Bundle:
    """Sign a newer certificate for the same names, and the same key or a new one. The older stays good."""
    with store.writing():
        fresh = _waiting(store, role, name)
        if fresh is not None and (fresh.key is not None or not new_key):
            return _deliver(store, fresh, dial, to)
        old = _newest(store, role, name).certificate
        names = profiles.check_names(role, authority.names(old))
        key = None if new_key else profiles.check_public_key(old.public_key())
        to.prepare(key)
        if key is None:
            fresh = _with_new_key(store, ca, role, names, dial, now, days)
        else:
            fresh = _with_key(store, ca, key, role, names, dial, now, days)
        return _deliver(store, fresh, dial, to)


def revoke(
    store: Store,
    ca: Authority,
    role: Role,
    name: str,
    now: datetime,
    *,
    serial: str = "",
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified,
) -> list[Record]:
    """Revoke all certificates of the name, or the one whose serial begins so; returns those newly revoked."""
    with store.writing():
        meant = find(store, role, name, serial)
        if serial and len(meant) > 1:
            raise CaError(
                f"more than one certificate of {name} has a serial number that begins with {serial}"
            )
        current = store.revocation_list()
        entries = authority.revocations(current)
        fresh = [record for record in meant if record.serial not in entries]
        if fresh:
            added = [Revocation(record.serial, now, reason) for record in fresh]
            _put_list(store, ca, [*entries.values(), *added], current, now)
        for record in fresh:
            store.drop_pending(record)
    return fresh


def rewrite_list(store: Store, ca: Authority, now: datetime, days: int | None = None) -> int:
    """Sign the revocation list anew, and return its number."""
    with store.writing():
        current = store.revocation_list()
        return _put_list(store, ca, authority.revocations(current).values(), current, now, days)


def find(store: Store, role: Role, name: str, serial: str = "") -> list[Record]:
    """The certificates of a name, oldest first; CaError if there are none."""
    records = store.records()
    name = name.lower().removesuffix(".")
    named = [record for record in records if record.name == name]
    found = [record for record in named if record.role is role]
    if not found:
        hint = f" (but a {named[0].role} of that name)" if named else ""
        raise CaError(f"no {role} {name!a} has been issued a certificate{hint}")
    found = [record for record in found if authority.serial_text(record.serial).startswith(_digits(serial))]
    if not found:
        raise CaError(f"no certificate of {name} has a serial number that begins with {serial!a}")
    return found


def state(record: Record, revoked: Mapping[int, Revocation], now: datetime) -> State:
    """What the certificate is worth at `now`."""
    if record.serial in revoked:
        return State.REVOKED
    if now < authority.not_before(record.certificate):
        return State.NOT_YET_VALID
    return State.VALID if now <= authority.not_after(record.certificate) else State.EXPIRED


def servers(store: Store, now: datetime) -> list[Record]:
    """The servers' certificates that are valid, the newest first: clients dial it, unless told otherwise."""
    revoked = authority.revocations(store.revocation_list())
    return [
        record
        for record in reversed(store.records())
        if record.role is Role.SERVER and state(record, revoked, now) is State.VALID
    ]


def load_request(data: bytes) -> x509.CertificateSigningRequest:
    """A certificate request from PEM, its own signature checked."""
    try:
        request = x509.load_pem_x509_csr(data)
        if request.is_signature_valid:
            return request
    except Exception:
        # Which exceptions a foreign request can raise differs between versions of the library.
        raise CaError("this is not a certificate request in PEM") from None
    raise CaError("the request is not signed by the key that it names")


def requested_names(request: x509.CertificateSigningRequest) -> tuple[str, ...]:
    """The names that a request asks for: its subjectAltName's, else its common name."""
    try:
        names = authority.names(request)
    except ValueError:
        raise CaError("the request's names cannot be read") from None
    return names or tuple(filter(None, [authority.common_name(request)]))


def create_pipe(
    directory: Path,
    now: datetime,
    *,
    servers: Sequence[Sequence[str]] = (("localhost", "127.0.0.1", "::1"),),
    clients: Sequence[str] = ("web1",),
    days: int = profiles.CERTIFICATE_DAYS,
) -> Store:
    """A CA in DIRECTORY/ca with all its identities, each in DIRECTORY/NAME as separate PEM files.

    For demonstrations and tests. A server is given by its names, of which the first counts.
    """
    store = Store(directory / "ca")
    init(store, "RestPipe CA", now)
    ca = store.unlock(no_passphrase)
    everybody = [(Role.SERVER, names) for names in servers] + [(Role.CLIENT, [name]) for name in clients]
    for role, names in everybody:
        to = Destination(pem_directory=directory / names[0])
        issue(store, ca, role, names, dial=bundle.check_dial(servers[0][0]), now=now, days=days, to=to)
    return store


def _with_key(
    store: Store,
    ca: Authority,
    key: PublicKey,
    role: Role,
    names: Sequence[str],
    dial: str,
    now: datetime,
    days: int,
) -> Bundle:
    certificate = ca.issue(key, role, names, now, days)
    return _listed(store, Bundle(names[0], role, dial, certificate, ca.certificate))


def _with_new_key(
    store: Store, ca: Authority, role: Role, names: Sequence[str], dial: str, now: datetime, days: int
) -> Bundle:
    key = authority.new_key()
    certificate = ca.issue(key.public_key(), role, names, now, days)
    return _listed(store, Bundle(names[0], role, dial, certificate, ca.certificate, bundle.key_pem(key)))


def _listed(store: Store, fresh: Bundle) -> Bundle:
    # First the bundle, then the index: a certificate that is listed is somewhere, and so is its key.
    store.put_pending(fresh)
    older = store.records()
    store.put_records([*older, Record(fresh.name, fresh.role, fresh.certificate)])
    for record in older:
        # No command delivers another than the newest.
        if (record.role, record.name) == (fresh.role, fresh.name) and store.pending(record) is not None:
            store.drop_pending(record)
    return fresh


def _deliver(store: Store, fresh: Bundle, dial: str, to: Destination) -> Bundle:
    fresh = dataclasses.replace(fresh, dial=dial)
    to.deliver(fresh, store.revocation_list())
    store.drop_pending(Record(fresh.name, fresh.role, fresh.certificate))
    return fresh


def _waiting(store: Store, role: Role, name: str) -> Bundle | None:
    """The bundle of this name that was signed but not delivered."""
    revoked = authority.revocations(store.revocation_list())
    for record in reversed(store.records()):
        if (record.role, record.name) == (role, name) and record.serial not in revoked:
            return store.pending(record)
    return None


def _certifies(certificate: x509.Certificate, key: PublicKey, names: Sequence[str]) -> bool:
    same_key = authority.public_bytes(certificate.public_key()) == authority.public_bytes(key)
    return same_key and authority.names(certificate) == names


def _refuse_standing(store: Store, role: Role, name: str, now: datetime, advice: str) -> None:
    revoked = authority.revocations(store.revocation_list())
    for record in store.records():
        if (record.role, record.name) == (role, name) and state(record, revoked, now) is State.VALID:
            end = authority.stamp(authority.not_after(record.certificate))
            raise CaError(f"{role} {name} has a certificate that is valid until {end}: {advice}")


def _newest(store: Store, role: Role, name: str) -> Record:
    revoked = authority.revocations(store.revocation_list())
    for record in reversed(find(store, role, name)):
        if record.serial not in revoked:
            return record
    raise CaError(f"every certificate of {role} {name} is revoked: issue a new one")


def _put_list(
    store: Store,
    ca: Authority,
    entries: Iterable[Revocation],
    current: x509.CertificateRevocationList,
    now: datetime,
    days: int | None = None,
) -> int:
    number = authority.list_number(current) + 1
    store.put_revocation_list(ca.revocation_list(entries, number, now, days))
    return number


def _digits(serial: str) -> str:
    return serial.lower().replace(":", "").removeprefix("0x")
