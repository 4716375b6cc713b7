"""TLS of the pipe: version 1.3 only, both sides verified, each failure told in words to both."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from pathlib import Path
from typing import Any, NamedTuple

from restpipe.errors import ConfigError
from restpipe.files import read_file
from restpipe.transport import pem
from restpipe.transport.certificates import MAX_FILE

LAST_WORDS_S = 1.0
"""How long a failed handshake is held open for the other side to read why."""
_LAST_WORDS_SIZE = 65536
_ENCODING_DER = 2
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME, for which Python has no name."""


class TlsFiles(NamedTuple):
    """Where a host's identity lies, as PEM files."""

    key: Path
    certificate: Path
    """The certificate, and behind it any intermediate ones."""
    ca: Path
    crl: Path
    """The revocation list; the file may be absent."""


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For whoever listens: takes only certificates for client use from the CA. `ConfigError` on bad files.

    Whether a certificate is revoked is for `restpipe.transport.revocation` to say.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    # No session tickets: one could be resumed after the certificate behind it was revoked.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    return context


def client_context(files: TlsFiles, *, check_hostname: bool = True) -> ssl.SSLContext:
    """For whoever dials: checks that the server's certificate bears the server's name."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    context.check_hostname = check_hostname
    return context


def judge_dates(context: ssl.SSLContext, *, wanted: bool) -> None:
    """Whether handshakes to come refuse certificates by the dates in them."""
    flags = context.verify_flags
    context.verify_flags = flags & ~_NO_CHECK_TIME if wanted else flags | _NO_CHECK_TIME


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Off for now: for a client it could not be on without the host name.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.sslobject_class = _TellingSSLObject
    _load_identity(context, files)
    load_authority(context, files.ca)
    return context


def _load_identity(context: ssl.SSLContext, files: TlsFiles) -> None:
    for key, path in (("tls.certificate", files.certificate), ("tls.key", files.key)):
        _readable(key, path)
    try:
        # Without a password callback OpenSSL would ask on the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except ssl.SSLError as error:
        raise ConfigError(
            f"tls.certificate {files.certificate} and tls.key {files.key} cannot be used together: "
            f"{_reason(error)}; they must be a PEM certificate and its own unencrypted key"
        ) from error
    except OSError as error:
        # Replaced in this moment.
        raise ConfigError(f"tls.certificate {files.certificate}: {error.strerror}") from error


def load_authority(context: ssl.SSLContext, path: Path) -> None:
    """Have `context` trust exactly the certificates that are read from this PEM file elsewhere.

    In the file itself, OpenSSL might see others. Raises ConfigError if there are none, or one is broken.
    """
    data = _readable("tls.ca", path)
    try:
        context.load_verify_locations(cadata=b"".join(pem.ders(data, "CERTIFICATE", "certificate")))
    except (ssl.SSLError, ValueError) as error:
        reason = _reason(error) if isinstance(error, ssl.SSLError) else str(error)
        raise ConfigError(f"tls.ca {path}: {reason}; it must be a PEM file") from error


def _readable(key: str, path: Path) -> bytes:
    """OpenSSL would read without a bound, and wait for the writer of a pipe."""
    try:
        return read_file(path, MAX_FILE)
    except OSError as error:
        raise ConfigError(f"{key} {path}: {error.strerror}; install an identity first") from error


def verified_chain(connection: ssl.SSLObject) -> list[bytes]:
    """Return the certificates (DER) by which OpenSSL trusts the other side, its own first, the root last."""
    public = getattr(connection, "get_verified_chain", None)
    if public is not None:
        chain: list[bytes] = public()
        return chain
    # Public only since Python 3.13, but in `_ssl` since 3.10. It is None if nothing was verified.
    inner = connection._sslobj  # type: ignore[attr-defined]
    return [each.public_bytes(_ENCODING_DER) for each in inner.get_verified_chain() or ()]


class _TellingSSLObject(ssl.SSLObject):
    """Says what OpenSSL has to say to the other side when TLS fails: event loops drop it.

    After a failed handshake that is for `LastWords`. Later on this says it by itself (see `tell_failures`).
    """

    outgoing: ssl.MemoryBIO
    socket: tuple[int, int] | None
    """The descriptor, and the inode, which no other socket has should that number be another's by now."""

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *more: Any, **named: Any) -> Any:
        created = super()._create(incoming, outgoing, *more, **named)  # type: ignore[misc]
        created.outgoing = outgoing
        created.socket = None
        return created

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - as it is called there
        # All of SSLObject.read, so that the way of an event is no longer.
        try:
            inner = self._sslobj  # type: ignore[attr-defined]
            return inner.read(len, buffer) if buffer is not None else inner.read(len)
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError:
            self._tell()
            raise

    def _tell(self) -> None:
        words = self.outgoing.read()
        if not words or self.socket is None:
            return
        descriptor, inode = self.socket
        with contextlib.suppress(OSError):
            if os.fstat(descriptor).st_ino == inode:
                os.write(descriptor, words)

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            error.last_words = self.outgoing.read()  # type: ignore[attr-defined]
            raise


def tell_failures(transport: asyncio.BaseTransport) -> None:
    """Have the other side of a link whose handshake is over told why TLS fails (RFC 8446, section 6.2)."""
    connection, sock = transport.get_extra_info("ssl_object"), transport.get_extra_info("socket")
    if isinstance(connection, _TellingSSLObject) and sock is not None:
        with contextlib.suppress(OSError):
            connection.socket = sock.fileno(), os.fstat(sock.fileno()).st_ino


class LastWords:
    """A way to tell the other side why its handshake failed, once the event loop has let go of the socket.

    Without it the other side would see no more than a connection reset. A context manager around the
    handshake: to be entered before the socket is handed over.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock.dup()

    def __enter__(self) -> LastWords:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()

    async def say(self, error: Exception) -> None:
        """Sends the alert that belongs to `error`, if there is one, and waits for the other side to close."""
        data: bytes = getattr(error, "last_words", b"")
        if not data:
            return
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            self._sock.setblocking(False)
            self._sock.send(data)
            self._sock.shutdown(socket.SHUT_WR)
            # What the other side has already sent must be read: closing over it would be a reset, which
            # overtakes the alert.
            async with asyncio.timeout(LAST_WORDS_S):
                left = _LAST_WORDS_SIZE
                while left > 0 and (piece := await loop.sock_recv(self._sock, 4096)):
                    left -= len(piece)


SILENT = "no TLS handshake in time"
"""What came of a handshake in which the other side said nothing."""
SILENT_WHY = (
    "the server connects and says nothing: it hangs, or is another than meant, or large packets are lost on "
    "the way, as those of a client's first words are from OpenSSL 3.5 on (README.md: Groups)"
)
"""What the dialing side can say about it."""
SILENT_CALLER = "no whole greeting came, as when large packets are lost on the way (README.md: Groups)"
"""What the listening side can say about it."""
_ONLY = "an older version than TLS 1.3, the only one that is spoken here"
_IN_WORDS = {
    "HTTP_REQUEST": "http request instead of TLS",
    "WRONG_VERSION_NUMBER": "what came is not TLS",
    "UNSUPPORTED_PROTOCOL": _ONLY,
    "VERSION_TOO_LOW": _ONLY,
    "UNEXPECTED_EOF_WHILE_READING": "it closed in the middle of the handshake",
}
_ABOUT_CERTIFICATES = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")


_MISMATCHES = (62, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL."""
_MISNAMED = "it must have what is dialed, or pipe.server_name: restpipe-ca issue --server makes another"


def handshake_failure(error: Exception) -> str:
    """Why a handshake failed or a link broke, in a few words fit for one line of a log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = f" ({_MISNAMED})" if error.verify_code in _MISMATCHES else ""
        return f"its certificate is refused: {error.verify_message.rstrip('.')}{advice}"
    if isinstance(error, ssl.SSLError):
        return _reason(error)
    if isinstance(error, TimeoutError) and not error.errno:
        return SILENT
    if isinstance(error, ConnectionAbortedError) and "handshake" in str(error):
        return SILENT
    if isinstance(error, OSError) and error.errno:
        named = isinstance(error, socket.gaierror) and error.strerror
        return named or os.strerror(error.errno)
    if isinstance(error, ConnectionResetError):
        return "it closed in the middle of the handshake"
    return str(error) or type(error).__name__


def broken_off(error: Exception) -> str:
    """Why a link whose handshake was over broke, in words for one line of a log."""
    if isinstance(error, ConnectionResetError) and not error.errno:
        return os.strerror(errno.ECONNRESET)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLCertVerificationError):
        return _reason(error, "link")
    return handshake_failure(error)


def _reason(error: ssl.SSLError, what: str = "handshake") -> str:
    reason = error.reason or str(error)
    _, is_alert, alert = reason.partition("_ALERT_")
    if not is_alert:
        return _IN_WORDS.get(reason, reason.lower().replace("_", " "))
    words = alert.lower().replace("_", " ").replace("unknown ca", "it is not from a CA known there")
    if any(part in alert for part in _ABOUT_CERTIFICATES):
        return f"the other side refuses this side's certificate: {words}"
    return f"the other side gave up the {what}: {words}"
