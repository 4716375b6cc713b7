"""A gunicorn worker: one process that serves HTTP/1.1 on uvloop."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from typing import Any, Final

import uvloop
from gunicorn.workers.base import Worker as BaseWorker  # type: ignore[import-untyped]

from restpipe.host.limits import allow_open_files
from restpipe.host.parent import die_with
from restpipe.web.connections import Connections
from restpipe.web.service import WebService

GC_THRESHOLD: Final = 100_000
"""Young objects between two collections; at the default, collecting is most of the tail latency."""
MAX_CONNECTIONS: Final = 4096
"""Open in one worker."""
OTHER_FILES: Final = 64
"""Files that a worker has open beside its connections."""
TICK_S: Final = 1.0
"""Between two heartbeats for the arbiter, and between two looks for callers that are too slow."""


class Worker(BaseWorker):  # type: ignore[misc]
    """Serves on the arbiter's sockets until it is told to stop.

    SIGTERM: answer the requests in flight, then end. SIGINT, SIGQUIT: end at once. SIGUSR1: open the logs
    again. SIGABRT, which the arbiter sends if there is no heartbeat for too long, has its default effect: it
    ends the process even if the loop stands still.
    """

    wsgi: WebService
    """What `Server.load` returns."""

    def init_process(self) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 50, 50)
        super().init_process()

    def init_signals(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # Not before: the arbiter's own handlers, which a fork inherits, would swallow the signal.
        die_with(self.ppid)

    def run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        service = self.wsgi
        connections = Connections(await service.start(), most=room_for_connections())
        stopping = self._watch_signals(loop, connections)
        self._tick(connections)
        servers = [await self._listen(loop, connections, each.sock) for each in self.sockets]
        service.ready()
        quick = await stopping
        for server in servers:
            server.close()
        if quick:
            connections.abort()
        else:
            await connections.drain(service.drain_timeout_s)
        await service.stop()

    async def _listen(
        self, loop: asyncio.AbstractEventLoop, connections: Connections, sock: socket.socket
    ) -> asyncio.AbstractServer:
        # The loop closes the descriptor that it is given, and the arbiter's code closes its own.
        options: dict[str, Any] = {"sock": sock.dup(), "backlog": self.cfg.backlog}
        if sys.version_info >= (3, 13):
            # The socket's path is the arbiter's: other workers serve there.
            options["cleanup_socket"] = False
        return await loop.create_unix_server(connections.make, **options)

    def _watch_signals(
        self, loop: asyncio.AbstractEventLoop, connections: Connections
    ) -> asyncio.Future[bool]:
        """Return what is done when the worker is to stop: True if it is to be quick."""
        stopping = loop.create_future()

        def stop(quick: bool) -> None:
            if not stopping.done():
                stopping.set_result(quick)
            elif quick:
                connections.abort()
            if quick:
                self.cfg.worker_int(self)

        loop.add_signal_handler(signal.SIGTERM, stop, False)
        loop.add_signal_handler(signal.SIGINT, stop, True)
        loop.add_signal_handler(signal.SIGQUIT, stop, True)
        loop.add_signal_handler(signal.SIGUSR1, self.handle_usr1, signal.SIGUSR1, None)
        return stopping

    def _tick(self, connections: Connections) -> None:
        """Do all that is regular in the process, by its one timer."""
        self.notify()
        loop = connections.serving.loop
        # First of all: whatever becomes of the rest, the heartbeat goes on.
        loop.call_later(TICK_S, self._tick, connections)
        connections.sweep(loop.time())


def room_for_connections() -> int:
    """Return how many connections this process may have open."""
    return allow_open_files(MAX_CONNECTIONS + OTHER_FILES, "all connections of a web worker") - OTHER_FILES
