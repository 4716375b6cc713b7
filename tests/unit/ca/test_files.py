from __future__ import annotations

import errno
import os
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from restpipe_ca import files


@pytest.fixture(params=[0o000, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.usefixtures("umask")
def test_modes_are_exact_whatever_the_umask(tmp_path: Path) -> None:
    files.make_directory(tmp_path / "a" / "b", 0o755)
    files.replace(tmp_path, "public", b"x", 0o644)
    files.create(tmp_path, "secret", b"x", 0o600)
    assert [mode(tmp_path / name) for name in ("a/b", "public", "secret")] == [0o755, 0o644, 0o600]


def test_a_folder_that_stands_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    files.make_directory(tmp_path / "a", 0o755)
    assert mode(tmp_path / "a") == 0o700


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_others_cannot_write_to_what_is_made_above_a_folder(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.make_directory(tmp_path / "a" / "b" / "c", 0o755)
    finally:
        os.umask(before)
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert [mode(each) for each in made] == [0o755 & ~umask, 0o755 & ~umask, 0o755]


def test_what_is_read_is_a_file_within_its_bound(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert files.read(tmp_path / "f", 5) == b"12345"
    os.mkfifo(tmp_path / "pipe")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path, limit in ((tmp_path / "f", 4), (tmp_path / "pipe", 5), (tmp_path, 5), (Path("/dev/zero"), 5)):
        with pytest.raises(OSError) as raised:
            files.read(path, limit)
        assert raised.value.strerror
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_more_memory_is_taken_than_a_file_needs(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * (3 << 20))
    tracemalloc.start()
    try:
        assert len(files.read(tmp_path / "f")) == 3 << 20
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16 << 20


def test_what_is_refused_is_closed_again(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(IsADirectoryError):
        files.read(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_replace_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    files.replace(tmp_path, "f", b"old", 0o644)
    files.replace(tmp_path, "f", b"new", 0o644)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"f": b"new"}


def test_create_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        files.create(tmp_path, "f", b"new", 0o600)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"f": b"old"}


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a USB stick: FAT has neither hard links nor modes."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fchmod", refuse)


@pytest.mark.usefixtures("no_links")
def test_where_there_are_no_hard_links_a_file_is_made_all_the_same(tmp_path: Path) -> None:
    files.create(tmp_path, "f", b"old", 0o600)
    with pytest.raises(FileExistsError):
        files.create(tmp_path, "f", b"new", 0o600)
    (tmp_path / "link").symlink_to("f")
    with pytest.raises(FileExistsError):
        files.create(tmp_path, "link", b"new", 0o600)
    assert (tmp_path / "f").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"f", "link"}


@pytest.mark.usefixtures("no_links")
def test_there_too_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        files.create(tmp_path, "f", b"new", 0o600)
    assert raised.value.filename == str(tmp_path / "f")
    assert not list(tmp_path.iterdir())


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(FileExistsError):
        files.create(tmp_path, "link", b"new", 0o600)
    files.replace(tmp_path, "link", b"new", 0o600)
    assert (tmp_path / "target").read_bytes() == b"old"
    assert not (tmp_path / "link").is_symlink()


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.replace(tmp_path, "f", b"old", 0o600)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.replace(tmp_path, "f", b"new", 0o600)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"f": b"old"}


def test_remove_is_content_with_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    files.remove(tmp_path, "f")
    files.remove(tmp_path, "f")
    assert list(tmp_path.iterdir()) == []


def test_only_our_own_leftovers_are_temporary() -> None:
    assert files.is_temporary(".new-0123456789abcdef")
    assert not any(map(files.is_temporary, [".new-", ".new-file", "x.new-0123456789abcdef", "f"]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_leaves_files_to_the_folders_owner_where_asked(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    files.replace(tmp_path, "theirs", b"", 0o600, inherit_owner=True)
    files.create(tmp_path, "ours", b"", 0o600)
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in tmp_path.iterdir()}
    assert owners == {"theirs": (12345, 12346), "ours": (os.geteuid(), os.getegid())}
