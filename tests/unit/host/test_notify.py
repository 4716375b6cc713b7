"""What arrives at a real notification socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from restpipe.host import notify
from restpipe.host.notify import Notifier


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "n"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        yield listener
    (tmp_path / "n").unlink()


def test_what_is_said(systemd: socket.socket) -> None:
    notifier = Notifier()
    notifier.ready("0 clients")
    notifier.ready()
    notifier.status("12 clients")
    notifier.trigger_watchdog()
    notifier.stopping()
    assert [systemd.recv(4096) for _ in range(5)] == [
        b"READY=1\nSTATUS=0 clients",
        b"READY=1",
        b"STATUS=12 clients",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


def test_a_status_is_one_line_of_utf8(systemd: socket.socket) -> None:
    Notifier().status("Zoë\nREADY=1 €\udcff")
    assert systemd.recv(4096).decode() == "STATUS=Zoë READY=1 €?"


def test_a_manager_that_does_not_read_holds_nobody_up(systemd: socket.socket) -> None:
    notifier = Notifier()
    for _ in range(5000):  # far more than a socket's queue takes
        notifier.status("x" * 1000)
    assert systemd.recv(4096)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in (None, "", str(tmp_path / "none")):
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        if address is not None:
            monkeypatch.setenv("NOTIFY_SOCKET", address)
        Notifier().ready("text")


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [
        (None, None, None),
        ("30000000", None, 15.0),
        ("30000000", "own", 15.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
    ],
)
def test_watchdog(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, interval: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    assert Notifier().watchdog_interval == interval


@pytest.mark.parametrize("address", ["path", "abstract"])
def test_programs_of_others_cannot_speak_as_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    monkeypatch.setattr(notify, "_kept", {})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "n") if address == "path" else "")
        listener.settimeout(10)
        name = listener.getsockname()
        told = {"NOTIFY_SOCKET": name if address == "path" else "@" + name[1:].decode()}
        told |= {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        for variable, value in told.items():
            monkeypatch.setenv(variable, value)
        notify.keep_from_others()
        assert not told.keys() & os.environ.keys()
        notifier = Notifier()
        notifier.ready()
        assert (listener.recv(100), notifier.watchdog_interval) == (b"READY=1", 15.0)
    (tmp_path / "n").unlink(missing_ok=True)
    Notifier().ready()
