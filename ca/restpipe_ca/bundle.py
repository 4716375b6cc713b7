"""The one file that carries an identity to another host: a few header lines, then PEM blocks.

# restpipe-bundle: 1
# name: web1
# role: client
# dial: pipe.example.com:1234
-----BEGIN PRIVATE KEY-----       (left out where the key never leaves the other host)
-----BEGIN CERTIFICATE-----       (the identity's own)
-----BEGIN CERTIFICATE-----       (the CA's)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from restpipe_ca import profiles
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import Role

VERSION = 1
DEFAULT_PORT = 1234

# Its body has no five dashes: so it is searched for once, however many blocks have no end.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----(?:(?!-----).)+-----END \1-----\s*?\n?", re.DOTALL)
_DIAL = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Bundle:
    """An identity on its way to the host that will use it."""

    name: str
    role: Role
    dial: str
    """Where a client finds its server: HOST:PORT."""
    certificate: x509.Certificate
    ca: x509.Certificate
    key: bytes | None = field(default=None, repr=False)
    """The private key, PEM; None where it never leaves the other host."""

    def encode(self) -> bytes:
        """The file's content."""
        header = {"restpipe-bundle": VERSION, "name": self.name, "role": self.role, "dial": self.dial}
        lines = "".join(f"# {key}: {value}\n" for key, value in header.items())
        return lines.encode() + (self.key or b"") + pem(self.certificate) + pem(self.ca)


def decode(data: bytes) -> Bundle:
    """Read what `encode` wrote."""
    header = dict(
        line[2:].split(": ", 1)
        for line in data.decode(errors="replace").splitlines()
        if line.startswith("# ")
    )
    key, certificates = split(data)
    return Bundle(
        header["name"], Role(header["role"]), header["dial"], certificates[0], certificates[-1], key
    )


def split(data: bytes) -> tuple[bytes | None, list[x509.Certificate]]:
    """The private key (or None) and the certificates of a PEM file, in order; CaError if there are none."""
    key: bytes | None = None
    certificates: list[x509.Certificate] = []
    for match in _BLOCK.finditer(data):
        if match[1] == b"CERTIFICATE":
            certificates.append(load_certificate(match[0]))
        elif match[1].endswith(b"PRIVATE KEY"):
            key = match[0]
    if not certificates:
        raise CaError("there is no certificate in it")
    return key, certificates


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def load_certificate(data: bytes) -> x509.Certificate:
    """A certificate from PEM; CaError where it is broken."""
    try:
        return x509.load_pem_x509_certificate(data)
    except Exception:
        # What the library raises for it differs between versions, and what it says may quote a key beside it.
        raise CaError("a certificate in it is broken") from None


def key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    """A private key as PEM (PKCS #8), encrypted if there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def check_dial(text: str, default: int = DEFAULT_PORT) -> str:
    """The address to dial as HOST:PORT, from HOST[:PORT], ADDRESS[:PORT], V6 or [V6]:PORT.

    Without a port it gets the one of `default`.
    """
    address = profiles.as_address(text)
    if address is not None and address.version == 6:
        return f"[{address}]:{default}"
    match = _DIAL.fullmatch(text)
    if match is None:
        raise CaError(f"{text!a} is not an address to dial: HOST[:PORT] or [V6]:PORT is allowed")
    port = int(match["port"] or default)
    if not 0 < port < 65536:
        raise CaError(f"{text!a} is not an address to dial: the port must be 1 to 65535")
    return f"{_dialed_host(match)}:{port}"


def host_of(dial: str) -> str:
    """The host in an address that `check_dial` has checked, as a certificate spells it."""
    host = dial.rpartition(":")[0].strip("[]")
    return str(profiles.as_address(host) or host)


def _dialed_host(match: re.Match[str]) -> str:
    if match["v6"] is not None:
        address = profiles.as_address(match["v6"])
        if address is None or address.version != 6:
            raise CaError(f"{match['v6']!a} is not an IPv6 address")
        return f"[{address}]"
    if profiles.as_address(match["host"]) is not None:
        return match["host"]
    # A dot at the end says that the name is complete; no certificate has it.
    return profiles.check_host_name(match["host"].lower().removesuffix("."))
