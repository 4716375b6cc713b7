from __future__ import annotations

import os
import stat
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from restpipe_ca import authority, bundle
from restpipe_ca.authority import Authority
from restpipe_ca.bundle import Bundle
from restpipe_ca.delivery import Destination
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import Role
from restpipe_ca.store import Store


@pytest.fixture
def identity(ca: Authority, now: datetime) -> Bundle:
    key = authority.new_key()
    certificate = ca.issue(key.public_key(), Role.CLIENT, ["web1"], now, 30)
    return Bundle("web1", Role.CLIENT, "pipe:1234", certificate, ca.certificate, bundle.key_pem(key))


def keyless(identity: Bundle) -> Bundle:
    return Bundle(identity.name, identity.role, identity.dial, identity.certificate, identity.ca)


def test_a_bundle_is_for_its_owner_alone(tmp_path: Path, store: Store, identity: Bundle) -> None:
    path = tmp_path / "web1.bundle"
    Destination(path).deliver(identity, store.revocation_list())
    assert path.read_bytes() == identity.encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_separate_files_are_what_openssl_reads(tmp_path: Path, store: Store, identity: Bundle) -> None:
    folder = tmp_path / "deep" / "web1"
    to = Destination(pem_directory=folder)
    to.prepare(None)
    to.deliver(identity, store.revocation_list())
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()}
    assert modes == {"key.pem": "0o600", "certificate.pem": "0o644", "ca.pem": "0o644", "crl.pem": "0o644"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for kind, name in [("pkey", "key"), ("x509", "certificate"), ("x509", "ca"), ("crl", "crl")]:
        command = ["openssl", kind, "-noout", "-in", str(folder / f"{name}.pem")]
        subprocess.run(command, check=True, capture_output=True)


def test_what_is_in_the_way_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "key.pem").symlink_to("nowhere")
    (tmp_path / "web1.bundle").write_bytes(b"")
    for to, reason in [
        (Destination(pem_directory=tmp_path), "never overwritten"),
        (Destination(tmp_path / "web1.bundle"), "is not overwritten"),
        (Destination(tmp_path / "none" / "web1.bundle"), "no such folder"),
    ]:
        with pytest.raises(CaError, match=reason):
            to.prepare(None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for to in (Destination(tmp_path / "web1.bundle"), Destination(pem_directory=tmp_path)):
        with pytest.raises(CaError, match="you may not write there"):
            to.prepare(None)


def test_another_key_is_never_overwritten(tmp_path: Path, store: Store, identity: Bundle) -> None:
    for to in (Destination(tmp_path / "key.pem"), Destination(pem_directory=tmp_path)):
        (tmp_path / "key.pem").write_bytes(b"mine")
        with pytest.raises(CaError, match="exists and is not overwritten"):
            to.deliver(identity, store.revocation_list())
        assert (tmp_path / "key.pem").read_bytes() == b"mine"


def test_what_cannot_be_written_says_what_becomes_of_it(
    tmp_path: Path, store: Store, identity: Bundle
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CaError, match=r"web1\.bundle: Not a directory; the certificate is signed and its"):
        Destination(tmp_path / "file" / "web1.bundle").deliver(identity, store.revocation_list())


def test_delivering_twice_is_delivering_once(tmp_path: Path, store: Store, identity: Bundle) -> None:
    to = Destination(tmp_path / "web1.bundle", tmp_path)
    to.deliver(identity, store.revocation_list())
    to.deliver(identity, store.revocation_list())
    assert (tmp_path / "key.pem").read_bytes() == identity.key


def test_a_certificate_goes_beside_its_own_key_only(tmp_path: Path, identity: Bundle) -> None:
    to, key = Destination(pem_directory=tmp_path), authority.new_key()
    to.prepare(key.public_key())
    (tmp_path / "key.pem").write_bytes(bundle.key_pem(key))
    to.prepare(key.public_key())
    with pytest.raises(CaError, match="is another key"):
        to.prepare(authority.new_key().public_key())
    (tmp_path / "key.pem").write_bytes(b"hello")
    with pytest.raises(CaError, match="is not a private key"):
        to.prepare(key.public_key())


def test_an_encrypted_key_cannot_be_compared(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(bundle.key_pem(authority.new_key(), b"secret"))
    Destination(pem_directory=tmp_path).prepare(authority.new_key().public_key())


def test_a_bundle_without_a_key_leaves_the_key_alone(tmp_path: Path, store: Store, identity: Bundle) -> None:
    (tmp_path / "key.pem").write_bytes(b"mine")
    keyless = Bundle(identity.name, identity.role, identity.dial, identity.certificate, identity.ca)
    Destination(pem_directory=tmp_path).deliver(keyless, store.revocation_list())
    assert (tmp_path / "key.pem").read_bytes() == b"mine"
    assert (tmp_path / "certificate.pem").read_bytes() == bundle.pem(identity.certificate)
