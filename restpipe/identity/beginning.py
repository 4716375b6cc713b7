"""A daemon's first start: a server that stands in an empty place makes its CA and its own identity.

The CA is made by `restpipe-ca`, a program of its own. Nothing is ever made where anything stands already.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from restpipe.errors import ConfigError, RestPipeError
from restpipe.host.config import Config, Role, Tls
from restpipe.identity.folder import Folder, reason
from restpipe.identity.installing import install, names_in_folder, read

CA_FILES = ("ca.key", "ca.pem", "index.json")
CA_PORT = "port"
"""A file of the CA's: the port that its bundles name."""
CA_TIMEOUT_S = 60.0
BUNDLE = ".first.bundle"
INSTALL = "restpipe identity install --role {role} BUNDLE"
ON_THIS_HOST = ("localhost", "127.0.0.1", "::1")
_HOST_NAME = re.compile(r"(?=.{1,64}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

_log = logging.getLogger(__name__)


def ensure(config: Config) -> bool:
    """Returns when there is an identity; True when it was made just now. `ConfigError` when there is none."""
    tls = config.tls
    files = (tls.key, tls.certificate, tls.ca)
    missing = [path for path in files if not _stands(path, follow=True)]
    if not missing:
        _tell_port(config)
        return False
    if len(missing) < len(files) or _stands(tls.crl):
        # Nobody can tell what is meant to be there.
        names = ", ".join(map(str, missing))
        raise ConfigError(f"the identity is not complete, missing: {names}; {_advice(config)}")
    if config.role is Role.CLIENT or not tls.self_made:
        raise ConfigError(f"there is no identity in {tls.directory}: {_advice(config)}")
    if any(_stands(tls.ca_directory / name) for name in CA_FILES):
        raise ConfigError(
            f"there is no identity in {tls.directory}, but a CA in {tls.ca_directory}: {_advice(config)}"
        )
    _make(config)
    return True


def _stands(path: Path, *, follow: bool = False) -> bool:
    try:
        path.stat(follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error)}") from error
    return True


def _advice(config: Config) -> str:
    advice = f"install one: {INSTALL.format(role=config.role)}"
    tls = config.tls
    if config.role is Role.SERVER and _stands(tls.ca_directory / CA_FILES[0]):
        advice += (
            f"; or have it issued here: restpipe-ca --directory {tls.ca_directory} "
            f"issue --server --pem-directory {tls.directory}"
        )
    return advice


def _make(config: Config) -> None:
    tls = config.tls
    names = own_names()
    bundle = tls.directory / BUNDLE
    try:
        names_in_folder(tls)
        Folder(tls.directory).make()
        bundle.unlink(missing_ok=True)
        _restpipe_ca(tls, "init", *_port_of(config))
        _restpipe_ca(tls, "issue", "--server", *names, "--out", str(bundle))
        install(read((bundle,)), config, time.time())
    except (RestPipeError, OSError) as error:
        raise ConfigError(
            f"a first start makes a CA and an identity, but: {error}; "
            f"or install an identity from elsewhere: {INSTALL.format(role=config.role)}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            bundle.unlink(missing_ok=True)
    _log.info(
        "first start: made a CA in %s and this server's identity in %s, for %s; "
        "clients join by: restpipe-ca issue NAME",
        tls.ca_directory,
        tls.directory,
        ", ".join(names),
    )


def _tell_port(config: Config) -> None:
    """The port may have been configured since the CA was made; what it issues next is to name it."""
    ca = config.tls.ca_directory
    port = _port_of(config)
    # Where the CA's folder is root's, root's part of the start does it (`restpipe identity make`).
    if not port or not os.access(ca, os.W_OK) or not (ca / CA_FILES[0]).exists():
        return
    with contextlib.suppress(OSError, ValueError):
        if (ca / CA_PORT).read_text().strip() == port[-1]:
            return
    try:
        _restpipe_ca(config.tls, "init", *port)
    except RestPipeError as error:
        _log.warning("the CA in %s does not know that clients dial port %s: %s", ca, port[-1], error)


def _port_of(config: Config) -> tuple[str, ...]:
    """For `restpipe-ca init`. Nobody knows beforehand which port a free one will be."""
    if config.role is Role.CLIENT or not config.pipe.port:
        return ()
    return "--port", str(config.pipe.port)


def own_names() -> tuple[str, ...]:
    """This host's names as others may know it, the one with a domain first, and how it calls itself."""
    short = socket.gethostname().lower()
    full = short if "." in short else socket.getfqdn(short).lower()
    # The resolver may know this host by nothing better than its loopback's name.
    reachable = "." in full and not full.startswith("localhost")
    found = [name for name in (full if reachable else short, short) if _HOST_NAME.fullmatch(name)]
    return tuple(dict.fromkeys((*found, *ON_THIS_HOST)))


def _restpipe_ca(tls: Tls, *arguments: str) -> None:
    # Not by a name on the search path: what stands beside this program is what was tested with it.
    command = [sys.executable, "-P", "-m", "restpipe_ca", "--directory", str(tls.ca_directory), *arguments]
    failure = _run(command)
    if failure:
        raise RestPipeError(failure)


def _run(command: Sequence[str]) -> str:
    """What went wrong, in a line; empty when nothing did."""
    try:
        done = subprocess.run(  # noqa: S603 - our own command line
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CA_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1].removeprefix("restpipe-ca: ") if lines else f"status {done.returncode}"
