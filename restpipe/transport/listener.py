"""Accepts connections on the pipe's port and sees them through the TLS handshake."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from restpipe.transport.handshakes import Handshakes
from restpipe.transport.link import Link
from restpipe.transport.tls import SILENT, SILENT_CALLER, LastWords, handshake_failure

MAX_HANDSHAKES = 512
"""Handshakes at once. Past it newcomers wait, until one is over or has taken too long."""
MAX_WAITING = 1024
"""Connections that wait for that. Past it, whoever has the most of them loses his newest."""
GRACE_S = 2.0
"""What every handshake is given, however many wait: an honest one is over in milliseconds, but not where
thousands come at once. A flood from one network makes room at its own expense."""
BACKLOG = 1024
PAUSE_AFTER_FAILURE_S = 0.1
TELL_EVERY_S = 10.0

_log = logging.getLogger(__name__)


class _Newcomer:
    """A connection whose handshake is not over."""

    def __init__(self, sock: socket.socket, host: str, port: int) -> None:
        self.sock = sock
        self.host = host
        self.port = port
        self.task: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def turn_away(self) -> None:
        if self.task is not None:
            self.task.cancel()
        else:
            self.sock.close()


class Listener:
    """Turns what connects into links. `context` is asked for each of them."""

    def __init__(
        self,
        sock: socket.socket,
        context: Callable[[], ssl.SSLContext],
        make_link: Callable[[], Link],
        *,
        handshake_s: float,
    ) -> None:
        sock.setblocking(False)
        self._context = context
        self._sock = sock
        self._make_link = make_link
        self.handshake_s = handshake_s
        """May be changed at any time, for handshakes to come."""
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: Handshakes[_Newcomer] = Handshakes(MAX_HANDSHAKES, MAX_WAITING, GRACE_S)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._turned_away = 0
        self._tell_at = 0.0

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
                newcomer = _Newcomer(sock, *address[:2])
                self._turn_away(self._handshakes.come(newcomer, newcomer.host))
                self._begin()
        finally:
            self._sock.close()
            self._give_up_all()

    def close(self) -> None:
        """Accepts no more; what has connected stays."""
        if self._accepting is not None:
            self._accepting.cancel()

    def _give_up_all(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for newcomer in self._handshakes.leave():
            newcomer.turn_away()
        for task in self._tasks:
            task.cancel()

    def _begin(self) -> None:
        """Starts the handshakes of those whose turn has come."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for newcomer, given_up in self._handshakes.begin(loop.time()):
            self._turn_away(given_up)
            task = newcomer.task = loop.create_task(self._shake_hands(newcomer))
            self._tasks.add(task)
            task.add_done_callback(lambda task, one=newcomer: self._ended(task, one))  # type: ignore[misc]
        next_at = self._handshakes.next_at
        if next_at is not None:
            self._timer = loop.call_at(next_at, self._begin)

    def _ended(self, task: asyncio.Task[None], newcomer: _Newcomer) -> None:
        self._tasks.discard(task)
        self._handshakes.over(newcomer)
        if task.cancelled():
            # Perhaps before it had begun.
            newcomer.sock.close()
        if self._handshakes.waiting:
            self._begin()

    def _turn_away(self, newcomer: _Newcomer | None) -> None:
        if newcomer is None:
            return
        newcomer.turn_away()
        self._turned_away += 1
        now = asyncio.get_running_loop().time()
        # A flood of connections must not become one of lines.
        if now >= self._tell_at:
            _log.warning("%s: too many handshakes at once: %d given up", newcomer.host, self._turned_away)
            self._turned_away = 0
            self._tell_at = now + TELL_EVERY_S

    async def _shake_hands(self, newcomer: _Newcomer) -> None:
        loop, sock = asyncio.get_running_loop(), newcomer.sock
        try:
            with LastWords(sock) as last_words:
                try:
                    await loop.connect_accepted_socket(
                        self._make_link,
                        sock,
                        ssl=self._context(),
                        ssl_handshake_timeout=self.handshake_s,
                    )
                except ssl.SSLError as error:
                    _log.warning("%s: refused: %s", newcomer, handshake_failure(error))
                    await last_words.say(error)
        except OSError as error:
            sock.close()
            reason = handshake_failure(error)
            why = f"{reason}: {SILENT_CALLER}" if reason == SILENT else reason
            _log.warning("%s: refused: %s", newcomer, why)


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
