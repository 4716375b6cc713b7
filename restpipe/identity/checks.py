"""What speaks against an identity, each fault in one line."""

from __future__ import annotations

import re
import socket
import ssl

from restpipe.errors import ConfigError, RestPipeError
from restpipe.host.config import Role
from restpipe.identity.material import USE, Material
from restpipe.names import canonical
from restpipe.transport.certificates import Certificate, fault_of_use, stamp
from restpipe.transport.tls import TlsFiles, client_context, load_authority, server_context

_HOST_NAME = re.compile(r"(?=.{1,64}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class Faulty(RestPipeError):
    """An identity that cannot be installed; its text has a line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\nrestpipe: ".join(faults))


def faults_of(material: Material, role: Role, now: float) -> list[str]:
    """Everything that can be known without the other side; `now` is Unix time."""
    certificate = material.certificate
    return [
        *_faults_of_key(material),
        *_faults_of_use(certificate, role),
        *_faults_of_names(certificate, role, material.name),
        *faults_of_dates(certificate, now),
    ]


def _faults_of_key(material: Material) -> list[str]:
    if material.key is None:
        return ["there is no private key"]
    try:
        fits = material.fits(material.key)
    except RestPipeError as error:
        return [str(error)]
    return [] if fits else ["the private key does not belong to the certificate"]


def _faults_of_use(certificate: Certificate, role: Role) -> list[str]:
    fault = fault_of_use(certificate, USE[role])
    return [fault] if fault else []


def _faults_of_names(certificate: Certificate, role: Role, announced: str) -> list[str]:
    if not certificate.name and not (role is Role.SERVER and certificate.names):
        return ["the certificate bears no name"]
    if announced and canonical(announced) not in (certificate.name, *certificate.names):
        return [f"the certificate is for {certificate.name!a}, but was announced as {announced!a}"]
    return []


def faults_of_dates(certificate: Certificate, now: float) -> list[str]:
    if now > certificate.not_after:
        return [f"the certificate expired at {stamp(certificate.not_after)}"]
    if now < certificate.not_before:
        start = stamp(certificate.not_before)
        return [f"the certificate is valid only from {start}, and this host's clock says {stamp(now)}"]
    return []


def other_name_of_host(certificate: Certificate) -> str:
    """That this server's host has been renamed, in words; empty when it has not, or when nobody can tell.

    Only a certificate that a host made for itself names localhost; others may bear any names.
    """
    host = socket.gethostname().lower().rstrip(".")
    known = any(name == host or name.startswith(f"{host}.") for name in certificate.names)
    made_here = "localhost" in certificate.names and certificate.name != "localhost"
    if known or not made_here or not _HOST_NAME.fullmatch(host):
        return ""
    return (
        f"this host is called {host}, but the certificate is for {certificate.name}: clients that dial "
        f"{host} will refuse it. If the host was renamed: restpipe-ca issue --server, then "
        "restpipe identity install with the bundle"
    )


def rehearse(files: TlsFiles, role: Role) -> list[str]:
    """Shakes hands with itself: what would another host say to this identity, if it trusted the same CA?"""
    try:
        mine, other = _server_pair(files) if role is Role.SERVER else _client_pair(files)
        mine.verify_mode = ssl.CERT_NONE
        _shake_hands(*((mine, other) if role is Role.SERVER else (other, mine)))
    except ssl.SSLCertVerificationError as error:
        return [f"the certificate does not come from the CA that is to be trusted: {error.verify_message}"]
    except ssl.SSLError as error:
        return [f"no TLS connection is possible with this identity: {error.reason or error}"]
    except ConfigError as error:
        return [str(error)]
    return []


def _server_pair(files: TlsFiles) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    other.check_hostname = False
    load_authority(other, files.ca)
    return server_context(files), other


def _client_pair(files: TlsFiles) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.verify_mode = ssl.CERT_REQUIRED
    load_authority(other, files.ca)
    # Nobody looks at what this side shows.
    other.load_cert_chain(files.certificate, files.key)
    return client_context(files, check_hostname=False), other


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    # Each turn carries one flight; TLS 1.3 has three.
    for _ in range(4):
        ends = [end for end in ends if not _over(end)]


def _over(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
