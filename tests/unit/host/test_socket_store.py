"""Sockets that come from the service manager, and those that it is to keep: with real descriptors."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from restpipe.host import socket_store
from restpipe.host.notify import Notifier
from restpipe.host.socket_store import SocketStore


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The notification socket, read as the service manager reads it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener
    (tmp_path / "notify").unlink()


def handed_over(monkeypatch: pytest.MonkeyPatch, **sockets: socket.socket) -> dict[str, str]:
    """The environment of a process that was started with these; they are its own from now on."""
    first = 200
    monkeypatch.setattr(socket_store, "_FIRST", first)
    for number, sock in enumerate(sockets.values()):
        os.dup2(sock.detach(), first + number)
    names = ":".join(name.replace("_", "-") for name in sockets)
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names}


def listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def test_sockets_come_by_name_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = listening(), listening()
    addresses = first.getsockname(), second.getsockname()
    environ = handed_over(monkeypatch, events=first, handlers=second)
    store = SocketStore(Notifier(), environ)
    assert not environ, "children would take them for theirs"
    for name, address in zip(("events", "handlers"), addresses, strict=True):
        taken = store.take(name)
        assert taken is not None
        with taken:
            assert taken.getsockname() == address
            assert not taken.get_inheritable()
        assert store.take(name) is None


def test_what_is_meant_for_another_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = handed_over(monkeypatch, events=listening()) | {"LISTEN_PID": "1"}
    assert SocketStore(Notifier(), environ).take("events") is None
    os.close(200)


def test_no_manager_no_sockets() -> None:
    assert SocketStore(Notifier(), {}).take("events") is None


def test_the_manager_gets_a_copy_to_keep(manager: socket.socket) -> None:
    store = SocketStore(Notifier(), {})
    with listening() as sock:
        store.keep("pipe", "::-1234", sock)
        text, fds, _flags, _address = socket.recv_fds(manager, 4096, 4)
        assert text == b"FDSTORE=1\nFDNAME=pipe-__-1234"
        with socket.socket(fileno=fds[0]) as copy:
            assert copy.getsockname() == sock.getsockname()


def test_a_socket_for_an_earlier_configuration_is_given_up(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = handed_over(monkeypatch, pipe_0=listening(), events=listening())
    store = SocketStore(Notifier(), environ)
    assert store.take("pipe", "1") is None
    assert manager.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=pipe-0"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(200)
    events = store.take("events")
    assert events is not None
    events.close()


def test_the_port_of_a_socket_that_is_given_up_is_free_at_once(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manager reads its messages some time later, and keeps a copy until then."""
    earlier = socket.create_server(("127.0.0.1", 0))
    port = earlier.getsockname()[1]
    with earlier.dup():
        store = SocketStore(Notifier(), handed_over(monkeypatch, pipe_0=earlier))
        assert store.take("pipe", "1") is None
        socket.create_server(("127.0.0.1", port)).close()
