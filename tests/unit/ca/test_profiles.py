from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from hypothesis import example, given
from hypothesis import strategies as st
from restpipe_ca import authority, profiles
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import Role


@pytest.mark.parametrize("name", ["web1", "a", "web-1.example.com", "1a", "x" * 63, "xn--mnchen-3ya"])
def test_host_names_are_taken(name: str) -> None:
    assert profiles.check_names(Role.CLIENT, [name]) == (name,)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("Web1", "use 'web1'"),
        ("web_1", "a-z, 0-9 and inner hyphens"),
        ("-web", "inner hyphens"),
        ("web-", "inner hyphens"),
        ("web..1", "inner hyphens"),
        ("web.", "inner hyphens"),
        ("../web", "inner hyphens"),
        ("web/1", "inner hyphens"),
        ("web 1", "inner hyphens"),
        ("web1\n", "inner hyphens"),
        ("*.example.com", "inner hyphens"),
        ("m\u00fcnchen", "inner hyphens"),
        ("web\u0661", "inner hyphens"),
        ("x" * 64, "63 characters"),
        ("a." * 32 + "a", "65 characters, 64 are allowed"),
        ("192.0.2.1", "network address"),
        ("web.123", "network address"),
        ("::1", "inner hyphens"),
    ],
)
def test_a_bad_client_name_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(CaError, match="cannot be a name") as caught:
        profiles.check_names(Role.CLIENT, [name])
    assert reason in str(caught.value)


@given(st.text(max_size=80))
@example("\u212a")  # the Kelvin sign, which lower() makes an ASCII k
@example("\u0130")
def test_a_name_is_either_plain_or_refused_in_one_printable_line(name: str) -> None:
    try:
        (taken,) = profiles.check_names(Role.CLIENT, [name])
    except CaError as error:
        line = str(error)
        assert line.isascii()
        assert line.isprintable()
    else:
        assert taken == name
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
        assert profiles.alternative_names([name]).get_values_for_type(x509.DNSName) == [name]


def test_a_client_has_one_name_and_a_server_at_least_one() -> None:
    with pytest.raises(CaError, match="a client has one name, 2 were given"):
        profiles.check_names(Role.CLIENT, ["a", "b"])
    with pytest.raises(CaError, match="a name is needed"):
        profiles.check_names(Role.SERVER, [])


def test_a_server_has_host_names_and_addresses_each_once_in_the_usual_spelling() -> None:
    names = profiles.check_names(Role.SERVER, ["pipe", "0:0::1", "192.0.2.7", "pipe", "::1"])
    assert names == ("pipe", "::1", "192.0.2.7")


@pytest.mark.parametrize("name", ["0.0.0.0", "::", "fe80::1%eth0"])  # noqa: S104
def test_addresses_that_nobody_can_dial_are_refused(name: str) -> None:
    with pytest.raises(CaError, match="dial from elsewhere"):
        profiles.check_names(Role.SERVER, [name])


def test_only_a_servers_first_name_must_fit_a_common_name() -> None:
    long = ".".join(["x" * 60] * 4)
    assert profiles.check_names(Role.SERVER, ["pipe", long]) == ("pipe", long)
    with pytest.raises(CaError, match="shorter name first"):
        profiles.check_names(Role.SERVER, [long, "pipe"])


def test_keys_fit_for_tls_are_signed() -> None:
    keys: list[object] = [
        authority.new_key().public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
        rsa.generate_private_key(65537, 2048).public_key(),
    ]
    assert [profiles.check_public_key(key) for key in keys] == keys


def test_weak_and_foreign_keys_are_refused() -> None:
    with pytest.raises(CaError, match="1024 bits"):
        profiles.check_public_key(rsa.generate_private_key(65537, 1024).public_key())  # noqa: S505
    with pytest.raises(CaError, match="secp256k1"):
        profiles.check_public_key(ec.generate_private_key(ec.SECP256K1()).public_key())
    with pytest.raises(CaError, match="cannot be used"):
        profiles.check_public_key(dsa.generate_private_key(2048).public_key())
