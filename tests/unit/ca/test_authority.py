from __future__ import annotations

import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from restpipe_ca import authority, bundle
from restpipe_ca.authority import Authority, Revocation
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import ALLOWANCE, Role


@pytest.fixture
def ca(now: datetime) -> Authority:
    return authority.create("Test CA", now, 365)


def leaf(ca: Authority, role: Role, now: datetime, days: int = 30) -> x509.Certificate:
    names = ["web1"] if role is Role.CLIENT else ["pipe.example.com", "localhost", "127.0.0.1", "::1"]
    return ca.issue(authority.new_key().public_key(), role, names, now, days)


def tool(*arguments: object) -> tuple[int, str]:
    done = subprocess.run([str(word) for word in arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def written(tmp_path: Path, ca: Authority, now: datetime) -> Path:
    for name, certificate in {
        "ca": ca.certificate,
        "client": leaf(ca, Role.CLIENT, now),
        "server": leaf(ca, Role.SERVER, now),
    }.items():
        (tmp_path / f"{name}.pem").write_bytes(bundle.pem(certificate))
    return tmp_path


def openssl_verify(folder: Path, moment: datetime, *more: object) -> tuple[int, str]:
    at = int(moment.timestamp())
    return tool("openssl", "verify", "-x509_strict", "-attime", at, "-CAfile", folder / "ca.pem", *more)


@pytest.mark.parametrize(("role", "purpose"), [("client", "sslclient"), ("server", "sslserver")])
def test_openssl_takes_each_certificate_for_its_own_use_only(
    written: Path, now: datetime, role: str, purpose: str
) -> None:
    other = {"sslclient": "sslserver", "sslserver": "sslclient"}[purpose]
    status, out = openssl_verify(written, now, "-purpose", purpose, written / f"{role}.pem")
    assert status == 0, out
    status, out = openssl_verify(written, now, "-purpose", other, written / f"{role}.pem")
    assert status != 0
    assert "purpose" in out


def test_openssl_knows_the_servers_names(written: Path, now: datetime) -> None:
    for option, name in [("-verify_hostname", "pipe.example.com"), ("-verify_ip", "::1")]:
        assert openssl_verify(written, now, option, name, written / "server.pem")[0] == 0
    assert openssl_verify(written, now, "-verify_hostname", "other", written / "server.pem")[0] != 0


def test_validity_begins_a_little_early_and_ends_in_time(written: Path, now: datetime) -> None:
    client = written / "client.pem"
    begin, end = now - timedelta(minutes=4), now + timedelta(days=29)
    assert openssl_verify(written, begin, client)[0] == 0
    assert openssl_verify(written, end, client)[0] == 0
    assert "expired" in openssl_verify(written, now + timedelta(days=31), client)[1]


def test_the_ca_signs_no_other_ca(tmp_path: Path, ca: Authority, now: datetime) -> None:
    below = authority.create("Below", now, 30)
    chained = (
        x509.CertificateBuilder()
        .subject_name(below.certificate.subject)
        .issuer_name(ca.certificate.subject)
        .public_key(below.key.public_key())
        .serial_number(7)
        .not_valid_before(authority.not_before(below.certificate))
        .not_valid_after(authority.not_after(below.certificate))
    )
    for extension in below.certificate.extensions:
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            chained = chained.add_extension(extension.value, extension.critical)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    signed = chained.add_extension(identifier, False).sign(ca.key, hashes.SHA256())
    (tmp_path / "ca.pem").write_bytes(bundle.pem(ca.certificate))
    (tmp_path / "below.pem").write_bytes(bundle.pem(signed))
    (tmp_path / "leaf.pem").write_bytes(bundle.pem(leaf(below, Role.CLIENT, now)))
    status, out = openssl_verify(tmp_path, now, "-untrusted", tmp_path / "below.pem", tmp_path / "leaf.pem")
    assert status != 0
    assert "path length" in out


def test_certtool_reads_and_names_the_uses(written: Path) -> None:
    for name, words in {
        "ca": ["Certificate Authority (CA): TRUE", "Path Length Constraint: 0", "Certificate signing"],
        "client": [
            "TLS WWW Client",
            "DNSname: web1",
            "Digital signature",
            "Certificate Authority (CA): FALSE",
        ],
        "server": ["TLS WWW Server", "DNSname: pipe.example.com", "IPAddress: 127.0.0.1", "IPAddress: ::1"],
    }.items():
        status, out = tool("certtool", "--certificate-info", "--infile", written / f"{name}.pem")
        assert status == 0, out
        assert [word for word in words if word not in out] == []


def test_critical_extensions_and_key_identifiers(ca: Authority, now: datetime) -> None:
    certificate = leaf(ca, Role.CLIENT, now)
    critical = {extension.oid._name for extension in certificate.extensions if extension.critical}
    assert critical == {"basicConstraints", "keyUsage"}
    own = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert issuer.key_identifier == own.digest


def test_serial_numbers_are_long_random_and_positive(ca: Authority, now: datetime) -> None:
    serials = {leaf(ca, Role.CLIENT, now).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert all(0 < serial < 1 << 159 for serial in serials)
    assert max(serials) > 1 << 140


def test_two_cas_of_one_title_have_different_subjects(now: datetime) -> None:
    one, other = authority.create("CA", now, 1), authority.create("CA", now, 1)
    assert one.certificate.subject != other.certificate.subject


@pytest.mark.parametrize("title", ["", "  ", "a\nb", "x" * 56])
def test_a_bad_title_is_refused(title: str, now: datetime) -> None:
    with pytest.raises(CaError, match="printable"):
        authority.create(title, now, 1)


def test_no_certificate_outlives_or_precedes_its_ca(ca: Authority, now: datetime) -> None:
    certificate = leaf(ca, Role.CLIENT, now, days=10_000)
    assert authority.not_after(certificate) == authority.not_after(ca.certificate)
    assert authority.not_before(certificate) == authority.not_before(ca.certificate)
    assert authority.not_before(certificate) == now.replace(microsecond=0) - ALLOWANCE


def test_a_wrong_clock_signs_nothing(ca: Authority, now: datetime) -> None:
    with pytest.raises(CaError, match="set the clock"):
        leaf(ca, Role.CLIENT, now - timedelta(days=1))
    with pytest.raises(CaError, match="expired at 2027-03-01"):
        leaf(ca, Role.CLIENT, now + timedelta(days=365))


def test_validity_beyond_2049_is_encoded_rightly(now: datetime) -> None:
    ca = authority.create("CA", now, 36_500)
    assert authority.not_after(ca.certificate) == now.replace(microsecond=0) + timedelta(days=36_500)


def test_the_list_comes_back_as_it_was_given(ca: Authority, now: datetime) -> None:
    entries = [
        Revocation(5, now.replace(microsecond=0)),
        Revocation(1 << 158, now.replace(microsecond=0), x509.ReasonFlags.key_compromise),
    ]
    signed = ca.revocation_list(entries, 3, now)
    assert list(authority.revocations(signed).values()) == entries
    assert authority.list_number(signed) == 3
    assert authority.next_update(signed) == authority.not_after(ca.certificate)
    assert authority.next_update(ca.revocation_list([], 4, now, days=2)) == now.replace(
        microsecond=0
    ) + timedelta(2)


def test_openssl_takes_the_list_and_refuses_what_is_on_it(
    written: Path, ca: Authority, now: datetime
) -> None:
    client = bundle.load_certificate((written / "client.pem").read_bytes())
    listed = ca.revocation_list([Revocation(client.serial_number, now)], 2, now)
    (written / "crl.pem").write_bytes(listed.public_bytes(serialization.Encoding.PEM))
    check = ["-crl_check", "-CRLfile", written / "crl.pem"]
    assert openssl_verify(written, now, *check, written / "server.pem")[0] == 0
    assert "certificate revoked" in openssl_verify(written, now, *check, written / "client.pem")[1]
    status, out = tool("certtool", "--crl-info", "--infile", written / "crl.pem")
    assert (status, authority.serial_text(client.serial_number) in out) == (0, True), out


def test_signatures_are_checked_by_name_and_key(ca: Authority, now: datetime) -> None:
    other = authority.create("Test CA", now, 30)
    namesake = Authority(ca.certificate, other.key)
    certificate = leaf(ca, Role.CLIENT, now)
    assert authority.signed_by(certificate, ca.certificate)
    assert not authority.signed_by(certificate, other.certificate)
    assert not authority.signed_by(leaf(namesake, Role.CLIENT, now), ca.certificate)
    assert authority.list_signed_by(ca.revocation_list([], 1, now), ca.certificate)
    assert not authority.list_signed_by(namesake.revocation_list([], 1, now), ca.certificate)


def test_what_a_certificate_says_is_read_back(ca: Authority, now: datetime) -> None:
    server = leaf(ca, Role.SERVER, now)
    assert authority.common_name(server) == "pipe.example.com"
    assert authority.names(server) == ("pipe.example.com", "localhost", "127.0.0.1", "::1")
    assert authority.role(server) is Role.SERVER
    assert authority.role(leaf(ca, Role.CLIENT, now)) is Role.CLIENT
    assert authority.role(ca.certificate) is None
    assert authority.names(ca.certificate) == ()
    assert (authority.is_ca(ca.certificate), authority.is_ca(server)) == (True, False)


def test_a_serial_number_reads_as_openssl_prints_it(written: Path) -> None:
    serial = bundle.load_certificate((written / "client.pem").read_bytes()).serial_number
    printed = tool("openssl", "x509", "-noout", "-serial", "-in", written / "client.pem")[1]
    assert printed.strip().lower() == f"serial={authority.serial_text(serial)}"
    assert authority.serial_text(0xABC) == "0abc"


def test_a_key_is_in_no_repr(ca: Authority) -> None:
    assert "key" not in repr(ca)
