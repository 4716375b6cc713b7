"""What there is to say about an installed identity."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path
from typing import Any

from restpipe.errors import RestPipeError
from restpipe.files import read_file
from restpipe.host.config import Config, Role
from restpipe.identity.checks import faults_of, other_name_of_host, rehearse
from restpipe.identity.folder import reason
from restpipe.identity.installing import REQUEST_KEY
from restpipe.identity.material import Material, read_files
from restpipe.transport.certificates import MAX_FILE, describe, issuer_name, stamp
from restpipe.transport.tls import TlsFiles


def stands(config: Config) -> bool:
    """Whether any part of an identity is there, a key that waits for its certificate included.

    `RestPipeError` when this process may not look.
    """
    tls = config.tls
    paths = (tls.key, tls.certificate, tls.ca, tls.crl, tls.directory / REQUEST_KEY)
    try:
        return any(path.is_symlink() or path.exists() for path in paths)
    except PermissionError as error:
        raise RestPipeError(f"{error.filename}: {reason(error)}") from error


def facts_of(config: Config, now: float) -> dict[str, Any]:
    """For JSON and for people. `RestPipeError` when this process may not look at it."""
    try:
        return _facts_of(config, now)
    except PermissionError as error:
        raise RestPipeError(f"{error.filename}: {reason(error)}") from error


def _facts_of(config: Config, now: float) -> dict[str, Any]:
    tls = config.tls
    facts: dict[str, Any] = {"role": config.role.value, "directory": str(tls.directory)}
    files = {"key": tls.key, "certificate": tls.certificate, "ca": tls.ca}
    faults = [f"{path}: missing" for path in files.values() if not path.exists()]
    material: Material | None = None
    if not faults:
        try:
            material = _load(files)
            facts |= _of_certificate(material, now)
            if config.role is Role.SERVER and (note := other_name_of_host(material.certificate)):
                facts["notes"] = [note]
            faults = faults_of(material, config.role, now)
            if not faults:
                faults = rehearse(TlsFiles(tls.key, tls.certificate, tls.ca, tls.crl), config.role)
        except (RestPipeError, ValueError) as error:
            faults = [str(error)]
    files["crl"] = tls.crl
    facts["files"] = {name: _of_file(path) for name, path in files.items() if path.exists()}
    facts["request_waits"] = (tls.directory / REQUEST_KEY).exists()
    facts["faults"] = faults + _faults_of_mode(tls.key)
    return facts


def _load(files: dict[str, Path]) -> Material:
    def read(path: Path) -> bytes:
        try:
            return read_file(path, MAX_FILE)
        except OSError as error:
            raise RestPipeError(f"{path}: {error.strerror}") from error

    key, certificate, ca = (read(path) for path in files.values())
    names = str(files["key"]), str(files["certificate"]), str(files["ca"])
    return read_files(key, certificate, ca, names)


def _of_certificate(material: Material, now: float) -> dict[str, Any]:
    certificate = material.certificate
    return {
        "name": certificate.name,
        "names": list(certificate.names),
        "use": sorted(certificate.uses),
        "issuer": certificate.issuer,
        "serial": certificate.serial_text,
        "not_before": stamp(certificate.not_before),
        "not_after": stamp(certificate.not_after),
        "days_left": int((certificate.not_after - now) // 86400),
        "authorities": [
            {"name": issuer_name(each.subject), "not_after": stamp(describe(each).not_after)}
            for each in material.authorities
        ],
    }


def _of_file(path: Path) -> dict[str, str]:
    status = path.stat()
    return {
        "path": str(path),
        "mode": f"{status.st_mode & 0o7777:04o}",
        "owner": f"{_user(status.st_uid)}:{_group(status.st_gid)}",
    }


def _faults_of_mode(key: Path) -> list[str]:
    if not key.exists() or not key.stat().st_mode & 0o077:
        return []
    return [f"{key}: has mode {key.stat().st_mode & 0o777:04o}: only its owner may read a private key (0600)"]


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def in_words(facts: dict[str, Any]) -> str:
    """A few lines."""
    lines = [f"{facts['role']} in {facts['directory']}"]
    for key in ("name", "names", "use", "issuer", "serial", "not_before", "not_after", "days_left"):
        if key in facts:
            value = facts[key]
            text = ", ".join(value) if isinstance(value, list) else str(value)
            lines.append(f"  {key.replace('_', ' ') + ':':13} {text}")
    for authority in facts.get("authorities", ()):
        lines.append(f"  {'trusts:':13} {authority['name']}, until {authority['not_after']}")
    for note in facts.get("notes", ()):
        lines.append(f"  {'note:':13} {note}")
    for file in facts["files"].values():
        lines.append(f"  {'file:':13} {file['mode']} {file['owner']} {file['path']}")
    if facts["request_waits"]:
        lines.append(f"  {'request:':13} a key waits for its certificate")
    return "\n".join(lines)
