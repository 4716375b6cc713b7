"""What handler workers are told about the pipe: every worker hears all of it, newcomers the present state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator

from restpipe.protocol import frames
from restpipe.protocol.frames import Kind
from restpipe.protocol.schema_pb2 import Notice
from restpipe.transport.link import Link

IDLE_EVERY_S = 60.0


class Notices:
    """Tells the handler workers' links of joins and breaks."""

    def __init__(self, present: Callable[[], Iterable[Notice]]) -> None:
        self._links: set[Link] = set()
        self._present = present
        """The notices that describe how things are now."""

    def subscribe(self, link: Link) -> None:
        """A worker has come."""
        self._links.add(link)
        for notice in self._present():
            _send(link, notice)

    def unsubscribe(self, link: Link) -> None:
        self._links.discard(link)

    def tell(self, notice: Notice) -> None:
        for link in self._links:
            _send(link, notice)


class Idleness:
    """On a server: that nobody is connected is said at once, and each minute for as long as it is so."""

    def __init__(self, tell: Callable[[Notice], None]) -> None:
        self._tell = tell
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Nobody is connected from now on."""
        if self._timer is None:
            self._since = time.time()
            self._say()

    def end(self) -> None:
        """Somebody is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def present(self) -> Iterator[Notice]:
        """What a newcomer is to hear of it."""
        if self._timer is not None:
            yield Notice(kind=Notice.IDLE, since=self._since)

    def _say(self) -> None:
        self.end()
        self._timer = asyncio.get_running_loop().call_later(IDLE_EVERY_S, self._say)
        self._tell(Notice(kind=Notice.IDLE, since=self._since))


def _send(link: Link, notice: Notice) -> None:
    link.connection.send_control(frames.encode(Kind.NOTICE, head=notice.SerializeToString()))
    link.wake()
