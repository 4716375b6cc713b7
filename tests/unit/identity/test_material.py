"""Bundles and PEM files, taken apart."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from restpipe.errors import RestPipeError
from restpipe.host.config import Role
from restpipe.identity.material import public_half, read_bundle, read_files
from tests.support.certificates import Made, authority, leaf

HEADER = b"# restpipe-bundle: 1\n# name: web1\n# role: client\n# dial: pipe.example.com:1234\n"


@pytest.fixture(scope="module")
def web1(ca: Made) -> Made:
    return leaf("web1", ca)


def test_a_bundle_says_all(ca: Made, web1: Made) -> None:
    material = read_bundle(HEADER + web1.key_pem + web1.pem + ca.pem, "b")
    assert (material.name, material.role, material.dial) == ("web1", Role.CLIENT, "pipe.example.com:1234")
    assert material.chain == (web1.certificate,)
    assert material.authorities == (ca.certificate,)
    assert material.key == web1.key_pem
    assert material.fits(web1.key_pem)


def test_the_key_is_not_shown(ca: Made, web1: Made) -> None:
    material = read_bundle(HEADER + web1.key_pem + web1.pem + ca.pem, "b")
    assert "PRIVATE" not in repr(material)


def test_without_a_header_the_certificate_says_the_role(ca: Made, web1: Made) -> None:
    material = read_bundle(web1.pem + ca.pem + web1.key_pem, "b")
    assert (material.name, material.role, material.dial) == ("", None, "")
    assert material.meant_for is Role.CLIENT
    both = read_bundle(leaf("x", ca, ("client", "server")).pem + ca.pem, "b")
    assert both.meant_for is None


def test_intermediate_certificates_are_no_authorities(ca: Made) -> None:
    middle = authority("Middle", ca)
    end = leaf("web1", middle)
    material = read_bundle(end.pem + middle.pem + ca.pem, "b")
    assert material.chain == (end.certificate, middle.certificate)
    assert material.authorities == (ca.certificate,)
    unanchored = read_bundle(end.pem + middle.pem, "b")
    assert unanchored.chain == (end.certificate,)
    assert unanchored.authorities == (middle.certificate,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.replace(b"bundle: 1", b"bundle: 2"), "a bundle of version 2, 1 is known"),
        (lambda data: data.replace(b"role: client", b"role: queen"), "'queen' is not a valid Role"),
        (lambda data: data.replace(b":1234", b""), "'pipe.example.com' in the header"),
        (lambda data: data[: data.index(b"-----BEGIN CERT")], "there is no certificate in it"),
        (lambda data: data[: data.rindex(b"-----BEGIN CERT")], "the certificate of the CA is missing"),
        (lambda data: data.replace(b"\nMII", b"\nMIJ", 2), "is broken"),
        (lambda data: b"", "there is no certificate in it"),
    ],
)
def test_what_cannot_be_read_is_one_line(ca: Made, web1: Made, change, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RestPipeError) as raised:
        read_bundle(change(HEADER + web1.key_pem + web1.pem + ca.pem), "my.bundle")
    text = str(raised.value)
    assert words in text
    assert text.startswith("my.bundle: ")
    assert "\n" not in text


def test_no_damage_has_the_key_quoted(ca: Made, web1: Made) -> None:
    """Two lines damaged: one in the certificate's end, the other wherever."""
    lines = (HEADER + web1.pem + web1.key_pem + ca.pem).splitlines(keepends=True)
    secrets = [line.strip().decode() for line in web1.key_pem.splitlines()[1:-1]]
    end = lines.index(b"-----END CERTIFICATE-----\n")
    for number in range(len(lines)):
        damaged = [line for at, line in enumerate(lines) if at != number or at == end]
        damaged[damaged.index(b"-----END CERTIFICATE-----\n")] = b"-----END CERTIFICATE\n"
        with pytest.raises(RestPipeError) as raised:
            read_bundle(b"".join(damaged), "b")
        assert not [secret for secret in secrets if secret in str(raised.value)]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
    ],
)
def test_what_editors_of_other_systems_do_to_a_file_is_no_damage(ca: Made, web1: Made, change) -> None:  # type: ignore[no-untyped-def]
    material = read_bundle(change(HEADER + web1.key_pem + web1.pem + ca.pem), "b")
    assert (material.name, material.role) == ("web1", Role.CLIENT)
    assert material.key is not None
    assert material.fits(material.key)


def test_it_is_said_when_a_file_is_of_another_kind(ca: Made, web1: Made) -> None:
    together = pkcs12.serialize_key_and_certificates(
        b"web1", web1.key, web1.certificate, [ca.certificate], serialization.NoEncryption()
    )
    der = web1.certificate.public_bytes(serialization.Encoding.DER)
    for data in (together, der):
        with pytest.raises(RestPipeError, match=r"b: there is no certificate in it: it is DER or PKCS#12"):
            read_bundle(data, "b")
    key = web1.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(RestPipeError, match=r"k: there is no private key in it \(PEM\): it is DER"):
        read_files(key, web1.pem, ca.pem, ("k", "c", "a"))


def test_a_file_of_beginnings_alone_is_refused_at_once() -> None:
    with pytest.raises(RestPipeError, match="has no proper end"):
        read_bundle(b"-----BEGIN CERTIFICATE-----\n" * 30_000, "b")


def test_three_files_are_taken_as_they_are_named(ca: Made, web1: Made) -> None:
    material = read_files(web1.key_pem, web1.pem, ca.pem + authority("Old CA").pem, ("k", "c", "a"))
    assert len(material.authorities) == 2
    assert material.meant_for is Role.CLIENT
    for index, words in enumerate(
        ("k: there is no private key", "c: there is no cert", "a: there is no cert")
    ):
        parts = [web1.key_pem, web1.pem, ca.pem]
        parts[index] = b"nothing"
        with pytest.raises(RestPipeError, match=words):
            read_files(*parts, ("k", "c", "a"))


def test_a_key_that_cannot_be_used_is_told_without_showing_it(web1: Made) -> None:
    with pytest.raises(RestPipeError, match="is encrypted"):
        public_half(web1.key_pem_with(serialization.BestAvailableEncryption(b"secret")))
    broken = web1.key_pem.replace(b"MIG", b"MIH")
    with pytest.raises(RestPipeError, match="is broken") as raised:
        public_half(broken)
    assert raised.value.__cause__ is None
    assert broken.splitlines()[1].decode() not in str(raised.value)


def test_keys_of_older_kinds_are_read(ca: Made) -> None:
    end = leaf("web1", ca)
    old = end.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    assert b"BEGIN EC PRIVATE KEY" in old
    assert read_bundle(old + end.pem + ca.pem, "b").fits(old)
