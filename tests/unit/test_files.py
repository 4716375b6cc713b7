from __future__ import annotations

import errno
import os
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from restpipe.files import create_file, make_folder, read_file, replace_file


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_file(path, 10) == b"0123456789"
    path.write_bytes(b"")
    assert read_file(path, 10) == b""


def test_a_name_may_be_one_of_an_opened_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert read_file("file", 10, at=folder) == b"x"
    finally:
        os.close(folder)


def test_what_is_larger_than_its_bound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 2001)
    with pytest.raises(OSError) as raised:
        read_file(path, 2000)
    assert raised.value.strerror == "it is larger than 2,000 bytes"


def test_no_more_memory_is_taken_than_a_file_needs(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (3 << 20))
    tracemalloc.start()
    try:
        assert len(read_file(path, 256 << 20)) == 3 << 20
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16 << 20


def test_devices_are_bounded_as_well() -> None:
    assert read_file("/dev/null", 10) == b""
    with pytest.raises(OSError) as raised:
        read_file("/dev/zero", 100_000)
    assert raised.value.strerror == "it is larger than 100,000 bytes"


def test_nobody_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            with pytest.raises(OSError) as raised:
                read_file(tmp_path / name, 10)
            assert raised.value.strerror in ("it is not a file", "No such device or address")
    (tmp_path / "socket").unlink()


def test_a_folder_a_loop_and_nothing_at_all_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path, error in (
        (tmp_path, IsADirectoryError),
        (tmp_path / "loop", OSError),
        (tmp_path / "nothing", FileNotFoundError),
    ):
        with pytest.raises(error) as raised:
            read_file(path, 10)
        assert raised.value.strerror


def test_what_is_refused_is_closed_again(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 11)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "large"):
        with pytest.raises(OSError):
            read_file(path, 10)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("umask")
def test_a_file_has_its_mode_under_any_umask(tmp_path: Path) -> None:
    create_file(tmp_path / "new", b"x", 0o640)
    replace_file(tmp_path / "state.json", b"x", 0o600)
    assert (mode_of(tmp_path / "new"), mode_of(tmp_path / "state.json")) == (0o640, 0o600)
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "new", b"y", 0o640)


def test_nobody_else_can_write_to_a_folder_or_those_above_it(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "a" / "b" / "c"
    make_folder(folder, 0o750)
    make_folder(folder, 0o700)
    modes = [mode_of(each) for each in (folder, folder.parent, folder.parent.parent)]
    assert modes == [0o750 & ~umask, 0o755 & ~umask, 0o755 & ~umask]


def test_a_folder_that_is_there_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "mkdir", full)
    make_folder(tmp_path, 0o700)
    with pytest.raises(OSError, match="No space left"):
        make_folder(tmp_path / "new", 0o700)


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            make_folder(path, 0o700)


def test_where_no_folder_can_be_made_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for path in (Path("/proc/x/y"), Path("/proc/x"), Path("a"), Path("a/b"), Path("a/b/c")):
        with pytest.raises(FileNotFoundError):
            make_folder(path, 0o700)


def test_no_draft_is_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "state.new").symlink_to(victim)
    replace_file(tmp_path / "state.json", b"x", 0o600)
    assert victim.read_text() == "precious"
    assert (tmp_path / "state.json").read_bytes() == b"x"


def test_a_file_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "state.json"
    replace_file(path, b"before", 0o600)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"after", 0o600)
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]
