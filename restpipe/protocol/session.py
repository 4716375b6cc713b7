"""A session: what outlives a pipe's connections, so that nothing is lost and nothing comes twice.

Stream frames are numbered by their place. Each side counts what it took over and keeps what the other
has not acknowledged; after a reconnect both say what they have received, and the rest is sent again. This
is the stream management of XEP-0198, with counts of 64 bits that never wrap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import final

from restpipe.errors import Code, ProtocolError
from restpipe.protocol.streams import SendQueue

ID_SIZE = 16


@final
class Session:
    """Numbered sending and receiving over any number of connections, one after the other.

    With a `buffer_size` of 0 nothing is kept to be sent again: a local worker's session ends with its link.
    """

    def __init__(self, identifier: bytes, buffer_size: int) -> None:
        self.id = identifier
        self.queue = SendQueue()
        self.durable = buffer_size > 0
        """Frames are kept until the other side acknowledges them."""
        self.sent = 0
        """Numbered frames that were put on a link for the first time."""
        self.received = 0
        """Numbered frames that came in, in order."""
        self.unacknowledged_size = 0
        self.broken = False
        """The other side broke the protocol: what it had sent with that may be lost, so no link may go on."""
        self._buffer_size = buffer_size
        self._unacknowledged: deque[bytes] = deque()
        self._replay: deque[bytes] = deque()
        self._wake: Callable[[], None] | None = None

    def attach(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when there is something to send, in place of any callback before."""
        self._wake = wake

    def detach(self, wake: Callable[[], None]) -> None:
        """Call `wake` no more: its link is gone. Does nothing if another link has taken over since."""
        if self._wake == wake:
            self._wake = None

    def send(self, stream: int, frame: bytes) -> None:
        """Queue one encoded frame. Never blocks: senders are bounded by their streams' credit."""
        self.queue.push(stream, frame)
        if self._wake is not None:
            self._wake()

    @property
    def acknowledged(self) -> int:
        """Numbered frames that the other side has taken over."""
        return self.sent - len(self._unacknowledged)

    @property
    def repeated(self) -> int:
        """Frames that are still to be sent again over a new connection."""
        return len(self._replay)

    @property
    def full(self) -> bool:
        """Too much is unacknowledged: what is queued stays so until the other side answers for some."""
        return self.unacknowledged_size > 0 and self.unacknowledged_size >= self._buffer_size > 0

    @property
    def sendable(self) -> bool:
        """`take` would return something."""
        return bool(self._replay) or (bool(self.queue) and not self.full)

    def take(self, budget: int) -> list[bytes]:
        """Return frames of about `budget` bytes to write now: first those to be sent again, then new ones."""
        if not self.durable:
            fresh = self.queue.take(budget)
            self.sent += len(fresh)
            return fresh
        taken: list[bytes] = []
        while self._replay and budget > 0:
            frame = self._replay.popleft()
            budget -= len(frame)
            taken.append(frame)
        if budget > 0 and not self.full:
            fresh = self.queue.take(min(budget, self._buffer_size - self.unacknowledged_size))
            self.sent += len(fresh)
            self._unacknowledged.extend(fresh)
            for frame in fresh:
                self.unacknowledged_size += len(frame)
            taken += fresh
        return taken

    @property
    def pending(self) -> bool:
        """Something was not written yet, or is kept because the other side has not acknowledged it."""
        return bool(self.queue or self._unacknowledged)

    def acknowledge(self, count: int) -> None:
        """The other side has taken over the first `count` numbered frames.

        `ProtocolError` when it claims frames that were never sent; an old count is no news and no fault.
        """
        if not self.durable:
            return
        if count > self.sent:
            raise ProtocolError(
                Code.BAD_FRAME, f"{count} frames acknowledged, but only {self.sent} were sent"
            )
        for _ in range(count - self.acknowledged):
            self.unacknowledged_size -= len(self._unacknowledged.popleft())

    def check_count(self, count: int) -> None:
        """Whether the other side can have so many numbered frames.

        `ProtocolError` when not: they are less than it once acknowledged, or more than were sent.
        """
        if not self.acknowledged <= count <= self.sent:
            raise ProtocolError(
                Code.BAD_FRAME,
                f"cannot go on after frame {count}: frames {self.acknowledged} to {self.sent} are at hand",
            )

    def resume(self, count: int) -> None:
        """A new connection goes on with this session; the other side has `count` numbered frames already.

        `ProtocolError` when that count cannot be.
        """
        self.check_count(count)
        self.acknowledge(count)
        self._replay = deque(self._unacknowledged)
