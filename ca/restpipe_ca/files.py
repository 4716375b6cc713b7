"""Files that are either wholly there or not at all, whatever happens in the middle."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
MAX_FILE = 256 << 20
"""No file of a CA is larger (bytes): some 200,000 certificates in its index."""
_PIECE = 1 << 20
"""Bytes that are asked for at once: memory is taken for all of them beforehand."""
_TEMPORARY = re.compile(r"\.new-[0-9a-f]{16}")


def read(path: Path, limit: int = MAX_FILE) -> bytes:
    """Return what a file holds. Raises OSError if it is too large, or cannot be read to its end."""

    def opened(path: str, flags: int) -> int:
        # NONBLOCK: to open a pipe waits for its writer.
        return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)

    data = bytearray()
    # It refuses a folder, and closes what it has opened itself; `os.fdopen` leaves that open.
    with open(path, "rb", buffering=0, opener=opened) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        while len(data) <= limit and (piece := file.read(min(_PIECE, limit + 1 - len(data)))):
            data += piece
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
    return bytes(data)


def replace(directory: Path, name: str, data: bytes, mode: int, *, inherit_owner: bool = False) -> None:
    """Put `data` under `name`, in place of what may be there; on return it is on the disk.

    With `inherit_owner`, root leaves the file to the folder's owner, so that a command run by
    root does not lock the folder's own service out.
    """
    with (
        _about(directory / name),
        _opened(directory) as at,
        _temporary(at, data, mode, inherit_owner) as draft,
    ):
        os.rename(draft, name, src_dir_fd=at, dst_dir_fd=at)
        os.fsync(at)


def create(directory: Path, name: str, data: bytes, mode: int, *, inherit_owner: bool = False) -> None:
    """As `replace`, but FileExistsError if anything stands under `name`: how private keys are written."""
    with (
        _about(directory / name),
        _opened(directory) as at,
        _temporary(at, data, mode, inherit_owner) as draft,
    ):
        try:
            os.link(draft, name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _reserve_and_rename(at, draft, name)
        os.fsync(at)


def _reserve_and_rename(at: int, draft: str, name: str) -> None:
    """Where there are no hard links (FAT, some network shares): the name is taken first, by an empty file."""
    os.close(
        os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=at)
    )
    try:
        os.rename(draft, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        os.unlink(name, dir_fd=at)
        raise


def remove(directory: Path, name: str) -> None:
    """Remove a file for good, if it is there."""
    with _opened(directory) as at:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=at)
        os.fsync(at)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is what a write that broke off has left."""
    return _TEMPORARY.fullmatch(name) is not None


def make_directory(directory: Path, mode: int) -> None:
    """Make a folder with exactly this mode; one that stands already keeps its own."""
    if directory.is_dir():
        return
    _make_parents(directory.parent)
    with contextlib.suppress(FileExistsError), _exact_modes():
        # In one step: whatever breaks off, the mode is never another.
        directory.mkdir(mode=mode)
    with _opened(directory.parent) as at:
        os.fsync(at)


@contextlib.contextmanager
def _exact_modes() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    """Errors name the file that was asked for, not the draft of it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _make_parents(directory: Path) -> None:
    """Others can write to none of them, whatever the umask: `mkdir` itself leaves that to it."""
    if not directory.is_dir():
        _make_parents(directory.parent)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o755)


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield at
    finally:
        os.close(at)


@contextlib.contextmanager
def _temporary(at: int, data: bytes, mode: int, inherit_owner: bool) -> Iterator[str]:
    name = f".new-{secrets.token_hex(8)}"
    try:
        _write(at, name, data, mode, inherit_owner)
        yield name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=at)


def _write(at: int, name: str, data: bytes, mode: int, inherit_owner: bool) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=at)
    with os.fdopen(fd, "wb") as file:
        if inherit_owner and os.geteuid() == 0:
            folder = os.fstat(at)
            os.fchown(fd, folder.st_uid, folder.st_gid)
        _set_mode(fd, mode)
        file.write(data)
        file.flush()
        os.fsync(fd)


def _set_mode(fd: int, mode: int) -> None:
    try:
        os.fchmod(fd, mode)
    except PermissionError:
        # FAT has one mode for all files, and refuses any other even to their owner.
        if os.fstat(fd).st_uid != os.geteuid():
            raise
