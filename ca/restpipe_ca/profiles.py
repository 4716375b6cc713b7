"""What a certificate of this CA looks like: names, uses and validity. Pure rules, no keys and no clock."""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Sequence
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from restpipe_ca.errors import CaError

CA_DAYS = 7300
CERTIFICATE_DAYS = 730

ALLOWANCE = timedelta(minutes=5)
"""How far back every start of validity is set, for hosts whose clock is a little slow."""

MAX_COMMON_NAME = 64
MAX_HOST_NAME = 253

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


class Role(enum.StrEnum):
    """What a certificate may be used as; never both."""

    CLIENT = "client"
    SERVER = "server"


EXTENDED_KEY_USAGE = {
    Role.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
    Role.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
}

CA_KEY_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)

# TLS 1.3 only ever signs with a certificate's key.
LEAF_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def check_host_name(name: str, limit: int = MAX_HOST_NAME) -> str:
    """Give back `name` if it is a host name in lower case and short enough; CaError says what is wrong."""
    fault = host_name_fault(name, limit)
    if fault:
        raise CaError(f"{name!a} cannot be a name: {fault}")
    return name


def host_name_fault(name: str, limit: int) -> str:
    """What speaks against `name` as a host name of at most `limit` characters; empty if nothing does."""
    if not name:
        return "it is empty"
    if len(name) > limit:
        return f"it has {len(name)} characters, {limit} are allowed"
    if name != name.lower() and _all_labels(name.lower()):
        return f"names are in lower case here, use {name.lower()!a}"
    if not _all_labels(name):
        return "allowed are labels of a-z, 0-9 and inner hyphens, up to 63 characters each, with dots between"
    if name.rpartition(".")[2].isdigit():
        return "it would be read as a network address, its last label needs a letter"
    return ""


def _all_labels(name: str) -> bool:
    return all(_LABEL.fullmatch(label) for label in name.split("."))


def check_names(role: Role, names: Sequence[str]) -> tuple[str, ...]:
    """Give back a certificate's names, the first of which is its own; addresses in their usual spelling.

    A client has exactly one name. A server has host names and addresses.
    """
    if not names:
        raise CaError("a name is needed")
    if role is Role.CLIENT:
        if len(names) > 1:
            raise CaError(f"a client has one name, {len(names)} were given (for a server use --server)")
        return (check_host_name(names[0], MAX_COMMON_NAME),)
    first, *others = (_server_name(name) for name in names)
    if len(first) > MAX_COMMON_NAME:
        raise CaError(f"{first!a} is longer than {MAX_COMMON_NAME} characters: give a shorter name first")
    return tuple(dict.fromkeys((first, *others)))


def _server_name(name: str) -> str:
    address = as_address(name)
    if address is None:
        return check_host_name(name)
    if address.is_unspecified or getattr(address, "scope_id", None):
        raise CaError(f"{name!a} is not an address that a client could dial from elsewhere")
    return str(address)


def as_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The network address that `name` spells, or None."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def alternative_names(names: Sequence[str]) -> x509.SubjectAlternativeName:
    """The subjectAltName that holds `names`, already checked."""
    general: list[x509.GeneralName] = []
    for name in names:
        address = as_address(name)
        general.append(x509.DNSName(name) if address is None else x509.IPAddress(address))
    return x509.SubjectAlternativeName(general)


def check_public_key(key: object) -> PublicKey:
    """Give back the public key of a request if it is of a kind and strength that this CA signs."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < 2048:
            raise CaError(f"the request's RSA key has {key.key_size} bits, at least 2048 are needed")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
            raise CaError(
                f"the request's key is on the curve {key.curve.name}; P-256, P-384 and P-521 are signed"
            )
        return key
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return key
    raise CaError(
        "the request's key is of a kind that cannot be used for TLS 1.3 (use ECDSA, Ed25519 or RSA)"
    )
