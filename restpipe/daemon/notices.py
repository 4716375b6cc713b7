"""What handler workers are told about the pipe: the current state when they connect, then all changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator

from restpipe.protocol import frames
from restpipe.protocol.schema_pb2 import Notice
from restpipe.transport.link import Link

IDLE_EVERY_S = 60.0


class Notices:
    """Tells handler workers what happens to the links of peers."""

    def __init__(self, present: Callable[[], Iterable[Notice]]) -> None:
        self._links: set[Link] = set()
        self._present = present
        """Returns the notices that describe the current state."""

    def subscribe(self, link: Link) -> None:
        """Tell a worker the current state, and all that happens from now on."""
        self._links.add(link)
        for notice in self._present():
            _send(link, notice)

    def unsubscribe(self, link: Link) -> None:
        self._links.discard(link)

    def tell(self, notice: Notice) -> None:
        for link in self._links:
            _send(link, notice)


class Idleness:
    """On a server: tells at once that no client is connected, and again each minute while that lasts."""

    def __init__(self, tell: Callable[[Notice], None]) -> None:
        self._tell = tell
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """No client is connected from now on."""
        if self._timer is None:
            self._since = time.time()
            self._say()

    def end(self) -> None:
        """A client is connected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def present(self) -> Iterator[Notice]:
        """Return the notice for a worker that connects, if any."""
        if self._timer is not None:
            yield Notice(kind=Notice.IDLE, since=self._since)

    def _say(self) -> None:
        self.end()
        self._timer = asyncio.get_running_loop().call_later(IDLE_EVERY_S, self._say)
        self._tell(Notice(kind=Notice.IDLE, since=self._since))


def _send(link: Link, notice: Notice) -> None:
    link.send_control(frames.encode(frames.NOTICE, head=notice.SerializeToString()))
