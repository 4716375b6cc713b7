"""Each fault of an identity in a line of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from restpipe.host.config import Role
from restpipe.identity.checks import faults_of, rehearse
from restpipe.identity.material import Material, read_bundle
from restpipe.transport.tls import TlsFiles
from tests.support.certificates import Made, authority, leaf, rsa_key


def material(made: Made, ca: Made, key: bytes | None = b"own", header: bytes = b"") -> Material:
    shown = made.key_pem if key == b"own" else key or b""
    return read_bundle(header + shown + made.chain + ca.pem, "b")


def files(folder: Path) -> TlsFiles:
    return TlsFiles(folder / "key.pem", folder / "certificate.pem", folder / "ca.pem", folder / "crl.pem")


@pytest.mark.parametrize("role", list(Role))
def test_a_good_one_has_none(ca: Made, now: float, role: Role) -> None:
    assert faults_of(material(leaf("web1", ca, (role,)), ca), role, now) == []


def test_a_server_may_be_named_by_its_address_alone(ca: Made, now: float) -> None:
    import ipaddress

    address = x509.IPAddress(ipaddress.ip_address("192.0.2.1"))
    made = leaf("", ca, ("server",), names=[address])
    assert faults_of(material(made, ca), Role.SERVER, now) == []


def test_every_fault_is_told(ca: Made, now: float) -> None:
    made = leaf("web1", ca, ("server",), from_day=-9, days=-3)
    other = leaf("web2", ca)
    found = faults_of(material(made, ca, other.key_pem, b"# name: web9\n"), Role.CLIENT, now)
    assert len(found) == 4
    assert found[0] == "the private key does not belong to the certificate"
    assert found[1] == "the certificate is not for use as a client: it is for use as a server"
    assert found[2] == "the certificate is for 'web1', but was announced as 'web9'"
    assert found[3].startswith("the certificate expired at ")


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        ({"uses": ()}, "it names no such use"),
        ({"name": "", "names": []}, "the certificate bears no name"),
        ({"from_day": 1}, "the certificate is valid only from "),
    ],
)
def test_single_faults(ca: Made, now: float, made: dict[str, object], fault: str) -> None:
    arguments = {"name": "web1", "issuer": ca} | made
    (found,) = faults_of(material(leaf(**arguments), ca), Role.CLIENT, now)  # type: ignore[arg-type]
    assert fault in found


def test_faults_of_the_key_alone(ca: Made, now: float) -> None:
    made = leaf("web1", ca)
    assert faults_of(material(made, ca, None), Role.CLIENT, now) == ["there is no private key"]
    locked = made.key_pem_with(serialization.BestAvailableEncryption(b"secret"))
    (found,) = faults_of(material(made, ca, locked), Role.CLIENT, now)
    assert "encrypted" in found


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_the_rehearsal_of_a_good_one(tmp_path: Path, ca: Made, role: Role, kind: str) -> None:
    key = rsa_key() if kind == "rsa" else None
    made = leaf("web1", authority("Middle", ca), (role,), key=key)
    assert rehearse(files(made.write(tmp_path, ca)), role) == []


@pytest.mark.parametrize("role", list(Role))
def test_the_rehearsal_finds_what_the_other_side_would(tmp_path: Path, ca: Made, role: Role) -> None:
    stranger = leaf("web1", authority("Other CA"), (role,))
    (found,) = rehearse(files(stranger.write(tmp_path / "a", ca)), role)
    assert "does not come from the CA" in found
    wrong = leaf("web1", ca, ("client" if role is Role.SERVER else "server",))
    (found,) = rehearse(files(wrong.write(tmp_path / "b", ca)), role)
    assert "unsuitable certificate purpose" in found.lower() or "unsupported certificate purpose" in found
    middle = authority("Middle", ca)
    made = leaf("web1", middle, (role,))
    folder = made.write(tmp_path / "c", ca)
    (folder / "certificate.pem").write_bytes(made.pem)
    (found,) = rehearse(files(folder), role)
    assert "unable to get local issuer certificate" in found
