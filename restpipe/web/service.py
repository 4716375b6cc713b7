"""What runs in one web worker beside its requests: the link to the daemon, the statistics, READY."""

from __future__ import annotations

import asyncio

from restpipe.host.config import Config
from restpipe.host.notify import Notifier
from restpipe.host.stats import Stats
from restpipe.protocol.schema_pb2 import ROLE_WEB
from restpipe.transport.daemon_link import DaemonLink
from restpipe.web import app
from restpipe.web.serving import Asgi

LAST_WORDS_S = 1.0
"""For the link to the daemon to be closed in good order, once no request needs it."""


class WebService:
    """One worker's service. `start` precedes all requests, `ready` says that they are taken, `stop` ends."""

    def __init__(self, config: Config, notifier: Notifier) -> None:
        self.drain_timeout_s = config.pipe.drain_timeout_s
        """For the requests in flight when the worker is told to stop."""
        self._config = config
        self._notifier = notifier
        self._link = DaemonLink(str(config.sockets.events), ROLE_WEB)
        self._stats = Stats(config.statsd)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> Asgi:
        """Return the application. Its requests wait for the link."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(part) for part in (self._link.run(), self._stats.run())]
        return app.build(self._config.role, self._config.web, self._link, self._stats)

    def ready(self) -> None:
        """Tell the service manager that requests are taken."""
        self._notifier.ready("serving")

    async def stop(self) -> None:
        """End all. To be called after the last request."""
        await self._link.drain(LAST_WORDS_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
