"""Finds the daemon that runs here, and has it read its identity anew."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from restpipe.errors import ConfigError, RestPipeError
from restpipe.host.config import DEFAULT, Role, load
from restpipe.host.credentials import of_peer

_MANAGER = 1


def reload(events: Path) -> int | None:
    """Sends SIGHUP to the daemon behind its socket `events`; its process number, None where none runs.

    The kernel says who listens there: no file has to be kept that could name another process tomorrow.
    """
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(str(events))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise RestPipeError(f"{events}: {error.strerror}: the daemon is not told to reload") from error
        pid = of_peer(link).pid
        if pid == _MANAGER:
            pid = _behind(f"{events.parent.name}.service")
        try:
            # The number cannot become another process' while this is held.
            process = os.pidfd_open(pid)
        except OSError:
            return None
        try:
            return pid if _hang_up(process, pid) else None
        finally:
            os.close(process)


def folder_of(pid: int, role: Role) -> Path | None:
    """`tls.directory` as that daemon's own surroundings have it; None where nobody can tell from here."""
    process = Path(f"/proc/{pid}")
    try:
        words = (process / "cmdline").read_bytes().decode().split("\0")
        variables = (process / "environ").read_bytes().decode().split("\0")
        elsewhere = (process / "cwd").readlink() != Path.cwd()
    except (OSError, ValueError):
        return None
    environ = {name: value for name, _, value in (each.partition("=") for each in variables)}
    if any(environ.get(f"RP_{each.upper()}_USER_CONFIG_MODULE") for each in Role):
        # Code that is another process' to run.
        return None
    try:
        config = load(role, environ, _file_in(words))
    except ConfigError:
        return None
    given = [config.sources["tls.directory"], environ.get("RP_CONFIG_FILE", ""), str(_file_in(words) or "")]
    if elsewhere and any(_is_relative(text, environ) for text in given):
        return None
    return config.tls.directory


def _file_in(words: list[str]) -> Path | None:
    for word, after in itertools.pairwise([*words, ""]):
        if word == "--config":
            return Path(after)
        if word.startswith("--config="):
            return Path(word.partition("=")[2])
    return None


def _is_relative(text: str, environ: Mapping[str, str]) -> bool:
    """Of a path, or of a source: then the path in the variable that it names."""
    path = environ.get(text.removeprefix("environment "), text)
    return path not in ("", DEFAULT) and not Path(path).is_absolute()


def _behind(unit: str) -> int:
    """A socket unit is the service manager's: who runs behind it, only the manager knows. 0 for nobody.

    `systemctl reload` would have handlers load new code, too.
    """
    command = ["systemctl", "show", "--value", "--property=MainPID", unit]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RestPipeError(f"the daemon is not told to reload: {' '.join(done.stderr.split())}")
    return int(done.stdout.strip() or 0)


def _hang_up(process: int, pid: int) -> bool:
    # A socket that the service manager keeps may name the manager, or a daemon that is gone.
    if not _is_daemon(pid):
        return False
    try:
        signal.pidfd_send_signal(process, signal.SIGHUP)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise RestPipeError(f"you may not tell the daemon (process {pid}) to reload") from error
    return True


def _is_daemon(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"pipe" in words and any(word.endswith(b"restpipe") for word in words)
