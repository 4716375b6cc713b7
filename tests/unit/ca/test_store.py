from __future__ import annotations

import json
import os
import stat
from datetime import datetime
from pathlib import Path

import pytest
from restpipe_ca import authority, bundle, commands
from restpipe_ca.authority import Authority
from restpipe_ca.bundle import Bundle
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import Role
from restpipe_ca.store import CERTIFICATE, CRL, INDEX, KEY, Record, Store


@pytest.fixture
def identity(ca: Authority, now: datetime) -> Bundle:
    key = authority.new_key()
    certificate = ca.issue(key.public_key(), Role.CLIENT, ["web1"], now, 30)
    return Bundle("web1", Role.CLIENT, "pipe:1234", certificate, ca.certificate, bundle.key_pem(key))


def refuse() -> bytes:
    raise AssertionError("nobody should be asked")


def test_modes_of_all_files(store: Store, identity: Bundle) -> None:
    with store.writing():
        store.put_pending(identity)
    pending = f"{authority.serial_text(identity.certificate.serial_number)}.pending"
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in store.directory.iterdir()}
    assert modes == {
        KEY: "0o600",
        CERTIFICATE: "0o644",
        CRL: "0o644",
        INDEX: "0o640",
        "lock": "0o600",
        pending: "0o600",
    }
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o755


def test_a_plain_key_asks_for_no_passphrase(store: Store) -> None:
    ca = store.unlock(refuse)
    assert authority.public_bytes(ca.key.public_key()) == authority.public_bytes(
        store.certificate().public_key()
    )


def test_a_passphrase_opens_the_key_and_no_other_does(tmp_path: Path, now: datetime) -> None:
    store = Store(tmp_path / "locked")
    commands.init(store, "CA", now, passphrase=b"open sesame")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in store.path(KEY).read_bytes()
    assert store.unlock(lambda: b"open sesame").certificate == store.certificate()
    with pytest.raises(CaError, match=r"ca\.key: the passphrase is wrong") as caught:
        store.unlock(lambda: b"open barley")
    assert "barley" not in str(caught.value)


def test_an_uninitialised_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CaError, match=r"no CA here yet: .* and so does restpipe-ca init"):
        Store(tmp_path).certificate()


@pytest.mark.parametrize("name", [CERTIFICATE, CRL, INDEX, KEY])
def test_a_lost_file_is_never_taken_for_a_new_start(store: Store, name: str) -> None:
    store.path(name).unlink()
    with pytest.raises(CaError, match=f"{name}: is missing"):
        store.unlock(refuse), store.records(), store.revocation_list()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"{}", "damaged"),
        (b"[1]", "damaged"),
        (b'{"version": 1, "certificates": [{"name": "x"}]}', "damaged"),
        (b'{"version": 2, "certificates": []}', "has version 2, this program knows 1"),
        (b'{"version": 1, "certificates": [{"name": "x", "role": "client", "certificate": "x"}]}', "broken"),
    ],
)
def test_a_damaged_index_is_one_clear_line(store: Store, content: bytes, message: str) -> None:
    store.path(INDEX).write_bytes(content)
    with pytest.raises(CaError, match=message):
        store.records()


def test_a_list_that_is_not_this_cas_is_refused(store: Store, now: datetime) -> None:
    with store.writing():
        store.put_revocation_list(authority.create("Other", now, 1).revocation_list([], 9, now))
    with pytest.raises(CaError, match="not signed by this CA"):
        store.revocation_list()
    store.path(CRL).write_bytes(b"hello")
    with pytest.raises(CaError, match="not a revocation list"):
        store.revocation_list()


def test_a_key_of_another_ca_is_refused(store: Store, now: datetime) -> None:
    store.path(KEY).write_bytes(bundle.key_pem(authority.create("Other", now, 1).key))
    with pytest.raises(CaError, match=r"does not belong to ca\.pem"):
        store.unlock(refuse)
    store.path(KEY).write_bytes(b"hello")
    with pytest.raises(CaError, match="is not a private key"):
        store.unlock(refuse)


def test_records_come_back_in_their_order(store: Store, ca: Authority, now: datetime) -> None:
    records = [
        Record(name, role, ca.issue(authority.new_key().public_key(), role, [name], now, 1))
        for name, role in [("b", Role.SERVER), ("a", Role.CLIENT), ("a", Role.CLIENT)]
    ]
    with store.writing():
        store.put_records(records)
    assert store.records() == tuple(records)
    assert json.loads(store.path(INDEX).read_bytes())["version"] == 1


def test_there_is_one_writer_at_a_time(store: Store) -> None:
    other = Store(store.directory)
    with (
        store.writing(),
        pytest.raises(CaError, match="another restpipe-ca is at work"),
        other.writing(timeout_s=0),
    ):
        pass
    with other.writing(timeout_s=0):
        pass


def test_readers_do_not_wait_for_the_writer(store: Store) -> None:
    with store.writing():
        assert Store(store.directory).records() == ()


def test_a_writer_clears_away_leftovers_and_nothing_else(store: Store, identity: Bundle) -> None:
    with store.writing():
        store.put_pending(identity)
    for name in (".new-0123456789abcdef", "notes.pending", ".new-notes"):
        store.path(name).write_bytes(b"")
    with store.writing():
        names = {path.name for path in store.directory.iterdir()}
    assert names == {KEY, CERTIFICATE, CRL, INDEX, "lock", "notes.pending", ".new-notes"}


def test_a_listed_bundle_waits_until_it_is_dropped(store: Store, identity: Bundle) -> None:
    record = Record("web1", Role.CLIENT, identity.certificate)
    with store.writing():
        store.put_pending(identity)
        store.put_records([record])
    with store.writing():
        assert store.pending(record) == identity
        store.drop_pending(record)
        assert store.pending(record) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_leaves_the_store_to_its_owner(tmp_path: Path, now: datetime) -> None:
    directory = tmp_path / "owned"
    directory.mkdir()
    os.chown(directory, 12345, 12346)
    store = Store(directory)
    commands.init(store, "CA", now)
    commands.issue(store, store.unlock(refuse), Role.CLIENT, ["web1"], dial="pipe:1", now=now)
    assert {path.stat().st_uid for path in directory.iterdir()} == {12345}
