"""Asks for a certificate: the key is made here and stays here, only the request travels."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from restpipe.errors import RestPipeError
from restpipe.host.config import Config
from restpipe.identity.folder import Folder
from restpipe.identity.installing import REQUEST_KEY

MAX_COMMON_NAME = 64
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+")


def request(config: Config, names: Sequence[str]) -> bytes:
    """A certificate request (PEM) for these names, the first of which counts.

    Asked for again, it is made with the same key, which waits in the identity's folder.
    """
    alternatives = [_general_name(name) for name in names]
    with Folder(config.tls.directory) as folder:
        key = _waiting_key(folder)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, names[0])] if len(names[0]) <= MAX_COMMON_NAME else []
    made = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(subject))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=not subject)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def _waiting_key(folder: Folder) -> ec.EllipticCurvePrivateKey:
    data = folder.read(REQUEST_KEY)
    if data is None:
        key = ec.generate_private_key(ec.SECP256R1())
        data = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        folder.create(REQUEST_KEY, data)
        return key
    try:
        loaded = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError):
        raise RestPipeError(f"{REQUEST_KEY} here is not a private key: move it away") from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise RestPipeError(f"{REQUEST_KEY} here is not an ECDSA key: move it away")
    return loaded


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if _URI.fullmatch(name):
        return x509.UniformResourceIdentifier(name)
    if len(name) <= 253 and _HOST_NAME.fullmatch(name):
        return x509.DNSName(name)
    raise RestPipeError(
        f"{name!a} cannot be a name: labels of a-z, 0-9 and inner hyphens with dots between, "
        "an address, or a URI"
    )
