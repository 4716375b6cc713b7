"""How a daemon comes to its identity: a server makes its CA and its own, and renews it.

All is made by `restpipe-ca`, a program of its own. A start that breaks off, at whatever moment, leaves
something that the next one goes on from. Beside files of an identity that is not complete nothing is made.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from restpipe.errors import ConfigError, RestPipeError
from restpipe.files import read_file
from restpipe.host.config import Config, Role, Tls
from restpipe.identity.checks import other_name_of_host
from restpipe.identity.folder import Folder, reason
from restpipe.identity.installing import Installed, install, names_in_folder, read
from restpipe.identity.material import Material
from restpipe.transport.certificates import (
    MAX_FILE,
    SOON_S,
    Certificate,
    Use,
    describe,
    load_certificates,
    stamp,
)

CA_KEY, CA_CERTIFICATE = "ca.key", "ca.pem"
CA_PORT = "port"
"""A file of the CA's: the port that its bundles name."""
CA_TIMEOUT_S = 60.0
BUNDLE = ".own.bundle"
"""In the CA's folder, which is its owner's alone: what has been issued and is not installed yet."""
LEAST_GAIN_S = 86400.0
"""A renewal must add more than this to a certificate's life (seconds)."""
INSTALL = "restpipe identity install --role {role} BUNDLE"

_log = logging.getLogger(__name__)


def ensure(config: Config) -> bool:
    """Returns when there is an identity; True when it was made just now. `ConfigError` when there is none."""
    tls = config.tls
    files = (tls.key, tls.certificate, tls.ca)
    missing = [path for path in files if not _stands(path, follow=True)]
    if not missing:
        if config.role is Role.SERVER and _is_ours(tls):
            _look_after(config)
        return False
    if len(missing) < len(files) or _stands(tls.crl):
        # Nobody can tell what is meant to be there.
        names = ", ".join(map(str, missing))
        raise ConfigError(f"the identity is not complete, missing: {names}; {_advice(config)}")
    if config.role is Role.CLIENT or not tls.self_made:
        raise ConfigError(f"there is no identity in {tls.directory}: {_advice(config)}")
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
    if config.role is Role.SERVER and _stands(tls.ca_directory / CA_KEY):
        advice += (
            f"; or have it issued here: restpipe-ca --directory {tls.ca_directory} "
            f"issue --server --pem-directory {tls.directory}"
        )
    return advice


def _make(config: Config) -> None:
    tls = config.tls
    try:
        names_in_folder(tls)
        Folder(tls.directory).make()
        _restpipe_ca(tls, "init", *_port_of(config))
        # An earlier start may have had one issued and broken off: its key is lost.
        made = _taken(config, "issue", "--server", "--again")
    except (RestPipeError, OSError) as error:
        raise ConfigError(
            f"a first start makes a CA and an identity, but: {error}; "
            f"or install an identity from elsewhere: {INSTALL.format(role=config.role)}"
        ) from error
    _log.info(
        "first start: made this server's identity in %s, for %s, by the CA in %s; "
        "clients join by: restpipe-ca issue NAME",
        tls.directory,
        ", ".join(made.certificate.names),
        tls.ca_directory,
    )


def _taken(config: Config, *command: str) -> Installed:
    """Put in place what `restpipe-ca COMMAND` makes, or has made for a start that broke off."""
    bundle = config.tls.ca_directory / BUNDLE
    if bundle.exists():
        try:
            return _put(bundle, config)
        except RestPipeError as error:
            if isinstance(error.__cause__, OSError):
                # There may be room for it later: the only copy of its key is kept.
                raise
            bundle.unlink()
    _restpipe_ca(config.tls, *command, "--out", str(bundle))
    return _put(bundle, config)


def _put(bundle: Path, config: Config) -> Installed:
    installed = install(read((bundle,)), config, time.time())
    bundle.unlink()
    return installed


def _is_ours(tls: Tls) -> bool:
    """Whether this process may use a CA here.

    Where its folder is root's, root's part of the start does it (`restpipe identity make`).
    """
    key = tls.ca_directory / CA_KEY
    return os.access(tls.ca_directory, os.W_OK) and os.access(key, os.R_OK)


def _look_after(config: Config) -> None:
    """No start fails for what can be put right later."""
    tls = config.tls
    try:
        authority = _first_of(tls.ca_directory / CA_CERTIFICATE)
        own = _own_of(tls, authority)
        if own is not None and tls.self_made and _ends_soon(own):
            _renew(config, own, describe(authority).not_after)
        else:
            (tls.ca_directory / BUNDLE).unlink(missing_ok=True)
    except (RestPipeError, OSError, ValueError) as error:
        _log.warning("the CA in %s cannot renew this server's certificate: %s", tls.ca_directory, error)
    _tell_port(config)


def _ends_soon(own: Certificate) -> bool:
    now = time.time()
    return own.not_before <= now and own.not_after - now < SOON_S


def _renew(config: Config, own: Certificate, end_of_ca: float) -> None:
    ca = config.tls.ca_directory
    if end_of_ca - own.not_after <= LEAST_GAIN_S:
        # No certificate outlives its CA: each start would sign another that ends when this one does.
        _log.warning(
            "the CA in %s ends at %s: this server's certificate, which ends at %s, cannot be renewed by it; "
            "make another CA",
            ca,
            stamp(end_of_ca),
            stamp(own.not_after),
        )
        return
    end = stamp(_taken(config, "renew", "--server", own.names[0]).certificate.not_after)
    _log.info(
        "renewed this server's certificate, which ends at %s: valid until %s", stamp(own.not_after), end
    )


def _own_of(tls: Tls, authority: x509.Certificate) -> Certificate | None:
    """Return this server's certificate; None if it is not by this CA, or the key here is another.

    The folder is the daemon's user's, who may have put anything there.
    """
    loaded = _first_of(tls.certificate)
    own = describe(loaded)
    if not own.names or Use.SERVER not in own.uses or not _signed_by(authority, loaded):
        return None
    return own if Material((loaded,), ()).fits(read_file(tls.key, MAX_FILE)) else None


def _signed_by(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    key = authority.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        # `restpipe-ca` signs with no other digest.
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _first_of(path: Path) -> x509.Certificate:
    return load_certificates(read_file(path, MAX_FILE))[0]


def warn_of_name(config: Config) -> None:
    """Warn if this host's name is not in the server's certificate."""
    if config.role is Role.CLIENT:
        return
    try:
        own = describe(_first_of(config.tls.certificate))
    except (OSError, ValueError):
        # The daemon says what is wrong with it.
        return
    if warning := other_name_of_host(own):
        _log.warning("%s", warning)


def _tell_port(config: Config) -> None:
    """The port may have been configured since the CA was made; what it issues next is to name it."""
    ca = config.tls.ca_directory
    port = _port_of(config)
    if not port:
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
    if not config.pipe.port:
        return ()
    return "--port", str(config.pipe.port)


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
