"""Accepts connections on the pipe's port and sees them through the TLS handshake."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from restpipe.transport.link import Link
from restpipe.transport.tls import handshake_failure

MAX_HANDSHAKES = 512
"""Handshakes at once. The oldest makes room for the next: an honest one is over in milliseconds."""
BACKLOG = 1024
PAUSE_AFTER_FAILURE_S = 0.1

_log = logging.getLogger(__name__)


class Listener:
    """Turns what connects into links. `context` can be replaced at any time, for the connections to come."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        make_link: Callable[[], Link],
        *,
        handshake_s: float,
    ) -> None:
        sock.setblocking(False)
        self.context = context
        self._sock = sock
        self._make_link = make_link
        self._handshake_s = handshake_s
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: dict[asyncio.Task[None], None] = {}

    async def run(self) -> None:
        """Accepts until cancelled; handshakes that are not over then are given up."""
        loop = asyncio.get_running_loop()
        self._accepting = asyncio.current_task()
        try:
            while True:
                try:
                    sock, address = await loop.sock_accept(self._sock)
                except OSError as error:
                    # Out of file descriptors, most likely: those in use come back.
                    _log.error("cannot accept a connection: %s", error.strerror)
                    await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
                    continue
                if len(self._handshakes) >= MAX_HANDSHAKES:
                    next(iter(self._handshakes)).cancel()
                task = loop.create_task(self._shake_hands(sock, f"{address[0]}:{address[1]}"))
                self._handshakes[task] = None
                task.add_done_callback(self._done)
        finally:
            self._sock.close()
            for task in self._handshakes:
                task.cancel()

    def close(self) -> None:
        """Accepts no more; what has connected stays."""
        if self._accepting is not None:
            self._accepting.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)

    async def _shake_hands(self, sock: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._make_link,
                sock,
                ssl=self.context,
                ssl_handshake_timeout=self._handshake_s,
            )
        except (OSError, ssl.SSLError) as error:
            _log.warning("%s: refused: %s", address, handshake_failure(error))


def listening_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens on one address; port 0 takes any that is free. `OSError` when it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
