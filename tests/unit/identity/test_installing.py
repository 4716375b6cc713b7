"""From files that somebody brought to the identity in force."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from restpipe.errors import RestPipeError
from restpipe.host.config import Config, Role
from restpipe.identity.checks import Faulty
from restpipe.identity.installing import REQUEST_KEY, install, read
from restpipe.identity.requesting import request
from tests.support.certificates import Made, authority, leaf, openssl
from tests.unit.identity.conftest import Configure


def bundle(
    path: Path, made: Made, ca: Made, *, key: bool = True, dial: str = "pipe.example.com:1234"
) -> Path:
    role = "server" if "server" in path.name else "client"
    header = f"# restpipe-bundle: 1\n# name: web1\n# role: {role}\n# dial: {dial}\n".encode()
    path.write_bytes(header + (made.key_pem if key else b"") + made.chain + ca.pem)
    return path


def tree(directory: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_a_bundle_is_put_in_force(tmp_path: Path, ca: Made, configure: Configure, now: float) -> None:
    config = configure()
    made = leaf("web1", ca)
    installed = install(read((bundle(tmp_path / "b", made, ca),)), config, now)
    assert installed.certificate.name == "web1"
    tls = config.tls
    assert (tls.key.read_bytes(), tls.certificate.read_bytes(), tls.ca.read_bytes()) == (
        made.key_pem,
        made.pem,
        ca.pem,
    )
    assert tls.key.stat().st_mode & 0o777 == 0o600
    assert (
        openssl("verify", "-purpose", "sslclient", "-CAfile", str(tls.ca), str(tls.certificate)).returncode
        == 0
    )


def test_three_files_are_too(tmp_path: Path, ca: Made, configure: Configure, now: float) -> None:
    folder = leaf("web1", authority("Middle", ca)).write(tmp_path / "from", ca)
    config = configure()
    install(read((folder / "key.pem", folder / "certificate.pem", folder / "ca.pem")), config, now)
    assert config.tls.certificate.read_bytes() == (folder / "certificate.pem").read_bytes()
    assert config.tls.certificate.read_bytes().count(b"BEGIN CERTIFICATE") == 2
    with pytest.raises(RestPipeError, match="one bundle, or three files"):
        read((folder / "key.pem", folder / "ca.pem"))


def test_nothing_changes_when_anything_is_wrong(
    tmp_path: Path, ca: Made, configure: Configure, now: float
) -> None:
    config = configure()
    install(read((bundle(tmp_path / "b", leaf("web1", ca), ca),)), config, now)
    before = tree(config.tls.directory)
    for bad in (leaf("web1", ca, ("server",)), leaf("web1", ca, days=-0.5), leaf("web2", ca)):
        with pytest.raises(Faulty):
            install(read((bundle(tmp_path / "bad", bad, ca),)), config, now)
    stranger = bundle(tmp_path / "bad", leaf("web1", authority("Other")), ca)
    with pytest.raises(Faulty, match="does not come from the CA"):
        install(read((stranger,)), config, now)
    assert tree(config.tls.directory) == before


def test_one_role_does_not_take_the_others_folder(
    tmp_path: Path, ca: Made, configure: Configure, now: float
) -> None:
    shared = {"RP_TLS_DIRECTORY": str(tmp_path / "shared")}
    server, client = (
        configure(role, **shared, **{f"RP_{role.upper()}_CERT_PATH": ""})
        for role in (Role.SERVER, Role.CLIENT)
    )
    standing = leaf("pipe.example.com", ca, ("server",)).write(tmp_path / "from", ca)
    install(read(tuple(standing / f"{name}.pem" for name in ("key", "certificate", "ca"))), server, now)
    before = tree(tmp_path / "shared")
    with pytest.raises(RestPipeError) as raised:
        install(read((bundle(tmp_path / "b", leaf("web1", ca), ca),)), client, now)
    assert str(raised.value) == (
        f"{tmp_path / 'shared'} has the identity of a server, pipe.example.com: that of a client, web1, "
        "does not replace it; configure another tls.directory for the client (RP_CLIENT_CERT_PATH), or move "
        "away what is there"
    )
    assert tree(tmp_path / "shared") == before
    (tmp_path / "shared" / "certificate.pem").unlink()
    (tmp_path / "shared" / "certificate.pem").write_text("something else")
    install(read((bundle(tmp_path / "b", leaf("web1", ca), ca),)), client, now)


def test_the_address_is_taken_from_the_bundle_unless_somebody_configures_one(
    tmp_path: Path, ca: Made, configure: Configure, now: float
) -> None:
    config = configure()
    assert config.pipe.servers == ("localhost:1234",)
    made = leaf("web1", ca)
    install(read((bundle(tmp_path / "b", made, ca, dial="[2001:db8::1]:99"),)), config, now)
    assert configure().pipe.servers == ("[2001:db8::1]:99",)
    assert configure().sources["pipe.servers"] == str(config.tls.directory / "servers")
    for variable, value, expected in (
        ("RP_PIPE_SERVERS", "a:1,b:2", ("a:1", "b:2")),
        ("RP_CLIENT_TARGET_HOSTNAME", "a", ("a:1234",)),
        ("RP_CLIENT_TARGET_PORT", "5", ("localhost:5",)),
    ):
        assert configure(**{variable: value}).pipe.servers == expected
    # The three files of a renewal say nothing of an address: it stays.
    folder = made.write(tmp_path / "from", ca)
    install(read((folder / "key.pem", folder / "certificate.pem", folder / "ca.pem")), config, now)
    assert configure().pipe.servers == ("[2001:db8::1]:99",)


def test_a_server_dials_nobody(tmp_path: Path, ca: Made, configure: Configure, now: float) -> None:
    config = configure(Role.SERVER)
    material = read((bundle(tmp_path / "server.bundle", leaf("web1", ca, ("server",)), ca),))
    assert material.meant_for is Role.SERVER
    assert install(material, config, now).dial == ""
    assert not config.tls.servers.exists()


def test_a_bundle_without_key_finds_the_requests(
    tmp_path: Path, ca: Made, configure: Configure, now: float
) -> None:
    config = configure()
    made = leaf("web1", ca)
    keyless = bundle(tmp_path / "b", made, ca, key=False)
    with pytest.raises(RestPipeError, match=r"neither request\.key nor key\.pem here belongs to it"):
        install(read((keyless,)), config, now)
    request(config, ["web1"])
    waiting = config.tls.directory / REQUEST_KEY
    mine = Made(made.certificate, key_of(waiting))
    signed = leaf("web1", ca, key=mine.key)
    install(read((bundle(tmp_path / "b", signed, ca, key=False),)), config, now)
    assert not waiting.exists()
    # A renewal: the key in use goes on.
    again = leaf("web1", ca, key=mine.key, days=60)
    install(read((bundle(tmp_path / "b", again, ca, key=False),)), config, now)
    assert config.tls.certificate.read_bytes() == again.pem


def key_of(path: Path) -> object:
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(path.read_bytes(), None)


def test_files_that_are_configured_elsewhere_are_left_alone(
    tmp_path: Path, ca: Made, configure: Configure, now: float
) -> None:
    config = configure(RP_TLS_KEY=str(tmp_path / "else.pem"))
    with pytest.raises(RestPipeError, match=r"outside of tls\.directory"):
        install(read((bundle(tmp_path / "b", leaf("web1", ca), ca),)), config, now)
    named = configure(RP_CLIENT_KEY_FILENAME="my.key")
    install(read((bundle(tmp_path / "b", leaf("web1", ca), ca),)), named, now)
    assert (named.tls.directory / "my.key").exists()


@pytest.mark.parametrize("content", [None, b"x" * ((1 << 20) + 1)])
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "b"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RestPipeError, match=r"b: (No such file|larger than)"):
        read((path,))


def test_a_broken_address_file_is_one_clear_line(configure: Configure) -> None:
    config = configure()
    config.tls.directory.mkdir()
    config.tls.servers.write_text("nonsense\n")
    with pytest.raises(RestPipeError, match=r"servers: pipe\.servers must be a list"):
        configure()


def test_configs_differ_only_in_the_address(configure: Configure) -> None:
    config = configure()
    config.tls.directory.mkdir()
    config.tls.servers.write_text("a:1\nb:2\n")
    after = configure()
    assert isinstance(after, Config)
    assert dataclasses.replace(after, pipe=config.pipe) == config
