"""TLS of the pipe: version 1.3 only, both sides verified, identity read from the certificate."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path
from typing import Any, NamedTuple

from restpipe.errors import ConfigError


class TlsFiles(NamedTuple):
    """Where a host's identity lies, as PEM files."""

    key: Path
    certificate: Path
    """The certificate, and behind it any intermediate ones."""
    ca: Path
    crl: Path
    """The revocation list; the file may be absent."""


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For whoever listens: takes only certificates for client use from the CA. `ConfigError` on bad files."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    # No session tickets: one could be resumed after the certificate behind it was revoked.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """For whoever dials: checks that the server's certificate bears the server's name."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    context.check_hostname = True
    return context


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    _load_identity(context, files)
    _load_authority(context, files.ca, "tls.ca")
    if files.crl.exists():
        _load_authority(context, files.crl, "tls.crl")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _load_identity(context: ssl.SSLContext, files: TlsFiles) -> None:
    for key, path in (("tls.certificate", files.certificate), ("tls.key", files.key)):
        _check_readable(key, path)
    try:
        # Without a password callback OpenSSL would ask on the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except ssl.SSLError as error:
        raise ConfigError(
            f"tls.certificate {files.certificate} and tls.key {files.key} cannot be used together: "
            f"{_reason(error)}; they must be a PEM certificate and its own unencrypted key"
        ) from error


def _load_authority(context: ssl.SSLContext, path: Path, key: str) -> None:
    _check_readable(key, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(f"{key} {path}: {_reason(error)}; it must be a PEM file") from error


def _check_readable(key: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{key} {path}: {error.strerror}; install an identity first") from error


def handshake_failure(error: Exception) -> str:
    """Why a handshake failed, in a few words fit for one line of a log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return _reason(error)
    if isinstance(error, TimeoutError):
        return "no TLS handshake in time"
    if isinstance(error, OSError) and error.errno:
        named = isinstance(error, socket.gaierror) and error.strerror
        return named or os.strerror(error.errno)
    return str(error) or type(error).__name__


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def certificate_name(certificate: dict[str, Any] | None) -> str:
    """The peer's name from what `getpeercert` returned: the first DNS or URI name, else the common name.

    Empty when the certificate bears none (RFC 9525, section 6.4 ranks subjectAltName first).
    """
    if not certificate:
        return ""
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "URI"):
            return str(value)
    for part in certificate.get("subject", ()):
        for kind, value in part:
            if kind == "commonName":
                return str(value)
    return ""
