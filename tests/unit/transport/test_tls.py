from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from restpipe_ca.profiles import Role

from restpipe.errors import ConfigError
from restpipe.transport import tls
from restpipe.transport.certificates import load_certificates, read_certificate
from restpipe.transport.tls import (
    broken_off,
    client_context,
    handshake_failure,
    server_context,
)
from tests.support.certificates import authority
from tests.unit.transport.kit import Identities


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> ssl.SSLObject:
    """Both sides of a handshake in memory; returns the server's."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=name),
    ]
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0]


def test_each_side_knows_the_other(tmp_path: Path) -> None:
    ids = Identities.make(tmp_path / "ca")
    end = shake(ids.server(), ids.client("alpha"))
    assert end.version() == "TLSv1.3"
    der = end.getpeercert(binary_form=True)
    assert der is not None
    assert read_certificate(der).name == "alpha"


def test_a_server_by_another_name_is_refused(tmp_path: Path) -> None:
    ids = Identities.make(tmp_path / "ca")
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        shake(ids.server("other.example"), ids.client("alpha"))
    assert "its certificate is refused: Hostname mismatch" in handshake_failure(caught.value)


def test_certificates_of_another_ca_are_refused_on_both_sides(tmp_path: Path) -> None:
    ours, theirs = Identities.make(tmp_path / "a"), Identities.make(tmp_path / "b")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get local issuer|self-signed"):
        shake(theirs.server(), ours.client("alpha"))
    stranger = theirs.client("alpha")
    stranger.load_verify_locations(tmp_path / "a" / "ca.pem")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(ours.server(), stranger)


def test_a_certificate_serves_for_its_own_role_only(tmp_path: Path) -> None:
    ids = Identities.make(tmp_path / "ca")
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake(server_context(ids.issue(["localhost"], Role.CLIENT)), ids.client("alpha"))
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake(ids.server(), client_context(ids.issue(["alpha"], Role.SERVER)))


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    ids = Identities.make(tmp_path / "ca")
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake(ids.server(), ids.client("alpha", issued_ago=timedelta(days=9), days=5))


def test_a_client_without_a_certificate_is_refused(tmp_path: Path) -> None:
    ids = Identities.make(tmp_path / "ca")
    nobody = ssl.create_default_context(cafile=str(ids.folder / "ca.pem"))
    with pytest.raises(ssl.SSLError) as caught:
        shake(ids.server(), nobody)
    assert "peer did not return a certificate" in handshake_failure(caught.value)


def test_older_tls_is_refused(tmp_path: Path) -> None:
    ids = Identities.make(tmp_path / "ca")
    old = ids.client("alpha")
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(ids.server(), old)


@pytest.mark.parametrize("field", ["key", "certificate", "ca"])
def test_a_missing_file_is_one_clear_line(tmp_path: Path, field: str) -> None:
    files = Identities.make(tmp_path / "ca").issue(["alpha"], Role.CLIENT)
    missing = tmp_path / "nowhere.pem"
    with pytest.raises(ConfigError, match=f"tls.{field} {missing}: No such file or directory"):
        client_context(files._replace(**{field: missing}))


@pytest.mark.parametrize("field", ["key", "certificate", "ca"])
def test_a_file_that_is_no_pem_is_one_clear_line(tmp_path: Path, field: str) -> None:
    files = Identities.make(tmp_path / "ca").issue(["alpha"], Role.CLIENT)
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate\n")
    with pytest.raises(ConfigError) as caught:
        client_context(files._replace(**{field: junk}))
    assert str(junk) in str(caught.value)
    assert f"tls.{field}" in str(caught.value)
    assert "\n" not in str(caught.value)


def indented(pem: bytes) -> bytes:
    return b"".join(b"  " + line for line in pem.splitlines(keepends=True))


def labelled(pem: bytes, label: bytes) -> bytes:
    return pem.replace(b" CERTIFICATE-", b" " + label + b"-")


@pytest.mark.parametrize("shape", [bytes, indented, lambda pem: labelled(pem, b"X509 CERTIFICATE")])
def test_whom_openssl_trusts_is_who_is_read(tmp_path: Path, shape: Callable[[bytes], bytes]) -> None:
    files = Identities.make(tmp_path / "ca").issue(["alpha"], Role.CLIENT)
    data = shape(authority("One").pem) + authority("Two").pem
    files.ca.write_bytes(data)
    trusted = client_context(files).get_ca_certs(binary_form=True)
    assert sorted(trusted) == sorted(each.public_bytes(Encoding.DER) for each in load_certificates(data))
    assert len(trusted) == 2


def test_trust_that_only_openssl_can_read_is_refused(tmp_path: Path) -> None:
    files = Identities.make(tmp_path / "ca").issue(["alpha"], Role.CLIENT)
    files.ca.write_bytes(authority("One").pem + labelled(authority("Two").pem, b"TRUSTED CERTIFICATE"))
    with pytest.raises(ConfigError, match=r"tls\.ca .*: certificate 2 in it is a TRUSTED CERTIFICATE"):
        client_context(files)


def test_a_key_of_another_certificate_is_one_clear_line(tmp_path: Path) -> None:
    ids = Identities.make(tmp_path / "ca")
    one, other = ids.issue(["alpha"], Role.CLIENT), ids.issue(["beta"], Role.CLIENT)
    with pytest.raises(ConfigError, match="cannot be used together: key values mismatch"):
        client_context(one._replace(key=other.key))


def test_a_refused_client_is_told_why_in_the_alert(tmp_path: Path) -> None:
    ids = Identities.make(tmp_path / "ca")
    nobody = ssl.create_default_context(cafile=str(ids.folder / "ca.pem"))
    with pytest.raises(ssl.SSLError) as caught:
        shake(ids.server(), nobody)
    assert caught.value.last_words  # type: ignore[attr-defined]
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server, client = (
        ids.server().wrap_bio(to_server, to_client, server_side=True),
        nobody.wrap_bio(to_client, to_server, server_hostname="localhost"),
    )
    for _ in range(3):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                to_client.write(error.last_words)  # type: ignore[attr-defined]
    with pytest.raises(ssl.SSLError) as told:
        client.read(1)
    assert "the other side refuses this side's certificate: certificate required" in handshake_failure(
        told.value
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "no TLS handshake in time"),
        (ConnectionRefusedError(111, "whatever"), "Connection refused"),
        (OSError("the name has no address"), "the name has no address"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (ConnectionResetError(), "it closed in the middle of the handshake"),
        (
            ConnectionAbortedError("SSL handshake is taking longer than 10 seconds"),
            "no TLS handshake in time",
        ),
    ],
)
def test_failures_in_words(error: Exception, said: str) -> None:
    assert handshake_failure(error) == said


def test_a_reset_after_the_handshake_is_no_fault_of_the_handshake() -> None:
    assert broken_off(ConnectionResetError()) == "Connection reset by peer"
    assert broken_off(TimeoutError()) == "no TLS handshake in time"


@pytest.mark.parametrize("gone", ["key", "certificate"])
def test_a_file_that_goes_while_it_is_read_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gone: str
) -> None:
    monkeypatch.setattr(tls, "_readable", lambda key, path: b"")
    ids = Identities.make(tmp_path / "ca")
    files = ids.issue(["localhost"], Role.SERVER)._replace(**{gone: tmp_path / "gone"})
    with pytest.raises(ConfigError, match=r"^tls\.\w+ .*: No such file or directory$"):
        server_context(files)
