"""What the service manager is told: READY, STATUS, WATCHDOG and STOPPING."""

from __future__ import annotations

import contextlib
import os
import socket

from sdnotify import SystemdNotifier  # type: ignore[import-untyped]

_NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_kept: dict[str, str] = {}


def keep_from_others() -> None:
    """Take out of the environment what a program needs to speak as this service. RestPipe still can."""
    for name in _NAMES:
        if (value := os.environ.pop(name, None)) is not None:
            _kept[name] = value


class Notifier:
    """One a process. Does nothing where nobody listens (no NOTIFY_SOCKET); never fails, never waits."""

    def __init__(self) -> None:
        self._watchdog_interval = _watchdog_interval()
        self._notifier = SystemdNotifier()
        if address := _kept.get("NOTIFY_SOCKET"):
            self._notifier.socket = _connected(address)
        if self._notifier.socket is not None:
            # A service manager that reads nothing must not stop an event loop.
            self._notifier.socket.setblocking(False)

    def ready(self, status: str = "") -> None:
        """Serving from now on."""
        self._notifier.notify("READY=1" + (f"\nSTATUS={_line(status)}" if status else ""))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._notifier.notify(f"STATUS={_line(text)}")

    def stopping(self) -> None:
        self._notifier.notify("STOPPING=1")

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two calls of `trigger_watchdog` (half of what is allowed); None when off."""
        return self._watchdog_interval

    def trigger_watchdog(self) -> None:
        """Say that this process is alive. Call it from what would stand still if it were not."""
        self._notifier.notify("WATCHDOG=1")

    def store(self, name: str, sock: socket.socket) -> None:
        """Have the service manager keep a socket for the next start of this service."""
        if self._notifier.socket is not None:
            with contextlib.suppress(OSError):
                socket.send_fds(
                    self._notifier.socket, [f"FDSTORE=1\nFDNAME={name}".encode()], [sock.fileno()]
                )

    def forget(self, name: str) -> None:
        """Have the service manager close what it keeps under that name."""
        self._notifier.notify(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def succeed(self, status: str) -> None:
        """Serving from now on, in place of the process that was the service's main one."""
        self._notifier.notify(f"MAINPID={os.getpid()}\nREADY=1\nSTATUS={_line(status)}")


def _connected(address: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError:
        sock.close()
        return None
    return sock


def _line(text: str) -> str:
    """systemd reads UTF-8; the library encodes as Latin-1, which gives back these very bytes."""
    return " ".join(text.split()).encode("utf-8", "replace").decode("latin-1")


def _watchdog_interval() -> float | None:
    usec, pid = (_kept.get(name) or os.environ.get(name, "") for name in ("WATCHDOG_USEC", "WATCHDOG_PID"))
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000
