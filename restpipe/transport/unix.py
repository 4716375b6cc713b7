"""Unix sockets that listen: made with the right permissions, stale ones removed."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from restpipe.files import make_folder

BACKLOG = 1024


def unix_socket(path: Path, mode: int) -> socket.socket:
    """A socket that listens at `path`, which nobody else may be serving. `OSError` when it cannot be made.

    Its permissions are `mode` from the first moment on: it is made in private and moved to its place.
    """
    make_folder(path.parent, 0o750)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        sock.bind(str(draft))
        draft.chmod(mode)
        sock.listen(BACKLOG)
        draft.rename(path)
    except OSError:
        sock.close()
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    return sock


def inode_of(path: Path) -> int:
    """What tells this socket from another at the same path."""
    return path.stat().st_ino


def remove_own(path: Path, inode: int) -> None:
    """Removes a socket on the way out, unless another process has taken its place meanwhile."""
    with contextlib.suppress(OSError):
        if path.stat().st_ino == inode:
            path.unlink()


def is_served(path: Path) -> bool:
    """Whether a process listens at `path`. `OSError` when that cannot be found out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except (BlockingIOError, TimeoutError):
            pass  # it has more callers than it takes
    return True


def _remove_stale(path: Path) -> None:
    """A socket that nobody answers at is a leftover; anything else in its place is not ours to touch."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(f"{path} is in the way and is no socket")
    except FileNotFoundError:
        return
    if is_served(path):
        raise FileExistsError(f"{path} is served by another process")
    path.unlink(missing_ok=True)
