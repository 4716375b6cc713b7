from __future__ import annotations

from datetime import datetime

import pytest
from restpipe_ca import authority, bundle
from restpipe_ca.authority import Authority
from restpipe_ca.bundle import Bundle
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import Role


@pytest.fixture
def identity(ca: Authority, now: datetime) -> Bundle:
    key = authority.new_key()
    certificate = ca.issue(key.public_key(), Role.CLIENT, ["web1"], now, 30)
    return Bundle("web1", Role.CLIENT, "pipe:1234", certificate, ca.certificate, bundle.key_pem(key))


def test_the_header_comes_first_and_can_be_read_by_people(identity: Bundle) -> None:
    assert identity.encode().decode().splitlines()[:5] == [
        "# restpipe-bundle: 1",
        "# name: web1",
        "# role: client",
        "# dial: pipe:1234",
        "-----BEGIN PRIVATE KEY-----",
    ]


def test_what_is_encoded_is_decoded(identity: Bundle) -> None:
    assert bundle.decode(identity.encode()) == identity


def test_a_bundle_may_hold_no_key(identity: Bundle) -> None:
    without = Bundle("web1", Role.CLIENT, "pipe:1234", identity.certificate, identity.ca)
    assert b"PRIVATE" not in without.encode()
    assert bundle.decode(without.encode()) == without


def test_the_key_is_in_no_repr(identity: Bundle) -> None:
    assert identity.key is not None
    assert identity.key.splitlines()[1].decode() not in repr(identity)


def test_split_says_what_is_wrong() -> None:
    with pytest.raises(CaError, match="no certificate"):
        bundle.split(b"hello")
    with pytest.raises(CaError, match="broken"):
        bundle.split(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("given", "dialed"),
    [
        ("pipe", "pipe:1234"),
        ("Pipe.Example.com:80", "pipe.example.com:80"),
        ("192.0.2.1", "192.0.2.1:1234"),
        ("192.0.2.1:99", "192.0.2.1:99"),
        ("::1", "[::1]:1234"),
        ("[0:0::1]:99", "[::1]:99"),
        ("[::1]", "[::1]:1234"),
    ],
)
def test_addresses_to_dial(given: str, dialed: str) -> None:
    assert bundle.check_dial(given) == dialed


@pytest.mark.parametrize(
    "given",
    [
        "",
        ":1234",
        "pipe:",
        "pipe:0",
        "pipe:65536",
        "pipe:x",
        "pi pe",
        "a:1:2",
        "[pipe]:1",
        "pipe\n# x: y",
        "[::1",
    ],
)
def test_what_cannot_be_dialed_is_refused_in_one_line(given: str) -> None:
    with pytest.raises(CaError) as caught:
        bundle.check_dial(given)
    assert str(caught.value).isprintable()
