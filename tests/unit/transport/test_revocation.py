from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from restpipe_ca.authority import Authority
from restpipe_ca.profiles import Role

from restpipe.errors import ConfigError
from restpipe.transport.certificates import describe, load_certificates
from restpipe.transport.revocation import RevocationList, Revocations, read_lists
from tests.unit.transport.kit import Identities, pem


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
    alpha, beta = (describe(load_certificates(one.certificate.read_bytes())[0]) for one in (files, others))
    assert revocations.covers(alpha)
    assert not revocations.covers(beta)
    assert not revocations.covers(alpha._replace(issuer="CN=another"))
    assert not Revocations().covers(alpha)


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
    for_ever = RevocationList("CN=x", frozenset(), None)
    assert Revocations([for_ever]).stale(now * 2) == []
