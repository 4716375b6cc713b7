"""Accepts connections on the pipe's port and sees them through the TLS handshake."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable

from restpipe.transport.link import Link
from restpipe.transport.tls import LastWords, handshake_failure

MAX_HANDSHAKES = 512
"""Handshakes at once. Past it, whoever has the most of them loses his oldest: an honest one is over in
milliseconds, and a flood from one network makes room at its own expense."""
BACKLOG = 1024
PAUSE_AFTER_FAILURE_S = 0.1
TELL_EVERY_S = 10.0
_V6_NETWORK = 64

_log = logging.getLogger(__name__)


class Handshakes:
    """Those that are under way, oldest first, by the network that they come from."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._networks: dict[asyncio.Task[None], str] = {}
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._networks)

    def add(self, task: asyncio.Task[None], address: str) -> None:
        """It leaves by itself when it is over."""
        network = self._networks[task] = network_of(address)
        self._count[network] += 1
        task.add_done_callback(self._done)

    def make_room(self) -> str | None:
        """Ends one if there are too many; returns where it came from."""
        if len(self._networks) < self._limit:
            return None
        crowd, _ = self._count.most_common(1)[0]
        task = next(task for task, network in self._networks.items() if network == crowd)
        self._done(task)
        task.cancel()
        return crowd

    def cancel(self) -> None:
        for task in list(self._networks):
            task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        network = self._networks.pop(task, None)
        if network is not None:
            self._count[network] -= 1
            if not self._count[network]:
                del self._count[network]


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
        self._handshake_s = handshake_s
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes = Handshakes(MAX_HANDSHAKES)
        self._given_up = 0
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
                self._make_room(loop.time())
                task = loop.create_task(self._shake_hands(sock, f"{address[0]}:{address[1]}"))
                self._handshakes.add(task, address[0])
        finally:
            self._sock.close()
            self._handshakes.cancel()

    def close(self) -> None:
        """Accepts no more; what has connected stays."""
        if self._accepting is not None:
            self._accepting.cancel()

    def _make_room(self, now: float) -> None:
        crowd = self._handshakes.make_room()
        if crowd is None:
            return
        self._given_up += 1
        # A flood of connections must not become one of lines.
        if now >= self._tell_at:
            _log.warning(
                "%s: too many handshakes at once: %d unfinished ones given up", crowd, self._given_up
            )
            self._given_up = 0
            self._tell_at = now + TELL_EVERY_S

    async def _shake_hands(self, sock: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            with LastWords(sock) as last_words:
                try:
                    await loop.connect_accepted_socket(
                        self._make_link,
                        sock,
                        ssl=self._context(),
                        ssl_handshake_timeout=self._handshake_s,
                    )
                except ssl.SSLError as error:
                    _log.warning("%s: refused: %s", address, handshake_failure(error))
                    await last_words.say(error)
        except OSError as error:
            sock.close()
            _log.warning("%s: refused: %s", address, handshake_failure(error))


def network_of(address: str) -> str:
    """Whom a connection is counted against: an IPv4 address, or an IPv6 host's whole network."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    if parsed.version == 4 or mapped is not None:
        return str(mapped or parsed)
    return str(ipaddress.ip_network((parsed, _V6_NETWORK), strict=False))


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
