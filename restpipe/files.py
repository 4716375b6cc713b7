"""Files read and written whole, and folders for them.

Reading has a bound and waits for nobody. What is written is there wholly or not at all, with its mode under
any umask, and through no link that somebody else has laid.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

_PIECE = 1 << 20
"""Bytes that are asked for at once: memory is taken for all of them beforehand."""


def read_file(path: Path | str, limit: int, *, at: int | None = None) -> bytes:
    """Return what a file holds, at most `limit` bytes. A relative `path` starts from the folder `at`.

    Raises OSError, whose `strerror` is fit for the user, if it cannot be read, is larger, or is something
    that a process may wait for without end: a pipe, a socket. A device is read as far as it gives at once.
    """

    def opened(path: str, flags: int) -> int:
        # NONBLOCK: to open a pipe waits for its writer.
        return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=at)

    # It refuses a folder, and closes what it has opened itself; `os.fdopen` leaves that open.
    with open(path, "rb", buffering=0, opener=opened) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        pieces = bytearray()
        # A file may grow while it is read, or give less than was asked for.
        while len(pieces) <= limit and (piece := file.read(min(_PIECE, limit + 1 - len(pieces)))):
            pieces += piece
    if len(pieces) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
    return bytes(pieces)


def create_file(path: Path | str, data: bytes, mode: int, *, at: int | None = None) -> None:
    """Write a file that is not there yet, onto the disk. A relative `path` starts from the folder `at`.

    Raises OSError, FileExistsError if anything stands there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600, dir_fd=at)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file in place of what stands there. Raises OSError: then that still stands."""
    draft = path.with_suffix(".new")
    try:
        # Left by a process that was ended meanwhile; or a link, which is not followed.
        draft.unlink(missing_ok=True)
        create_file(draft, data, mode)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def make_folder(path: Path, mode: int) -> None:
    """Make a folder, unless it is there. Others can write neither to it nor to those above it that are made.

    Raises OSError, FileExistsError if something else stands there.
    """
    try:
        _make_one(path, mode)
    except FileNotFoundError:
        if path.parent.is_dir():
            # Nothing can be made there: in /proc, or in a folder that has been deleted.
            raise
        # Of the folders above it, `mkdir` itself would say nothing to the umask.
        make_folder(path.parent, 0o755)
        _make_one(path, mode)


def _make_one(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode=mode & ~0o022)
    except OSError:
        # Of one that is there, the system may say first that nothing can be made.
        if not path.is_dir():
            raise
