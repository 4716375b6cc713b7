"""What the transport's and the daemon's tests share: a strict loop, pairs in memory, identities."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from restpipe_ca import authority
from restpipe_ca.authority import Authority, Revocation
from restpipe_ca.profiles import Role

from restpipe.errors import ProtocolError, StreamReset
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.frames import HELLO, Frame, FrameDecoder
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import Hello, Reply
from restpipe.protocol.session import Session
from restpipe.transport.exchange import Exchange
from restpipe.transport.link import Link
from restpipe.transport.tls import TlsFiles, client_context, server_context

T = TypeVar("T")

PATIENCE_S = 20.0
"""Only a test that fails waits for so long."""


def run(main: Coroutine[Any, Any, T], *, collect: bool = True) -> T:
    """Runs a test on the loop of production. Faults that nobody handles and tasks left over fail it."""
    faults: list[dict[str, Any]] = []

    async def guarded() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        async with asyncio.timeout(PATIENCE_S):
            result = await main
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        _, pending = await asyncio.wait(rest, timeout=5) if rest else (set(), set())
        assert not pending, f"tasks left over: {pending}"
        return result

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(guarded())
    if collect:
        gc.collect()  # a task whose exception nobody asked for complains when it is collected
    assert not faults, faults
    return result


async def until(condition: Callable[[], Any]) -> None:
    """Waits for a condition, as long as the test's patience lasts."""
    turns = 0
    while not condition():
        turns += 1
        await asyncio.sleep(0 if turns < 20 else 0.001)


async def reply_of(exchange: Exchange) -> Reply:
    """The head of the reply, once it is in."""
    await exchange.answered()
    if exchange.reply is None:
        assert exchange.failure is not None
        raise StreamReset(exchange.failure)
    return exchange.reply


class Recorder:
    """A link's owner that writes down what comes; `greet` has it answer a HELLO like a daemon."""

    def __init__(self, greet: Callable[[Link, Hello], None] | None = None) -> None:
        self.made: list[Link] = []
        self.frames: list[Frame] = []
        self.batches: list[int] = []
        """How many stream frames came at once."""
        self.lost: list[tuple[Link, str]] = []
        self.fault: ProtocolError | None = None
        self._greet = greet

    def link_made(self, link: Link) -> None:
        self.made.append(link)

    def link_frame(self, link: Link, frame: Frame, now: float) -> None:
        self.frames.append(frame)
        if self.fault is not None:
            raise self.fault
        if self._greet is not None and frame.kind == HELLO:
            self._greet(link, read_message(Hello(), frame))

    def stream_frames(self, link: Link, frames: list[Frame], now: float) -> None:
        self.frames += frames
        self.batches.append(len(frames))
        if self.fault is not None:
            raise self.fault

    def link_lost(self, link: Link, reason: str) -> None:
        self.lost.append((link, reason))

    def kinds(self) -> list[int]:
        return [frame.kind for frame in self.frames]


def connection(side: Side, *, heartbeat_s: float = 5.0, handshake_s: float = 10.0) -> Connection:
    now = asyncio.get_running_loop().time()
    return Connection(side, heartbeat_s=heartbeat_s, handshake_s=handshake_s, now=now)


def taken(session: Session, budget: int = 1 << 30) -> list[Frame]:
    """What a session would send now, decoded."""
    return FrameDecoder().feed(b"".join(session.take(budget)))


class Lines(logging.Handler):
    """Log records of one logger."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    def at_least(self, level: int) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno >= level]


@contextmanager
def logged(name: str) -> Iterator[Lines]:
    """The lines of a logger, by name."""
    logger = logging.getLogger(name)
    before = logger.level
    lines = Lines()
    logger.addHandler(lines)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        logger.removeHandler(lines)
        logger.setLevel(before)


# Identities.


def pem(thing: Any) -> bytes:
    return bytes(thing.public_bytes(serialization.Encoding.PEM))


@dataclass
class Identities:
    """Certificates of one CA, as files."""

    ca: Authority
    folder: Path

    @classmethod
    def make(cls, folder: Path, title: str = "Test") -> Identities:
        folder.mkdir()
        ca = authority.create(title, datetime.now(UTC) - timedelta(days=100), 1000)
        (folder / "ca.pem").write_bytes(pem(ca.certificate))
        return cls(ca, folder)

    def issue(
        self, names: list[str], role: Role, *, issued_ago: timedelta = timedelta(), days: int = 10
    ) -> TlsFiles:
        key = authority.new_key()
        certificate = self.ca.issue(key.public_key(), role, names, datetime.now(UTC) - issued_ago, days)
        stem = f"{len(list(self.folder.iterdir()))}"
        files = TlsFiles(
            self.folder / f"{stem}.key",
            self.folder / f"{stem}.pem",
            self.folder / "ca.pem",
            self.folder / "crl.pem",
        )
        files.certificate.write_bytes(pem(certificate))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def server(self, *names: str) -> ssl.SSLContext:
        return server_context(self.issue(list(names or ("localhost", "127.0.0.1")), Role.SERVER))

    def client(self, name: str, **how: Any) -> ssl.SSLContext:
        return client_context(self.issue([name], Role.CLIENT, **how))

    def revoke(self, files: TlsFiles) -> None:
        """Makes the list of revoked certificates anew, with this one on it."""
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        now = datetime.now(UTC)
        revoked = self.ca.revocation_list([Revocation(certificate.serial_number, now)], 1, now)
        files.crl.write_bytes(pem(revoked))
