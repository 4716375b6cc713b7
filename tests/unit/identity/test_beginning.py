"""A server's first start makes what is missing, whatever an earlier one has left; later ones renew it."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from restpipe.errors import ConfigError
from restpipe.host.config import Config, Role
from restpipe.identity.beginning import BUNDLE, ensure, warn_of_name
from restpipe.identity.installing import install, read
from restpipe.transport.certificates import SOON_S, Certificate, describe, load_certificates
from tests.support.certificates import Made, authority, leaf, load, openssl
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
    assert line.startswith(f"first start: made this server's identity in {tmp_path / 'server'}, for ")
    assert f"localhost, 127.0.0.1, ::1, by the CA in {tmp_path / 'ca'}" in line
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
        (["ca.pem"], "but: {ca}/ca.pem is of a CA whose key is not here: move it away"),
        (["index.json"], "but: {ca}/index.json: is damaged: put it back from a copy"),
    ],
)
def test_nothing_is_put_in_place_of_what_stands(
    tmp_path: Path, configure: Configure, standing: list[str], words: str
) -> None:
    config = configure(Role.SERVER)
    stand(config, *standing)
    before = everything(tmp_path)
    with pytest.raises(ConfigError) as raised:
        ensure(config)
    assert words.format(tls=config.tls.directory, ca=config.tls.ca_directory) in str(raised.value)
    assert "\n" not in str(raised.value)
    after = everything(tmp_path)
    assert {path: data for path, data in after.items() if path in before} == before
    assert not config.tls.key.is_symlink()


def restpipe_ca(config: Config, *arguments: str) -> None:
    command = [sys.executable, "-m", "restpipe_ca", "--directory", str(config.tls.ca_directory)]
    subprocess.run([*command, *arguments], check=True, capture_output=True)


def own(config: Config) -> Certificate:
    return describe(load_certificates(config.tls.certificate.read_bytes())[0])


@pytest.mark.parametrize(
    "before",
    [
        [],
        [["issue", "web7", "--dial", "localhost", "--out", "{folder}/web7.bundle"]],
        # Its key is lost.
        [["issue", "--server", "--out", "{folder}/lost.bundle"]],
        # Issued and not installed: its key is here.
        [["issue", "--server", "kept", "--out", "{ca}/.own.bundle"]],
        # Renewed and not installed: the key was in the folder of the identity, which is gone.
        [
            ["issue", "--server", "lost", "--out", "{folder}/lost.bundle"],
            ["renew", "--server", "lost", "--out", "{ca}/.own.bundle"],
        ],
    ],
)
def test_a_start_goes_on_from_what_is_there(
    tmp_path: Path, configure: Configure, before: list[list[str]]
) -> None:
    config = configure(Role.SERVER)
    restpipe_ca(config, "init")
    for command in before:
        restpipe_ca(config, *(word.format(folder=tmp_path, ca=config.tls.ca_directory) for word in command))
    assert ensure(config)
    assert not (config.tls.ca_directory / BUNDLE).exists(), "no copy of the key is left"
    assert "localhost" in own(config).names or own(config).name == "kept"
    assert not ensure(config)


def test_what_is_issued_is_kept_until_there_is_room_for_it(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(Role.SERVER)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config.tls.directory.mkdir(mode=0o700)
    bundle = config.tls.ca_directory / BUNDLE
    for _ in range(2):
        with monkeypatch.context() as patched, pytest.raises(ConfigError, match="No space left on device"):
            patched.setattr(os, "mkdir", full)
            ensure(config)
    issued = read((bundle,)).certificate
    assert ensure(config)
    assert own(config) == issued


def with_days(config: Config, days: int) -> str:
    """A server whose certificate ends so soon, made by the CA that will renew it; its serial number."""
    bundle = config.tls.directory.parent / f"{days}.bundle"
    restpipe_ca(config, "init")
    names = "--again", "--server", "pipe", "10.0.0.1"
    restpipe_ca(config, "issue", *names, "--days", str(days), "--out", str(bundle))
    install(read((bundle,)), config, time.time())
    return own(config).serial_text


def test_what_ends_soon_is_renewed_by_a_start(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    config = configure(Role.SERVER)
    serial, key = with_days(config, 29), config.tls.key.read_bytes()
    with caplog.at_level(logging.INFO):
        assert not ensure(config)
    renewed = own(config)
    assert renewed.serial_text != serial
    assert renewed.names == ("pipe", "10.0.0.1")
    assert renewed.not_after > time.time() + SOON_S
    assert config.tls.key.read_bytes() == key
    assert "renewed this server's certificate" in caplog.text
    assert not ensure(config)
    assert own(config) == renewed


def test_what_ends_later_or_is_not_to_be_renewed_or_is_not_ours_stays(
    configure: Configure, ca: Made, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(Role.SERVER)
    serial = with_days(config, 31)
    assert not ensure(config)
    assert own(config).serial_text == serial
    serial = with_days(config, 29)
    assert not ensure(configure(Role.SERVER, RP_TLS_SELF_MADE="0"))
    assert own(config).serial_text == serial
    for file in ("key.pem", "certificate.pem", "ca.pem"):
        (config.tls.directory / file).unlink()
    leaf("pipe", ca, ("server",), days=29).write(config.tls.directory, ca)
    foreign = own(config)
    assert not ensure(config)
    assert own(config) == foreign
    assert not caplog.records


def issued(config: Config) -> list[str]:
    index = json.loads((config.tls.ca_directory / "index.json").read_bytes())
    return [each["name"] for each in index["certificates"]]


def test_nothing_is_renewed_by_a_ca_that_ends_no_later(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(Role.SERVER)
    restpipe_ca(config, "init", "--days", "20")
    assert ensure(config)
    for _ in range(2):
        caplog.clear()
        assert not ensure(config)
        (line,) = [record.getMessage() for record in caplog.records]
        assert line.startswith(f"the CA in {config.tls.ca_directory} ends at ")
    assert len(issued(config)) == 1


@pytest.mark.parametrize("shape", ["signed by another", "of another key", "of a client", "without names"])
def test_a_certificate_that_only_looks_like_ours_is_not_renewed(configure: Configure, shape: str) -> None:
    """The folder belongs to the daemon's user, and the CA to root."""
    config = configure(Role.SERVER)
    with_days(config, 29)
    restpipe_ca(config, "issue", "--server", "other", "--out", str(config.tls.directory.parent / "other"))
    ca = load(config.tls.ca_directory)
    forger = authority("forger")
    if shape == "signed by another":
        ca = Made(ca.certificate, forger.key)
    name = "other" if shape in ("signed by another", "of another key") else "pipe"
    made = leaf(
        name,
        ca,
        ("client",) if shape == "of a client" else ("server",),
        names=[] if shape == "without names" else None,
        days=9,
    )
    config.tls.certificate.write_bytes(made.pem)
    if shape != "of another key":
        config.tls.key.write_bytes(made.key_pem)
    before = issued(config)
    assert not ensure(config)
    assert issued(config) == before
    assert config.tls.certificate.read_bytes() == made.pem


@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_no_start_waits_for_the_certificate_or_reads_it_without_end(
    configure: Configure, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    config = configure(Role.SERVER)
    with_days(config, 29)
    path = config.tls.certificate.resolve()
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    before = issued(config)
    assert not ensure(config)
    warn_of_name(config)
    assert issued(config) == before
    assert "cannot renew this server's certificate" in caplog.text


def test_a_start_does_not_fail_for_what_cannot_be_renewed(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(Role.SERVER)
    with_days(config, 29)
    restpipe_ca(config, "revoke", "--server", "pipe")
    assert not ensure(config)
    assert (
        "cannot renew this server's certificate: every certificate of server pipe is revoked" in caplog.text
    )


def test_a_renamed_host_is_warned_of(
    configure: Configure, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(Role.SERVER)
    warn_of_name(config)
    ensure(config)
    warn_of_name(config)
    assert not caplog.records
    for name in ("my_server", "localhost"):
        monkeypatch.setattr(socket, "gethostname", lambda: name)  # noqa: B023
        warn_of_name(config)
    assert not caplog.records
    monkeypatch.setattr(socket, "gethostname", lambda: "new.example")
    warn_of_name(config)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        f"this host is called new.example, but the certificate is for {own(config).name}: "
    )
    assert "restpipe-ca issue --server" in line


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
