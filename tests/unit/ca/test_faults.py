from __future__ import annotations

from datetime import datetime, timedelta

from restpipe_ca import authority, bundle, commands, faults
from restpipe_ca.authority import Authority
from restpipe_ca.bundle import Bundle
from restpipe_ca.profiles import Role
from restpipe_ca.store import KEY, Record, Store


def issue(store: Store, ca: Authority, name: str, now: datetime) -> Bundle:
    return commands.issue(store, ca, Role.CLIENT, [name], dial="pipe:1234", now=now, days=10)


def test_faults_of_a_folder_are_all_found(store: Store, ca: Authority, now: datetime) -> None:
    issue(store, ca, "web1", now)
    store.path(KEY).chmod(0o640)
    assert faults.of_store(store, now) == ["ca.key has mode 0640, it must not be wider than 0600"]
    store.path(KEY).unlink()
    assert faults.of_store(store, now) == ["ca.key is not here: nothing can be signed"]
    store.path(KEY).write_bytes(bundle.key_pem(authority.new_key()))
    store.path(KEY).chmod(0o600)
    assert faults.of_store(store, now) == [f"{store.path(KEY)}: does not belong to ca.pem"]
    (late, *_) = faults.of_store(store, now + timedelta(days=9999))
    assert "ca.pem is not valid now" in late


def test_a_foreign_certificate_in_the_index_is_found(store: Store, ca: Authority, now: datetime) -> None:
    other = authority.create("Other", now, 30)
    foreign = other.issue(authority.new_key().public_key(), Role.CLIENT, ["web1"], now, 30)
    with store.writing():
        store.put_records([Record("web2", Role.SERVER, foreign)] * 2)
    found = faults.of_store(store, now)
    assert len([line for line in found if "not signed by this CA" in line]) == 2
    assert len([line for line in found if "belongs to another certificate" in line]) == 2
    assert found[-1] == "index.json: a serial number occurs twice"


def test_faults_of_an_identity_are_all_found(store: Store, ca: Authority, now: datetime) -> None:
    fresh = issue(store, ca, "web1", now)

    def found(data: bytes, role: Role | None = None, moment: datetime = now) -> list[str]:
        return faults.of_identity(store, data, role, moment)

    assert found(fresh.encode(), Role.SERVER) == ["the certificate is a client's, not a server's"]
    assert found(fresh.encode(), moment=now + timedelta(days=11)) == ["the certificate is expired"]
    assert found(fresh.encode(), moment=now - timedelta(days=1)) == ["the certificate is not yet valid"]
    assert found(bundle.key_pem(authority.new_key()) + bundle.pem(fresh.certificate)) == [
        "the private key does not belong to the certificate"
    ]
    stray = ca.issue(authority.new_key().public_key(), Role.CLIENT, ["web1"], now, 30)
    assert found(bundle.pem(stray)) == ["the certificate is not in the index of this CA"]
    assert found(bundle.pem(authority.create("Other", now, 30).certificate)) == [
        "the first certificate is neither a client's nor a server's",
        "the certificate is not signed by this CA",
    ]
    assert found(b"hello") == ["there is no certificate in it"]
    commands.revoke(store, ca, Role.CLIENT, "web1", now)
    assert found(fresh.encode()) == ["the certificate is revoked"]
