"""A server's first start: everything is made, but only where nothing is."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from restpipe.errors import ConfigError
from restpipe.host.config import Config, Role
from restpipe.identity import beginning
from restpipe.identity.beginning import ensure, own_names
from restpipe.identity.installing import read
from tests.support.certificates import Made, leaf, openssl
from tests.unit.identity.conftest import Configure


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def test_a_first_start_makes_both_and_a_second_nothing(
    tmp_path: Path, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(Role.SERVER)
    with caplog.at_level(logging.INFO):
        assert ensure(config)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"first start: made a CA in {tmp_path / 'ca'} and this server's identity in ")
    tls = config.tls
    checked = openssl("verify", "-purpose", "sslserver", "-CAfile", str(tls.ca), str(tls.certificate))
    assert checked.returncode == 0, checked.stderr
    assert tls.key.stat().st_mode & 0o777 == 0o600
    assert (tls.ca_directory / "ca.key").stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.rglob("*.bundle")), "no copy of the key is left"
    before = everything(tmp_path)
    assert not ensure(config)
    assert everything(tmp_path) == before


def dialed(config: Config, name: str) -> str:
    """Where a client of that name would dial."""
    bundle = config.tls.directory.parent / f"{name}.bundle"
    command = [sys.executable, "-m", "restpipe_ca", "--directory", str(config.tls.ca_directory)]
    subprocess.run([*command, "issue", name, "--dial", "a", "--out", str(bundle)], check=True)
    return read((bundle,)).dial


def test_bundles_name_the_port_that_is_configured(configure: Configure) -> None:
    config = configure(Role.SERVER, RP_PIPE_PORT="4466")
    assert ensure(config)
    assert dialed(config, "web1") == "a:4466"
    # The next start has another one.
    config = configure(Role.SERVER, BIND_PORT="4467")
    assert not ensure(config)
    assert dialed(config, "web2") == "a:4467"
    # Which one it will be, nobody knows.
    assert not ensure(configure(Role.SERVER, RP_PIPE_PORT="0"))
    assert dialed(config, "web3") == "a:4467"


def test_a_start_does_not_fail_for_the_port_of_bundles(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    ensure(configure(Role.SERVER))
    config = configure(Role.SERVER, RP_PIPE_PORT="4466")
    (config.tls.ca_directory / "lock").unlink()
    (config.tls.ca_directory / "lock").mkdir()
    assert not ensure(config)
    (line,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert line.startswith(f"the CA in {config.tls.ca_directory} does not know that clients dial port 4466: ")


def stand(config: Config, *names: str) -> None:
    for name in names:
        path = {"key": config.tls.key, "certificate": config.tls.certificate, "ca": config.tls.ca}.get(
            name, config.tls.crl if name == "crl" else config.tls.ca_directory / name
        )
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"something")


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (["key"], "not complete, missing: {tls}/certificate.pem, {tls}/ca.pem;"),
        (["certificate", "ca"], "not complete, missing: {tls}/key.pem;"),
        (["crl"], "not complete, missing: {tls}/key.pem, "),
        (
            ["ca.key"],
            "but a CA in {ca}: install one: restpipe identity install --role server BUNDLE; or have ",
        ),
        (["ca.pem"], "but a CA in {ca}"),
        (["index.json"], "but a CA in {ca}"),
    ],
)
def test_where_anything_stands_nothing_is_made(
    tmp_path: Path, configure: Configure, standing: list[str], words: str
) -> None:
    config = configure(Role.SERVER)
    stand(config, *standing)
    before = everything(tmp_path)
    with pytest.raises(ConfigError) as raised:
        ensure(config)
    assert words.format(tls=config.tls.directory, ca=config.tls.ca_directory) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert everything(tmp_path) == before


def test_neither_for_a_client_nor_against_the_configuration(tmp_path: Path, configure: Configure) -> None:
    for config in (configure(Role.CLIENT), configure(Role.SERVER, RP_TLS_SELF_MADE="0")):
        with pytest.raises(ConfigError, match=r"there is no identity in .*: install one: restpipe identity"):
            ensure(config)
        assert not config.tls.directory.exists()


def test_an_identity_from_elsewhere_is_as_good(configure: Configure, ca: Made) -> None:
    config = configure(Role.SERVER)
    leaf("a.example.com", ca, ("server",)).write(config.tls.directory, ca)
    assert not ensure(config)
    assert not config.tls.ca_directory.exists()


def test_what_the_ca_says_is_passed_on(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("in the way")
    with pytest.raises(ConfigError, match="a first start makes a CA and an identity, but: ") as raised:
        ensure(configure(Role.SERVER))
    assert "\n" not in str(raised.value)
    assert "Traceback" not in str(raised.value)


@pytest.mark.parametrize(
    ("short", "full", "names"),
    [
        ("Web", "web.example.com", ("web.example.com", "web")),
        ("web", "localhost", ("web",)),
        ("web", "localhost.localdomain", ("web",)),
        ("a.example.com", "?", ("a.example.com",)),
        ("under_score", "under_score", ()),
        ("localhost", "localhost", ()),
    ],
)
def test_names_of_this_host(
    monkeypatch: pytest.MonkeyPatch, short: str, full: str, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: short)
    monkeypatch.setattr(socket, "getfqdn", lambda _: full)
    assert own_names() == (*names, *beginning.ON_THIS_HOST)
