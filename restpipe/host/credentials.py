"""Who is at the other end of a Unix socket, as the kernel knows it."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_CREDENTIALS = struct.Struct("3i")


class Credentials(NamedTuple):
    """Of the process that connected, or of the one that listens."""

    pid: int
    uid: int


def of_peer(link: socket.socket) -> Credentials:
    """Return those of the other end of a connected socket. Raises `OSError` if it is not connected."""
    found = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return Credentials(pid, uid)
