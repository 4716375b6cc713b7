"""TLS 1.3 with certificates on both sides, as RestPipe's links have it."""

from __future__ import annotations

import ssl
from pathlib import Path


def server_context(identity: Path) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.num_tickets = 0
    return context


def client_context(identity: Path) -> ssl.SSLContext:
    return _context(ssl.PROTOCOL_TLS_CLIENT, identity)


def _context(protocol: int, identity: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity / "certificate.pem", identity / "key.pem")
    context.load_verify_locations(identity / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context
