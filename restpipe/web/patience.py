"""How a connection that does not move is told from one that is only slow, or gone."""

from __future__ import annotations

import array
import contextlib
import fcntl
import select
import termios
from asyncio import Transport
from typing import Final

STALLED_S: Final = 300.0
"""For a caller that takes nothing of its response."""


class Stall:
    """Since when a caller has taken nothing of what it is sent."""

    __slots__ = ("_since", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._since = 0.0

    def lasts(self, size: int, now: float) -> bool:
        """Tell whether `size` bytes have waited to be sent for too long. To be asked about once a second."""
        if not size or size != self._size:
            self._size = size
            self._since = now
            return False
        return now - self._since >= STALLED_S


def unsent(transport: Transport) -> int:
    """Return how much waits until the caller takes more; 0 unless the transport is full.

    The kernel holds some 200 KiB for a caller, and takes more only when most of that is gone. What it holds
    counts too, in steps of some 36 KiB, so that a caller which takes 130 bytes a second is seen to read.
    """
    size = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket") if size else None
    if sock is None:
        return size
    held = array.array("i", [0])
    # The connection may have ended in this very turn of the loop.
    with contextlib.suppress(OSError, ValueError):
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, held)
    return size + held[0]


def is_hung_up(transport: Transport) -> bool:
    """Tell whether the other end of a Unix socket is closed, and not only shut down for sending."""
    return _has(transport, 0, select.POLLHUP | select.POLLERR)


def has_sent_more(transport: Transport) -> bool:
    """Tell whether the caller has sent what is not read yet."""
    return _has(transport, select.POLLIN, select.POLLIN)


def _has(transport: Transport, asked: int, wanted: int) -> bool:
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), asked)
    return any(events & wanted for _, events in poll.poll(0))
