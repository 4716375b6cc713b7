"""How a connection that does not move is told from one that is only slow, or gone."""

from __future__ import annotations

import select
from asyncio import Transport
from typing import Final

STALLED_S: Final = 300.0
"""For a caller that takes nothing of its response. A slow one has 200 KiB in the kernel to take first."""


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


def is_hung_up(transport: Transport) -> bool:
    """Tell whether the other end of a Unix socket is closed, and not only shut down for sending."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
