"""A dispatcher without a worker around it, and events for it."""

from __future__ import annotations

from restpipe.handler.api import EventHandler
from restpipe.handler.dispatch import Dispatcher
from restpipe.handler.registry import Registry
from restpipe.host.stats import Stats
from restpipe.protocol.schema_pb2 import Event, Origin
from restpipe.testing import MemoryExchange


class Ends:
    """Both ends of events: the dispatcher, and their callers. To be made in a running loop."""

    def __init__(
        self, handler: EventHandler, *, threads: int = 2, concurrency: int = 4, stats: Stats | None = None
    ) -> None:
        self.capacities: list[int] = []
        """What the daemon was told."""
        self.dispatcher = Dispatcher(
            Registry.of(handler),
            threads=threads,
            concurrency=concurrency,
            max_body_bytes=1 << 20,
            stats=stats or Stats.off(),
            on_capacity=self.capacities.append,
        )

    def send(
        self,
        target: str,
        timeout_ms: int = 30_000,
        *,
        verb: str = "GET",
        body: bytes = b"",
        peer: str = "a",
        paused: bool = False,
    ) -> MemoryExchange:
        event = Event(id=b"0" * 16, verb=verb, target=target, timeout_ms=timeout_ms, body_length=len(body))
        exchange = MemoryExchange(event, Origin(peer=peer), body, paused=paused)
        self.dispatcher.take(exchange)
        return exchange
