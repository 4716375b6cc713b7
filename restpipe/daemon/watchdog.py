"""What feeds the service manager's watchdog: a greeting that goes the way of every event."""

from __future__ import annotations

import asyncio
from pathlib import Path

from restpipe.host.notify import Notifier
from restpipe.protocol.schema_pb2 import ROLE_WEB
from restpipe.transport.daemon_link import DaemonLink

GOODBYE_S = 1.0


async def feed(notifier: Notifier, events: Path) -> None:
    """As long as the loop turns and the daemon's own socket, `events`, answers. Ends where no watchdog is."""
    interval_s = notifier.watchdog_interval
    while interval_s is not None:
        await _round_trip(events)
        notifier.trigger_watchdog()
        # Twice as often as need be: the round trip takes time too, on a busy machine.
        await asyncio.sleep(interval_s / 2)


async def _round_trip(events: Path) -> None:
    """Comes in as a web worker does and is welcomed; takes as long as it takes."""
    link = DaemonLink(str(events), ROLE_WEB)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(link.run())
        try:
            await link.wait_connected()
        finally:
            await link.drain(GOODBYE_S)
            running.cancel()
