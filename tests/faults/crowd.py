"""Very many clients in one process: real TLS, links and sessions, and the daemon's own rule for redialing.

Only what a client daemon has beside its link is left out: sockets, handlers, notices.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from restpipe_ca import authority
from restpipe_ca.profiles import Role

from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.frames import Frame, Kind
from restpipe.protocol.schema_pb2 import ROLE_PIPE
from restpipe.protocol.session import Session
from restpipe.transport.backoff import Backoff, Redial
from restpipe.transport.dialer import dial
from restpipe.transport.link import Link
from restpipe.transport.tls import TlsFiles, client_context
from tests.support.identities import Identity

HEARTBEAT_S = 5.0
TIMEOUT_S = 10.0
BUFFER = 1 << 20


class Identities:
    """A CA in memory, the server's identity as a folder, and one for each client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = authority.create("Crowd", datetime.now(UTC), 10)
        self._key = authority.new_key()
        """One for all: making 5,000 takes its time, and nobody here is to be kept out."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.pem").write_bytes(_pem(self._authority.certificate))
        (folder / "key.pem").write_bytes(
            self._key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def server(self) -> Identity:
        directory = self._folder / "server"
        directory.mkdir()
        for name in ("ca.pem", "key.pem"):
            (directory / name).write_bytes((self._folder / name).read_bytes())
        self._issue(directory / "certificate.pem", Role.SERVER, ["localhost"])
        return Identity("localhost", directory)

    def client(self, number: int) -> TlsFiles:
        path = self._folder / f"{number}.pem"
        self._issue(path, Role.CLIENT, [f"client-{number}"])
        return TlsFiles(self._folder / "key.pem", path, self._folder / "ca.pem", self._folder / "crl.pem")

    def _issue(self, path: Path, role: Role, names: list[str]) -> None:
        certificate = self._authority.issue(self._key.public_key(), role, names, datetime.now(UTC), 5)
        path.write_bytes(_pem(certificate))


def _pem(certificate: object) -> bytes:
    return bytes(certificate.public_bytes(serialization.Encoding.PEM))  # type: ignore[attr-defined]


class Client:
    """One member of the crowd."""

    def __init__(self, files: TlsFiles, port: int, dialed: Callable[[], None]) -> None:
        self.link: Link | None = None
        self.failures: list[str] = []
        self._context = client_context(files)
        self._port = port
        self._dialed = dialed
        self._session: Session | None = None
        self._backoff = Backoff(0.1, 5.0)
        self._redial = Redial(self._backoff)
        self.joined_at: float | None = None
        """When its latest link stood, by the loop's clock; None while it has none."""
        self._over: asyncio.Future[None] | None = None

    @property
    def connected(self) -> bool:
        return self.link is not None and self.link.connection.session is not None

    async def run(self) -> None:
        while True:
            await self._once()
            if self.joined_at is None:
                await asyncio.sleep(self._redial.after_failure_s())
            else:
                await asyncio.sleep(self._redial.after_link_s(_now() - self.joined_at))

    async def _once(self) -> None:
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        self.joined_at = None
        self._dialed()
        try:
            await dial(
                "127.0.0.1",
                self._port,
                self._context,
                lambda: Link(self._connection(), self, loop),
                server_name="localhost",
                timeout_s=TIMEOUT_S,
            )
        except OSError as error:
            self.failures.append(repr(error))
            return
        await self._over

    def _connection(self) -> Connection:
        return Connection(Side.DIALER, heartbeat_s=HEARTBEAT_S, handshake_s=TIMEOUT_S, now=_now())

    # LinkOwner.

    def link_made(self, link: Link) -> None:
        link.connection.say_hello(ROLE_PIPE, session=self._session, buffer_size=BUFFER)

    def frames_received(self, link: Link, received: list[Frame]) -> None:
        for frame in received:
            if frame.kind == Kind.WELCOME:
                self.link = link
                self.joined_at = _now()
                self._session = link.connection.session
                self._backoff.reset()
                if self._session is not None:
                    self._session.attach(link.wake)
            elif frame.kind == Kind.TURN:
                self._redial.take_turn(*frames.decode_turn(frame))

    def link_lost(self, link: Link, reason: str) -> None:
        self.link = None
        if link.connection.session is None:
            self.failures.append(reason)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


class Crowd:
    """To be entered in a loop; leaves with all its links."""

    def __init__(self, identities: Identities, count: int, port: int) -> None:
        self.dialed: list[float] = []
        """When anybody dialed, by the loop's clock."""
        self.clients = [
            Client(identities.client(number), port, lambda: self.dialed.append(_now()))
            for number in range(count)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def connected(self) -> int:
        return sum(client.connected for client in self.clients)

    async def join(self, per_s: float) -> None:
        """All of them, so many in a second."""
        for client in self.clients:
            self._tasks.append(asyncio.create_task(client.run()))
            await asyncio.sleep(1 / per_s)
        await self.wait_back()

    async def wait_back(self) -> None:
        while self.connected < len(self.clients):  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def cut(self) -> None:
        """All links at once, without a word."""
        for client in self.clients:
            if client.link is not None:
                client.link.abort()

    def most_in_a_second(self, since: float) -> int:
        dialed = [at for at in self.dialed if at >= since]
        return max(
            (sum(at <= other < at + 1.0 for other in dialed[n:]) for n, at in enumerate(dialed)), default=0
        )

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.cut()


def _now() -> float:
    return asyncio.get_running_loop().time()
