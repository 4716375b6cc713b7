from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from restpipe_ca.authority import Authority
from restpipe_ca.profiles import Role

from restpipe.errors import ConfigError
from restpipe.transport.certificates import Certificate, load_certificates, read_chain
from restpipe.transport.revocation import RevocationList, Revocations, read_lists
from tests.support.certificates import Made, authority, leaf, revocation_list, rsa_key
from tests.unit.transport.kit import Identities, pem

DER = serialization.Encoding.DER


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities.make(tmp_path_factory.mktemp("revocation") / "ca")


def a_list(ca: Authority, *, days: int | None = None, ago_days: int = 0) -> x509.CertificateRevocationList:
    return ca.revocation_list([], 1, datetime.now(UTC) - timedelta(days=ago_days), days)


def test_a_revoked_certificate_is_covered_and_others_are_not(ids: Identities) -> None:
    files, others = ids.issue(["alpha"], Role.CLIENT), ids.issue(["beta"], Role.CLIENT)
    ids.revoke(files)
    (found,), unknown = read_lists(files.crl, [ids.ca.certificate])
    assert unknown == []
    revocations = Revocations([found])
    root = ids.ca.certificate.public_bytes(DER)
    alpha, beta = (
        read_chain([load_certificates(one.certificate.read_bytes())[0].public_bytes(DER), root])
        for one in (files, others)
    )
    assert revocations.covers(alpha)
    assert not revocations.covers(beta)
    assert not Revocations().covers(alpha)


def facts(made: Made) -> Certificate:
    """As they are read from a chain that OpenSSL has verified."""
    chain = [made.certificate.public_bytes(DER)]
    while (made := made.issuer) is not None:  # type: ignore[assignment]
        chain.append(made.certificate.public_bytes(DER))
    return read_chain(chain)


def lists_in(path: Path, data: bytes, *authorities: Made) -> Revocations:
    path.write_bytes(data)
    found, unknown = read_lists(path, [each.certificate for each in authorities])
    assert not unknown
    return Revocations(found)


def test_of_two_authorities_of_one_name_each_revokes_its_own_alone(tmp_path: Path) -> None:
    old, new = authority("Easy-RSA CA"), authority("Easy-RSA CA")
    olds, news = leaf("web1", old, serial=2), leaf("web1", new, serial=2)
    revoked = lists_in(tmp_path / "crl.pem", revocation_list(old, [olds]), new, old)
    assert revoked.covers(facts(olds))
    assert not revoked.covers(facts(news))
    both = revocation_list(old, [olds]) + revocation_list(new, [news])
    assert lists_in(tmp_path / "crl.pem", both, new, old).covers(facts(news))


def test_an_authority_with_a_renewed_certificate_is_the_same(tmp_path: Path) -> None:
    old = authority("CA")
    renewed = authority("CA", key=old.key, days=60)
    made = leaf("web1", renewed)
    assert lists_in(tmp_path / "crl.pem", revocation_list(old, [made]), old).covers(facts(made))


def test_a_revoked_authority_in_between_takes_what_it_has_signed_with_it(tmp_path: Path) -> None:
    root = authority("Root")
    site, other = authority("Site", root), authority("Other site", root)
    revoked = lists_in(tmp_path / "crl.pem", revocation_list(root, [site]), root)
    assert revoked.covers(facts(leaf("web1", site)))
    assert not revoked.covers(facts(leaf("web1", other)))


@pytest.mark.parametrize(
    "make_key",
    [
        ed25519.Ed25519PrivateKey.generate,
        ed448.Ed448PrivateKey.generate,
        lambda: ec.generate_private_key(ec.SECP521R1()),
        rsa_key,
    ],
)
def test_lists_of_every_kind_of_key_are_read(tmp_path: Path, make_key: Callable[[], Any]) -> None:
    ca, forger = (authority("CA", key=make_key()) for _ in range(2))
    made = leaf("web1", ca)
    assert lists_in(tmp_path / "crl.pem", revocation_list(ca, [made]), ca).covers(facts(made))
    with pytest.raises(ConfigError, match="is not signed by it"):
        lists_in(tmp_path / "crl.pem", revocation_list(ca, [made]), forger)


def test_a_list_that_names_another_key_is_another_authority_s(tmp_path: Path) -> None:
    ours, theirs = authority("Easy-RSA CA"), authority("Easy-RSA CA")
    (tmp_path / "crl.pem").write_bytes(revocation_list(theirs, names_key=True))
    assert read_lists(tmp_path / "crl.pem", [ours.certificate]) == ([], ["CN=Easy-RSA CA"])


def unknown_extension(*, critical: bool) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), critical


def distribution_point(*, indirect: bool = False, users: bool = False) -> tuple[x509.ExtensionType, bool]:
    return (
        x509.IssuingDistributionPoint(
            full_name=[x509.UniformResourceIdentifier("http://ca.example/crl")],
            relative_name=None,
            only_contains_user_certs=users,
            only_contains_ca_certs=False,
            only_some_reasons=None,
            indirect_crl=indirect,
            only_contains_attribute_certs=False,
        ),
        True,
    )


@pytest.mark.parametrize(
    ("extension", "words"),
    [
        ((x509.DeltaCRLIndicator(1), True), "the list of CN=CA has changes alone"),
        (distribution_point(indirect=True), "an indirect list"),
        (unknown_extension(critical=True), r"a critical extension .* \(1.3.6.1.4.1.99999.1\)"),
    ],
)
def test_a_list_that_says_what_is_not_understood_is_refused(
    tmp_path: Path, extension: tuple[x509.ExtensionType, bool], words: str
) -> None:
    ca = authority("CA")
    with pytest.raises(ConfigError, match=words):
        lists_in(tmp_path / "crl.pem", revocation_list(ca, extensions=[extension]), ca)


@pytest.mark.parametrize("extension", [distribution_point(users=True), unknown_extension(critical=False)])
def test_a_list_of_some_certificates_holds_for_these(
    tmp_path: Path, extension: tuple[x509.ExtensionType, bool]
) -> None:
    ca = authority("CA")
    made = leaf("web1", ca)
    revoked = lists_in(tmp_path / "crl.pem", revocation_list(ca, [made], extensions=[extension]), ca)
    assert revoked.covers(facts(made))


def test_a_list_from_the_future_holds_already(tmp_path: Path) -> None:
    ca = authority("CA")
    made = leaf("web1", ca)
    assert lists_in(tmp_path / "crl.pem", revocation_list(ca, [made], from_day=1), ca).covers(facts(made))


def with_version(der: bytes, version: int) -> bytes:
    at = der.index(b"\x02\x01\x01")
    return der[: at + 2] + bytes((version,)) + der[at + 3 :]


def test_a_list_of_another_version_is_refused_in_one_line(ids: Identities, tmp_path: Path) -> None:
    der = a_list(ids.ca).public_bytes(DER)
    with pytest.raises(ConfigError) as caught:
        (tmp_path / "crl").write_bytes(with_version(der, 2))
        read_lists(tmp_path / "crl", [ids.ca.certificate])
    assert "\n" not in str(caught.value)


def test_no_single_byte_that_is_changed_in_a_list_does_more_than_have_it_refused(
    ids: Identities, tmp_path: Path
) -> None:
    der = a_list(ids.ca).public_bytes(DER)
    path = tmp_path / "crl"
    for at in range(len(der)):
        path.write_bytes(der[:at] + bytes((der[at] ^ 0xFF,)) + der[at + 1 :])
        try:
            found, _ = read_lists(path, [ids.ca.certificate])
        except ConfigError as error:
            assert "\n" not in str(error)
        else:
            # Its authority's name is another then.
            assert found == []


@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER])
def test_lists_are_read_in_both_encodings(
    ids: Identities, tmp_path: Path, encoding: serialization.Encoding
) -> None:
    path = tmp_path / "crl"
    path.write_bytes(a_list(ids.ca).public_bytes(encoding))
    found, _ = read_lists(path, [ids.ca.certificate])
    assert len(found) == 1


def test_lists_of_unknown_authorities_are_left_out_by_name(ids: Identities, tmp_path: Path) -> None:
    other = Identities.make(tmp_path / "other", "Other")
    path = tmp_path / "crl.pem"
    path.write_bytes(pem(a_list(other.ca)) + pem(a_list(ids.ca)))
    found, unknown = read_lists(path, [ids.ca.certificate])
    assert [one.issuer for one in found] == [ids.ca.certificate.subject.rfc4514_string()]
    assert unknown == [other.ca.certificate.subject.rfc4514_string()]


def test_a_list_that_its_authority_did_not_sign_is_refused(ids: Identities, tmp_path: Path) -> None:
    forged = Authority(ids.ca.certificate, Identities.make(tmp_path / "other").ca.key)
    path = tmp_path / "crl.pem"
    path.write_bytes(pem(a_list(forged)))
    with pytest.raises(ConfigError, match="is not signed by it"):
        read_lists(path, [ids.ca.certificate])


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_list_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_lists(path, [])
    assert str(caught.value).startswith(f"tls.crl {path}: ")
    with pytest.raises(ConfigError, match="No such file"):
        read_lists(tmp_path / "nowhere", [])


def test_what_an_old_list_says_still_holds_and_its_age_is_known(ids: Identities, tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(pem(a_list(ids.ca, days=5, ago_days=20)))
    (old,), _ = read_lists(path, [ids.ca.certificate])
    now = datetime.now(UTC).timestamp()
    assert Revocations([old]).stale(now) == [old.issuer]
    newer = old._replace(next_update=now + 100, revoked=frozenset({7}))
    both = Revocations([newer, old._replace(revoked=frozenset({8}))])
    assert both.stale(now) == []
    for_ever = RevocationList("CN=x", b"x", frozenset(), None)
    assert Revocations([for_ever]).stale(now * 2) == []
