from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from restpipe.transport.unix import inode_of, is_served, remove_own, unix_socket


@pytest.fixture(autouse=True)
def _leave_no_sockets(tmp_path: Path) -> Iterator[None]:
    yield
    for path in tmp_path.rglob("*"):
        if path.is_socket():
            path.unlink()


def test_it_listens_with_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "new" / "web.sock"
    with unix_socket(path, 0o640) as sock:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
            sock.accept()[0].close()
        assert [entry.name for entry in path.parent.iterdir()] == ["web.sock"]


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    unix_socket(path, 0o600).close()
    assert path.is_socket()
    with unix_socket(path, 0o600), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))


def test_a_socket_that_is_served_stays(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with unix_socket(path, 0o600) as first:
        inode = inode_of(path)
        with pytest.raises(FileExistsError, match="served by another process"):
            unix_socket(path, 0o600)
        assert inode_of(path) == inode
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
        first.accept()[0].close()
        assert len(list(tmp_path.iterdir())) == 1


def test_served_is_what_somebody_listens_at(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    assert not is_served(path)
    with unix_socket(path, 0o600) as sock:
        assert is_served(path)
        sock.listen(0)  # the first caller still waits: there is no room for a second
        assert is_served(path)
    assert not is_served(path)


def test_whatever_else_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="is no socket"):
        unix_socket(path, 0o600)
    assert path.read_text() == "precious"


def test_failing_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120)
    with pytest.raises(OSError, match="too long"):
        unix_socket(path, 0o600)
    assert list(tmp_path.iterdir()) == []


def test_only_ones_own_socket_is_removed_on_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    first = unix_socket(path, 0o600)
    inode = inode_of(path)
    path.rename(tmp_path / "kept")  # so that its number is not given out again
    second = unix_socket(path, 0o600)
    first.close()
    remove_own(path, inode)
    assert path.is_socket()
    remove_own(path, inode_of(path))
    assert not path.exists()
    remove_own(path, inode)
    second.close()
