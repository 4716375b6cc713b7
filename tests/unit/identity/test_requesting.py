"""Requests that other programs can read, for a key that stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from restpipe.errors import RestPipeError
from restpipe.identity.installing import REQUEST_KEY
from restpipe.identity.requesting import request
from tests.support.certificates import openssl
from tests.unit.identity.conftest import Configure


def test_openssl_and_gnutls_read_it(tmp_path: Path, configure: Configure) -> None:
    made = request(configure(), ["web1.example.com", "192.0.2.1", "spiffe://example.com/web1"])
    shown = openssl("req", "-verify", "-noout", "-text", data=made)
    assert shown.returncode == 0
    assert b"CN=web1.example.com" in shown.stdout.replace(b" ", b"")
    assert b"IP Address:192.0.2.1, URI:spiffe://example.com/web1" in shown.stdout
    path = tmp_path / "r.csr"
    path.write_bytes(made)
    gnutls = subprocess.run(
        ["certtool", "--crq-info", "--infile", str(path)], capture_output=True, timeout=30, check=True
    )
    assert b"URI: spiffe://example.com/web1" in gnutls.stdout


def test_the_key_stays_and_is_used_again(configure: Configure) -> None:
    config = configure()
    first, second = (x509.load_pem_x509_csr(request(config, [name])) for name in ("web1", "web2"))
    assert first.public_key().public_numbers() == second.public_key().public_numbers()  # type: ignore[union-attr]
    waiting = config.tls.directory / REQUEST_KEY
    assert waiting.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in config.tls.directory.iterdir()] == [REQUEST_KEY]


def test_a_long_name_is_no_common_name(configure: Configure) -> None:
    name = "spiffe://example.com/" + "x" * 60
    made = x509.load_pem_x509_csr(request(configure(), [name]))
    assert not list(made.subject)
    assert made.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


@pytest.mark.parametrize("name", ["", "Web1", "a b", "-a", "a..b", "a/b", "x" * 254, "ü", "spiffe:// a"])
def test_bad_names_are_refused_before_a_key_is_made(configure: Configure, name: str) -> None:
    config = configure()
    with pytest.raises(RestPipeError, match="cannot be a name"):
        request(config, ["web1", name])
    assert not config.tls.directory.exists()


def test_another_file_in_its_place_is_not_touched(configure: Configure) -> None:
    config = configure()
    config.tls.directory.mkdir()
    (config.tls.directory / REQUEST_KEY).write_bytes(b"mine")
    with pytest.raises(RestPipeError, match="is not a private key"):
        request(config, ["web1"])
    assert (config.tls.directory / REQUEST_KEY).read_bytes() == b"mine"
