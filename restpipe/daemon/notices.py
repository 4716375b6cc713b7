"""What handler workers are told about the pipe: every worker hears all of it, newcomers the present state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

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

    async def run_idle(self, connected: Callable[[], int]) -> None:
        """On a server: says each minute that nobody is connected, for as long as that is so."""
        since: float | None = None
        while True:
            if connected():
                since = None
            else:
                since = since or time.time()
                self.tell(Notice(kind=Notice.IDLE, since=since))
            await asyncio.sleep(IDLE_EVERY_S)


def _send(link: Link, notice: Notice) -> None:
    link.connection.send_control(frames.encode(Kind.NOTICE, head=notice.SerializeToString()))
    link.wake()
