"""Listening sockets that outlive this process, in the service manager's keeping.

Two kinds come by the same way when the process starts: those that the manager listens at itself (socket
units), and those that an earlier start of this process has left with it (sd_notify's FDSTORE).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping

from restpipe.host.notify import Notifier

_FIRST = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class SocketStore:
    """Empty where no service manager is. One a process: it takes what it finds out of `environ`."""

    def __init__(self, notifier: Notifier, environ: MutableMapping[str, str] = os.environ) -> None:
        self._notifier = notifier
        self._sockets = _inherited(environ)

    def take(self, kind: str, detail: str = "") -> socket.socket | None:
        """The socket `kind`, made for what `detail` says, if there is one.

        Others of that kind, made when the configuration was another, are closed here and at the manager.
        """
        taken = self._sockets.pop(_name(kind, detail), None)
        for name in [name for name in self._sockets if name.startswith(f"{kind}-")]:
            with self._sockets.pop(name) as sock, contextlib.suppress(OSError):
                # The manager closes its copy some time later, and the port may be wanted now.
                sock.shutdown(socket.SHUT_RDWR)
            self._notifier.forget(name)
        return taken

    def keep(self, kind: str, detail: str, sock: socket.socket) -> None:
        """Have the manager hold it until the service is stopped for good: the next start will `take` it."""
        self._notifier.store(_name(kind, detail), sock)


def _name(kind: str, detail: str) -> str:
    # The manager separates names by colons.
    return f"{kind}-{detail}".replace(":", "_") if detail else kind


def _inherited(environ: MutableMapping[str, str]) -> dict[str, socket.socket]:
    """As sd_listen_fds: what is meant for this very process, and not handed on to its children."""
    pid, count, names = (environ.pop(variable, "") for variable in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    sockets: dict[str, socket.socket] = {}
    for name, fd in zip(names.split(":"), range(_FIRST, _FIRST + int(count)), strict=False):
        os.set_inheritable(fd, False)
        sockets[name] = socket.socket(fileno=fd)
    return sockets
