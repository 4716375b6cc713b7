"""An identity as it comes in: a bundle, or separate PEM files, taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from restpipe.errors import RestPipeError
from restpipe.host.config import Role, parse_address
from restpipe.transport.certificates import Certificate, Use, describe, load_certificates
from restpipe.transport.pem import blocks, seems

BUNDLE_VERSION = "1"

_HEADER = re.compile(r"# ([a-z-]+): (.*)")


@dataclass(frozen=True)
class Material:
    """What makes an identity, before anybody has looked whether it fits together."""

    chain: tuple[x509.Certificate, ...]
    """The certificate itself, and behind it the intermediate ones."""
    authorities: tuple[x509.Certificate, ...]
    key: bytes | None = field(default=None, repr=False)
    """PEM; None where it never left this host."""
    name: str = ""
    """The name that it was announced under."""
    role: Role | None = None
    dial: str = ""
    """Where a client finds its server, `host:port`; empty where nothing is said."""

    @property
    def certificate(self) -> Certificate:
        """The certificate's facts."""
        return describe(self.chain[0])

    @property
    def meant_for(self) -> Role | None:
        """The role that it says it is for, else the only one that its certificate allows."""
        uses = self.certificate.uses
        return self.role or (Role(next(iter(uses))) if len(uses) == 1 else None)

    def fits(self, key: bytes) -> bool:
        """Whether this private key (PEM, not encrypted) is the certificate's.

        Raises RestPipeError if either is broken.
        """
        private = public_half(key)
        try:
            return private == _public_bytes(self.chain[0].public_key())
        except Exception:
            raise RestPipeError("the certificate's key is broken, or of a kind that is not known") from None


def read_bundle(data: bytes, source: str) -> Material:
    """From one file with everything in it, as `restpipe-ca` writes it."""
    header = _header(data)
    version = header.get("restpipe-bundle", BUNDLE_VERSION)
    if version != BUNDLE_VERSION:
        shown = ascii(version[:20])[1:-1]
        raise RestPipeError(
            f"{source}: a bundle of version {shown}, {BUNDLE_VERSION} is known: upgrade restpipe"
        )
    chain, authorities = _sorted_out(_certificates(data, source), source)
    try:
        role = Role(header["role"]) if "role" in header else None
        dial = header.get("dial", "")
        if dial:
            parse_address(dial)
    except ValueError as error:
        raise RestPipeError(f"{source}: {error.args[0]!r} in the header is not understood") from error
    return Material(chain, authorities, _key(data, source), header.get("name", ""), role, dial)


def read_files(key: bytes, certificate: bytes, ca: bytes, sources: Sequence[str]) -> Material:
    """From three PEM files; `sources` names them."""
    found = _key(key, sources[0])
    if found is None:
        raise RestPipeError(f"{sources[0]}: there is no private key in it (PEM){seems(key)}")
    return Material(
        tuple(_certificates(certificate, sources[1])), tuple(_certificates(ca, sources[2])), found
    )


def public_half(key: bytes) -> bytes:
    """The public key of a private one (PEM). `RestPipeError` where it is encrypted or broken."""
    try:
        return _public_bytes(serialization.load_pem_private_key(key, None).public_key())
    except TypeError:
        raise RestPipeError(
            "the private key is encrypted: a daemon that starts by itself cannot use it; decrypt it first"
        ) from None
    except Exception:
        # Which exceptions a broken key raises differs between versions of the library. None is shown: it
        # might quote the key.
        raise RestPipeError("the private key is broken, or of a kind that is not known") from None


def pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def _header(data: bytes) -> dict[str, str]:
    text = data.partition(b"-----BEGIN")[0].decode("utf-8-sig", "replace")
    found = (_HEADER.fullmatch(line.rstrip()) for line in text.splitlines())
    return {match[1]: match[2].strip() for match in found if match}


def _certificates(data: bytes, source: str) -> list[x509.Certificate]:
    try:
        return load_certificates(data)
    except ValueError as error:
        raise RestPipeError(f"{source}: {error}") from error


def _sorted_out(
    certificates: list[x509.Certificate], source: str
) -> tuple[tuple[x509.Certificate, ...], tuple[x509.Certificate, ...]]:
    """Authorities are those that signed themselves; where there is none, whoever stands last."""
    first, *rest = certificates
    if not rest:
        raise RestPipeError(f"{source}: the certificate of the CA is missing")
    authorities = [each for each in rest if each.subject == each.issuer] or rest[-1:]
    return (first, *(each for each in rest if each not in authorities)), tuple(authorities)


def _key(data: bytes, source: str) -> bytes | None:
    try:
        keys = (block.text for block in blocks(data) if block.label.endswith("PRIVATE KEY"))
        return next(keys, None)
    except ValueError as error:
        raise RestPipeError(f"{source}: {error}") from error


def _public_bytes(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


USE = {Role.CLIENT: Use.CLIENT, Role.SERVER: Use.SERVER}
"""What a role's own certificate must be for."""
