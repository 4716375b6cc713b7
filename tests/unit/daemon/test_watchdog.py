"""The watchdog is fed as long as the daemon's own socket answers, and no longer."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from restpipe.daemon import watchdog
from restpipe.host.notify import Notifier
from restpipe.protocol.connection import Connection, Side, new_session_id
from restpipe.protocol.frames import Frame
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import Hello
from restpipe.protocol.session import Session
from restpipe.transport.link import Link


class Door:
    """Welcomes each worker, unless it has been told to be mute."""

    def __init__(self) -> None:
        self.mute = False
        self.greeted = 0

    def link_made(self, link: Link) -> None:
        pass

    def link_frame(self, link: Link, frame: Frame, now: float) -> None:
        if link.connection.session is None:
            self.greeted += 1
            if not self.mute:
                link.connection.accept(Session(new_session_id(), 0), read_message(Hello(), frame), now=now)

    def stream_frames(self, link: Link, frames: list[Frame], now: float) -> None:
        pass

    def link_lost(self, link: Link, reason: str) -> None:
        pass


def test_fed_by_round_trips_and_by_nothing_else(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(short_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "40000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        asyncio.run(_fed(manager, short_path / "events.sock"))


async def _fed(manager: socket.socket, path: Path) -> None:
    loop = asyncio.get_running_loop()
    door = Door()

    def make_link() -> Link:
        connection = Connection(Side.LISTENER, heartbeat_s=5, handshake_s=5, now=loop.time())
        return Link(connection, door, loop)

    server = await loop.create_unix_server(make_link, str(path))
    feeding = asyncio.create_task(watchdog.feed(Notifier(), path))
    async with asyncio.timeout(30):
        for _ in range(2):
            assert await loop.sock_recv(manager, 4096) == b"WATCHDOG=1"
        door.mute = True
        greeted = door.greeted
        while door.greeted == greeted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    # At most what was in flight when it fell silent.
    left = _drained(manager)
    assert len(left) <= 1
    feeding.cancel()
    await asyncio.wait([feeding])
    server.close()


def _drained(manager: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    while True:
        try:
            found.append(manager.recv(4096))
        except BlockingIOError:
            return found


def test_no_watchdog_no_feeding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    asyncio.run(watchdog.feed(Notifier(), Path("/nonexistent")))
