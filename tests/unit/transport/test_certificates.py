from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from restpipe_ca import authority

from restpipe.transport.certificates import Use, describe, load_certificates, read_certificate, stamp
from tests.unit.transport.kit import pem

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def certificate(
    names: list[x509.GeneralName] | None = None,
    common_name: str = "",
    uses: list[x509.ObjectIdentifier] | None = None,
) -> x509.Certificate:
    key = authority.new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")]))
        .public_key(key.public_key())
        .serial_number(0xABC)
        .not_valid_before(BEGIN)
        .not_valid_after(BEGIN + timedelta(days=1))
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
    if uses is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return builder.sign(key, hashes.SHA256())


DNS, URI, MAIL = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name


@pytest.mark.parametrize(
    ("names", "common_name", "name"),
    [
        ([DNS("alpha.example"), DNS("beta")], "common", "alpha.example"),
        ([URI("spiffe://x/alpha"), DNS("beta")], "common", "spiffe://x/alpha"),
        ([MAIL("a@b.example"), DNS("beta")], "common", "beta"),
        ([MAIL("a@b.example")], "common", "common"),
        (None, "common", "common"),
        (None, "", ""),
    ],
)
def test_the_name(names: list[x509.GeneralName] | None, common_name: str, name: str) -> None:
    assert describe(certificate(names, common_name)).name == name


def test_an_address_is_one_of_its_names_but_not_its_name() -> None:
    facts = describe(certificate([x509.IPAddress(ipaddress.ip_address("10.0.0.1"))], "common"))
    assert (facts.name, facts.names) == ("common", ("10.0.0.1",))


def test_uses_are_those_that_it_says() -> None:
    both = x509.ExtendedKeyUsageOID.CLIENT_AUTH, x509.ExtendedKeyUsageOID.SERVER_AUTH
    assert describe(certificate(common_name="x")).uses == frozenset()
    assert describe(certificate(common_name="x", uses=[both[0]])).uses == {Use.CLIENT}
    assert describe(certificate(common_name="x", uses=list(both))).uses == {Use.CLIENT, Use.SERVER}
    # Any use at all is not this use.
    any_use = x509.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
    assert describe(certificate(common_name="x", uses=[any_use])).uses == frozenset()


def test_the_rest_of_its_facts() -> None:
    made = certificate(common_name="x")
    facts = read_certificate(made.public_bytes(serialization.Encoding.DER))
    assert (facts.issuer, facts.serial, facts.serial_text) == ("CN=CA", 0xABC, "0abc")
    assert (stamp(facts.not_before), stamp(facts.not_after)) == (
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
    )


@pytest.mark.parametrize("der", [b"", b"\x30\x03", b"nonsense" * 100])
def test_what_is_no_certificate_is_a_value_error(der: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_certificate(der)


def test_those_in_a_file_come_in_their_order() -> None:
    first, second = certificate(common_name="first"), certificate(common_name="second")
    text = b"# a comment\n" + pem(first) + b"\njunk between\n" + pem(second)
    assert [describe(one).name for one in load_certificates(text)] == ["first", "second"]
    with pytest.raises(ValueError, match="no certificate in it"):
        load_certificates(b"")
