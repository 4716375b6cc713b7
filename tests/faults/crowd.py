"""Very many client daemons in one process, without their sockets for workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from restpipe_ca import authority
from restpipe_ca.profiles import Role as Purpose

from restpipe.daemon.client import ClientDaemon
from restpipe.daemon.dialing import Dialing
from restpipe.daemon.peers import Peer
from restpipe.host.config import Config, Pipe, Role, load
from restpipe.host.options import Statsd
from restpipe.host.stats import CONNECT_NEW, Stats
from restpipe.transport.tls import TlsFiles
from tests.support.identities import Identity

BUFFER = 1 << 20
LOOK_EVERY_S = 0.02


class Identities:
    """A CA in memory, the server's identity as a folder, and one for each client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = authority.create("Crowd", datetime.now(UTC), 10)
        self._key = authority.new_key()
        """One for all: making 5,000 takes its time, and no client here is to be kept out."""
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
        self._issue(directory / "certificate.pem", Purpose.SERVER, ["localhost"])
        return Identity("localhost", directory)

    def empty_file(self) -> Path:
        """A configuration in which nothing is set."""
        path = self._folder / "empty.toml"
        path.touch()
        return path

    def client(self, number: int) -> TlsFiles:
        path = self._folder / f"{number}.pem"
        self._issue(path, Purpose.CLIENT, [f"client-{number}"])
        return TlsFiles(self._folder / "key.pem", path, self._folder / "ca.pem", self._folder / "crl.pem")

    def _issue(self, path: Path, purpose: Purpose, names: list[str]) -> None:
        certificate = self._authority.issue(self._key.public_key(), purpose, names, datetime.now(UTC), 5)
        path.write_bytes(_pem(certificate))


def _pem(certificate: object) -> bytes:
    return bytes(certificate.public_bytes(serialization.Encoding.PEM))  # type: ignore[attr-defined]


class WatchedDialing(Dialing):
    """The daemon's own, which also writes down why it failed."""

    reasons: list[str]

    def _report(self, reason: str) -> None:
        self.reasons.append(reason)
        super()._report(reason)


class Client(ClientDaemon):
    """One member of the crowd. To be made in its loop."""

    dialing: WatchedDialing

    def __init__(self, config: Config, files: TlsFiles, port: int, dialed: Callable[[], None]) -> None:
        key, certificate, ca, crl = files
        pipe = Pipe(
            servers=(f"127.0.0.1:{port}",),
            server_name="localhost",
            session_buffer_bytes=BUFFER,
            max_waiting=1,
        )
        tls = replace(config.tls, key=key, certificate=certificate, ca=ca, crl=crl)
        self.joined_at: float | None = None
        """When its latest link stood, by the loop's clock; None while it has none."""
        super().__init__(replace(config, pipe=pipe, tls=tls), Dials(dialed))
        self.dialing = WatchedDialing(
            self.server, self.links, self._trust, self._stats, pipe, failed=self._failed
        )
        self.dialing.reasons = []

    @property
    def connected(self) -> bool:
        return len(self.links) > 0

    def cut(self) -> None:
        """Without a word."""
        for link in self.links.all():
            link.abort()

    def joined(self, peer: Peer) -> None:
        self.joined_at = _now()

    def left(self, peer: Peer, reason: str) -> None:
        self.joined_at = None


class Dials(Stats):
    """In place of statsd: tells of each attempt to connect."""

    def __init__(self, dialed: Callable[[], None]) -> None:
        super().__init__(Statsd(host="", port=0))
        self._dialed = dialed

    def tick(self, name: str, n: int = 1) -> None:
        if name == CONNECT_NEW:
            self._dialed()


class Crowd:
    """To be made in a loop; leaves with all its links."""

    def __init__(self, identities: Identities, count: int, port: int) -> None:
        self.dialed: list[float] = []
        """When anybody dialed, by the loop's clock."""
        self.lateness_s = 0.0
        config = load(Role.CLIENT, environ={}, file=identities.empty_file())
        self.clients = [
            Client(config, identities.client(number), port, lambda: self.dialed.append(_now()))
            for number in range(count)
        ]
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def connected(self) -> int:
        return sum(client.connected for client in self.clients)

    async def join(self, per_s: float) -> None:
        """All of them, so many in a second."""
        for client in self.clients:
            self.tasks.append(asyncio.create_task(client.dialing.run()))
            await asyncio.sleep(1 / per_s)
        await self.wait_back()

    async def wait_back(self) -> None:
        while self.connected < len(self.clients):  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def cut(self) -> None:
        """All links at once, without a word."""
        for client in self.clients:
            client.cut()

    def most_in(self, span_s: float, since: float) -> int:
        """Dials in whichever span of that length had most of them."""
        dialed = [at for at in self.dialed if at >= since]
        return max(
            (sum(at <= other < at + span_s for other in dialed[n:]) for n, at in enumerate(dialed)), default=0
        )

    async def watch_lateness(self) -> None:
        """Until cancelled: how late this loop is at the worst, on a busy machine, in `lateness_s`."""
        while True:
            due = _now() + LOOK_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)
            self.lateness_s = max(self.lateness_s, _now() - due)

    async def leave(self) -> None:
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.cut()


def _now() -> float:
    return asyncio.get_running_loop().time()
