"""Puts an identity in place: checked, all files at one moment, nothing of it when anything is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from restpipe.errors import RestPipeError
from restpipe.host.config import Config, Role, Tls
from restpipe.identity.checks import Faulty, faults_of, rehearse
from restpipe.identity.folder import PUBLIC_MODE, SECRET_MODE, Contents, Folder
from restpipe.identity.material import USE, Material, pem, public_half, read_bundle, read_files
from restpipe.transport.certificates import MAX_FILE, Certificate, describe, load_certificates
from restpipe.transport.tls import TlsFiles

REQUEST_KEY = "request.key"
"""The key of a request that is on its way to be signed."""


class Installed(NamedTuple):
    """What was put in place."""

    certificate: Certificate
    directory: Path
    dial: str
    """Where the client will dial if nobody configures another address; empty: nothing is known of that."""


def read(files: tuple[Path, ...]) -> Material:
    """From a bundle, or from KEY CERTIFICATE CA."""
    contents = [_read(path) for path in files]
    if len(files) == 1:
        return read_bundle(contents[0], str(files[0]))
    if len(files) == 3:
        key, certificate, ca = contents
        return read_files(key, certificate, ca, [str(path) for path in files])
    raise RestPipeError("give one bundle, or three files: KEY CERTIFICATE CA")


def install(material: Material, config: Config, now: float) -> Installed:
    """`Faulty` says what is wrong with it; then nothing has changed."""
    tls = config.tls
    names = names_in_folder(tls)
    with Folder(tls.directory) as folder:
        material = _with_key(material, folder, names)
        faults = faults_of(material, config.role, now)
        if faults:
            raise Faulty(faults)
        _refuse_other_use(material, config, folder.read(names.certificate))
        with folder.drafted(_contents(material, config, folder)) as (draft, name):
            files = TlsFiles(draft / names.key, draft / names.certificate, draft / names.ca, tls.crl)
            faults = rehearse(files, config.role)
            if faults:
                raise Faulty(faults)
            folder.put(name)
        _forget_request(material, folder)
    return Installed(material.certificate, tls.directory, _dial(material, config))


class _Names(NamedTuple):
    key: str
    certificate: str
    ca: str


def names_in_folder(tls: Tls) -> _Names:
    """What the files are called; `RestPipeError` where they are configured to lie elsewhere."""
    for path in (tls.key, tls.certificate, tls.ca):
        if path.parent != tls.directory:
            raise RestPipeError(
                f"{path} is configured, outside of tls.directory ({tls.directory}): "
                "an identity can only be installed where all its files are in that one folder"
            )
    return _Names(tls.key.name, tls.certificate.name, tls.ca.name)


def _refuse_other_use(material: Material, config: Config, standing: bytes | None) -> None:
    """Both roles may have been given one folder: one's identity must not end the other's."""
    try:
        before = describe(load_certificates(standing or b"")[0])
    except ValueError:
        return
    role = config.role
    if before.uses and USE[role] not in before.uses:
        raise RestPipeError(
            f"{config.tls.directory} has the identity of a {min(before.uses)}, {before.name}: that of a "
            f"{role}, {material.certificate.name}, does not replace it; configure another tls.directory "
            f"for the {role} (RP_{role.upper()}_CERT_PATH), or move away what is there"
        )


def _dial(material: Material, config: Config) -> str:
    return material.dial if config.role is Role.CLIENT else ""


def _contents(material: Material, config: Config, folder: Folder) -> Contents:
    tls = config.tls
    names = names_in_folder(tls)
    contents = {
        names.key: (material.key or b"", SECRET_MODE),
        names.certificate: (pem(material.chain), PUBLIC_MODE),
        names.ca: (pem(material.authorities), PUBLIC_MODE),
    }
    # Without a new address, the one before still holds.
    dial = _dial(material, config)
    servers = f"{dial}\n".encode() if dial else folder.read(tls.servers.name)
    if servers is not None:
        contents[tls.servers.name] = (servers, PUBLIC_MODE)
    return contents


def _with_key(material: Material, folder: Folder, names: _Names) -> Material:
    """Where the key stayed here, it is the one of a request, or the one in use."""
    if material.key is not None:
        return material
    for name in (REQUEST_KEY, names.key):
        key = folder.read(name)
        if key is not None and material.fits(key):
            return Material(
                material.chain, material.authorities, key, material.name, material.role, material.dial
            )
    raise RestPipeError(
        f"there is no private key in it, and neither {REQUEST_KEY} nor {names.key} here belongs to it"
    )


def _forget_request(material: Material, folder: Folder) -> None:
    key = folder.read(REQUEST_KEY)
    if key is not None and material.key is not None and public_half(key) == public_half(material.key):
        folder.remove(REQUEST_KEY)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise RestPipeError(f"{path}: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise RestPipeError(f"{path}: larger than {MAX_FILE} bytes, this is no identity")
    return data
