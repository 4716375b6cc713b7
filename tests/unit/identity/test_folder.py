"""All files at one moment, whatever breaks in the middle."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest

from restpipe.errors import RestPipeError
from restpipe.identity import folder as folder_module
from restpipe.identity.folder import Folder, reason

OLD = {"key.pem": (b"old key", 0o600), "ca.pem": (b"old ca", 0o644)}
NEW = {"key.pem": (b"new key", 0o600), "ca.pem": (b"new ca", 0o644)}


def put(directory: Path, contents: dict[str, tuple[bytes, int]]) -> None:
    with Folder(directory) as folder, folder.drafted(contents) as (_, draft):
        folder.put(draft)


def shown(directory: Path) -> dict[str, bytes]:
    return {
        name: (directory / name).read_bytes() for name in ("key.pem", "ca.pem") if (directory / name).exists()
    }


def kinds(contents: dict[str, tuple[bytes, int]]) -> dict[str, bytes]:
    return {name: data for name, (data, _) in contents.items()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_are_put_and_replaced(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "folder"
    put(directory, OLD)
    assert shown(directory) == kinds(OLD)
    assert (mode(directory), mode(directory / "key.pem"), mode(directory / "ca.pem")) == (0o700, 0o600, 0o644)
    put(directory, NEW)
    assert shown(directory) == kinds(NEW)
    assert len(list(directory.glob("identity-*"))) == 1, "no key is left lying about"


def test_a_draft_that_is_not_put_leaves_nothing(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder, folder.drafted(NEW) as (path, _):
        assert (path / "key.pem").read_bytes() == b"new key"
        assert mode(path / "key.pem") == 0o600
    assert list(tmp_path.iterdir()) == []


def test_plain_files_are_taken_up(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(b"plain key")
    (tmp_path / "other").write_bytes(b"not ours")
    put(tmp_path, NEW)
    assert shown(tmp_path) == kinds(NEW)
    # Somebody replaces one of the links by a file, as `restpipe-ca renew --pem-directory` does.
    (tmp_path / "ca.pem").unlink()
    (tmp_path / "ca.pem").write_bytes(b"renewed")
    assert shown(tmp_path) == {"key.pem": b"new key", "ca.pem": b"renewed"}
    put(tmp_path, OLD)
    assert shown(tmp_path) == kinds(OLD)
    assert (tmp_path / "other").read_bytes() == b"not ours"


class Crash(BaseException):
    """The process ends here."""


CALLS = ("mkdir", "open", "symlink", "rename", "fsync", "unlink", "rmdir")


def crash_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """From the call of that number on, nothing is written any more."""
    count = [0]
    for name in CALLS:
        real = getattr(os, name)

        def call(*arguments, real=real, **named):  # type: ignore[no-untyped-def]
            count[0] += 1
            if count[0] >= number:
                raise Crash
            return real(*arguments, **named)

        monkeypatch.setattr(folder_module.os, name, call)
    return count


@pytest.mark.parametrize("before", ["nothing", "links", "plain files", "one plain file"])
def test_a_crash_anywhere_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    number, seen = 0, set()
    while True:
        number += 1
        directory = tmp_path / str(number)
        directory.mkdir()
        old = {} if before == "nothing" else kinds(OLD)
        if before in ("links", "one plain file"):
            put(directory, OLD)
        if before in ("plain files", "one plain file"):
            for name in ("key.pem", "ca.pem")[: 2 if before == "plain files" else 1]:
                (directory / name).unlink(missing_ok=True)
                (directory / name).write_bytes(OLD[name][0])
        with monkeypatch.context() as patched:
            count = crash_at(patched, number)
            with contextlib.suppress(Crash):
                put(directory, NEW)
        found = shown(directory)
        assert found in (old, kinds(NEW)), f"after {number} calls"
        seen.add(found == kinds(NEW))
        put(directory, NEW)
        assert shown(directory) == kinds(NEW)
        assert len(list(directory.glob("identity-*"))) == 1
        assert not list(directory.glob(".new-*"))
        if count[0] < number:
            break
    assert seen == {False, True}


def test_a_secret_is_created_once(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        folder.create("request.key", b"one")
        with pytest.raises(RestPipeError, match="File exists"):
            folder.create("request.key", b"two")
        assert folder.read("request.key") == b"one"
        assert mode(tmp_path / "request.key") == 0o600
        folder.remove("request.key")
        folder.remove("request.key")
        assert folder.read("request.key") is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "key.pem").mkdir()
    with Folder(tmp_path) as folder, pytest.raises(RestPipeError, match=r"key\.pem: "):
        folder.read("key.pem")
    (tmp_path / "file").touch()
    with pytest.raises(RestPipeError, match="file"), Folder(tmp_path / "file"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_installs_is_the_folder_owners(tmp_path: Path) -> None:
    directory = tmp_path / "owned"
    directory.mkdir()
    os.chown(directory, 12345, 23456)
    put(directory, OLD)
    put(directory, NEW)
    for path in (directory / "key.pem", directory / "ca.pem", (directory / "current").resolve()):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (12345, 23456)
    assert mode(directory / "key.pem") == 0o600
    assert (os.geteuid(), os.getegid()) == (0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could be led astray")
def test_an_owner_cannot_lead_root_astray(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"root's own")
    secret.chmod(0o600)
    directory = tmp_path / "owned"
    directory.mkdir()
    os.chown(directory, 12345, 23456)
    (directory / "key.pem").symlink_to(secret)
    with pytest.raises(RestPipeError, match=r"Permission denied; RP_TLS_DIRECTORY \(tls\.directory\) names "):
        put(directory, NEW)
    assert secret.read_bytes() == b"root's own"
    assert secret.stat().st_uid == 0


def test_who_may_not_use_it_is_told_how_to_name_another() -> None:
    assert reason(PermissionError(errno.EACCES, "Permission denied")) == (
        "Permission denied; RP_TLS_DIRECTORY (tls.directory) names another folder"
    )
    assert reason(NotADirectoryError(errno.ENOTDIR, "Not a directory")) == "Not a directory"
