"""The folder of an identity, whose files change all at one moment.

    key.pem -> current/key.pem      and so with each file
    current -> identity-1a2b3c4d    the one link that is switched
    identity-1a2b3c4d/key.pem ...

A crash leaves the identity before or the one after, never a mixture; what it leaves beside is cleared away by
the next change. Files that somebody else has put there in place of the links are taken up as they are.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from restpipe.errors import RestPipeError
from restpipe.files import create_file, make_folder, read_file
from restpipe.transport.certificates import MAX_FILE

CURRENT = "current"
SECRET_MODE, PUBLIC_MODE = 0o600, 0o644
FOLDER_MODE = 0o700
_SET = re.compile(r"identity-[0-9a-f]{8}")
_DRAFT = re.compile(r"\.new-[0-9a-f]{8}")

Contents = Mapping[str, tuple[bytes, int]]
"""Data and mode of each file, by name."""


def reason(error: OSError) -> str:
    """Why the folder cannot be used. Who may not use this one is told how to name another."""
    denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return f"{error.strerror}{'; RP_TLS_DIRECTORY (tls.directory) names another folder' if denied else ''}"


class Folder:
    """An opened folder. All is done with the rights of its owner, so that what root installs is the owner's,
    and no link that the owner has laid leads root astray. To be used as a context manager."""

    def __init__(self, directory: Path) -> None:
        """Entering makes the folder if need be; `RestPipeError` when this process may not change it."""
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._fd = -1

    def __enter__(self) -> Folder:
        with self._stack, _about(self._directory):
            make_folder(self._directory, FOLDER_MODE)
            self._fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._stack.callback(os.close, self._fd)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._stack.enter_context(_acting_as_owner(os.fstat(self._fd)))
            self._sweep()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def make(self) -> None:
        """The folder alone."""
        with self:
            pass

    def read(self, name: str) -> bytes | None:
        """What stands under `name`, None if nothing does."""
        with _about(self._directory / name):
            return _read(self._fd, name)

    @contextlib.contextmanager
    def drafted(self, contents: Contents) -> Iterator[tuple[Path, str]]:
        """Writes a new set of files beside the one in force: its folder, and its name for `put`.

        It is gone again at the end of the block unless it was put in force.
        """
        with _about(self._directory):
            draft = self._make_set(contents)
        try:
            yield self._directory / draft, draft
        finally:
            with _about(self._directory):
                self._sweep()

    def put(self, draft: str) -> None:
        """Puts a drafted set of files in force, all of them at one moment."""
        with _about(self._directory):
            names = os.listdir(self._inside(draft))  # noqa: PTH208 - by descriptor
            self._take_up_plain(names)
            for name in names:
                self._point(name, f"{CURRENT}/{name}")
            os.fsync(self._fd)
            self._point(CURRENT, draft)
            os.fsync(self._fd)

    def create(self, name: str, data: bytes) -> None:
        """One secret file beside the identity; never in place of another."""
        draft = f".new-{secrets.token_hex(4)}"
        with _about(self._directory / name):
            create_file(draft, data, SECRET_MODE, at=self._fd)
            try:
                os.link(draft, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            finally:
                os.unlink(draft, dir_fd=self._fd)
            os.fsync(self._fd)

    def remove(self, name: str) -> None:
        """If it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def _make_set(self, contents: Contents) -> str:
        name = f"identity-{secrets.token_hex(4)}"
        os.mkdir(name, FOLDER_MODE, dir_fd=self._fd)
        inside = self._open(name)
        try:
            for file, (data, mode) in contents.items():
                create_file(file, data, mode, at=inside)
            os.fsync(inside)
        finally:
            os.close(inside)
        return name

    def _take_up_plain(self, names: list[str]) -> None:
        """Moves plain files that stand there into a set of their own, so that all are links from then on."""
        standing = {name: _read(self._fd, name) for name in names}
        plain = [name for name in names if standing[name] is not None and not self._is_link(name)]
        if not plain:
            return
        before = self._make_set(
            {
                name: (data, os.stat(name, dir_fd=self._fd).st_mode & 0o777)
                for name, data in standing.items()
                if data is not None
            }
        )
        self._point(CURRENT, before)
        for name in plain:
            self._point(name, f"{CURRENT}/{name}")
        os.fsync(self._fd)

    def _is_link(self, name: str) -> bool:
        try:
            return os.readlink(name, dir_fd=self._fd) == f"{CURRENT}/{name}"
        except OSError:
            return False

    def _point(self, name: str, target: str) -> None:
        draft = f".new-{secrets.token_hex(4)}"
        os.symlink(target, draft, dir_fd=self._fd)
        os.rename(draft, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def _sweep(self) -> None:
        """Clears away what no link leads to."""
        try:
            in_force = os.readlink(CURRENT, dir_fd=self._fd)
        except OSError:
            in_force = ""
        for name in os.listdir(self._fd):  # noqa: PTH208 - by descriptor
            if _DRAFT.fullmatch(name):
                os.unlink(name, dir_fd=self._fd)
            elif _SET.fullmatch(name) and name != in_force:
                self._remove_set(name)

    def _remove_set(self, name: str) -> None:
        inside = self._open(name)
        try:
            for file in os.listdir(inside):  # noqa: PTH208 - by descriptor
                os.unlink(file, dir_fd=inside)
        finally:
            os.close(inside)
        os.rmdir(name, dir_fd=self._fd)

    def _inside(self, name: str) -> int:
        inside = self._open(name)
        self._stack.callback(os.close, inside)
        return inside

    def _open(self, name: str) -> int:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)


@contextlib.contextmanager
def _acting_as_owner(folder: os.stat_result) -> Iterator[None]:
    if os.geteuid() != 0 or folder.st_uid == 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([folder.st_gid])
    os.setegid(folder.st_gid)
    os.seteuid(folder.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _read(at: int, name: str) -> bytes | None:
    try:
        return read_file(name, MAX_FILE, at=at)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RestPipeError(f"{path}: {reason(error)}") from error
