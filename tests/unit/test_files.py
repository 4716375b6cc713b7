from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from restpipe.files import read_file


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
