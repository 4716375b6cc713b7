"""Links that break while one of two daemons stops: what is in flight goes on over the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from restpipe.daemon.client import ClientDaemon
from restpipe.daemon.daemon import Daemon
from restpipe.daemon.server import ServerDaemon
from restpipe.protocol import frames
from restpipe.protocol.frames import Frame
from restpipe.protocol.schema_pb2 import ROLE_HANDLER, ROLE_WEB
from tests.unit.daemon.ends import Caller
from tests.unit.daemon.roles import Pair, running
from tests.unit.transport.kit import logged, run, until


@dataclass
class Scene:
    """A caller at the server has asked a handler worker at the client, which has not answered."""

    pair: Pair
    server: ServerDaemon
    client: ClientDaemon
    caller: Caller
    worker: Caller
    asked: Frame

    def break_link(self) -> None:
        for link in (*self.server.links.all(), *self.client.links.all()):
            link.abort()

    @property
    def resumed(self) -> bool:
        link = self.client.links.link(self.client.server)
        return link is not None and link.connection.resumed

    async def finish(self) -> None:
        """The worker answers, and the caller has its reply."""
        self.worker.reply(self.asked.stream, b"once")
        (reply,) = await self.caller.got(frames.REPLY)
        assert reply.body == b"once"
        assert len(await self.worker.got(frames.EVENT)) == 1


@asynccontextmanager
async def scene(folder: Path, **pipe: float) -> AsyncIterator[Scene]:
    pair = Pair(folder)
    server, client = pair.server(**pipe), pair.client()
    async with running(server, client):
        caller = await (await Caller.dial(server.events, ROLE_WEB)).welcomed()
        worker = await (await Caller.dial(client.handlers, ROLE_HANDLER, capacity=1)).welcomed()
        await until(lambda: client.server.online and server.links.peers())
        caller.open(1, "alpha")
        (asked,) = await worker.got(frames.EVENT)
        yield Scene(pair, server, client, caller, worker, asked)
    for end in (caller, worker):
        await until(lambda end=end: end.lost)


def stopping(made: Scene, role: str) -> tuple[Daemon, Daemon]:
    return (made.server, made.client) if role == "server" else (made.client, made.server)


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_link_that_breaks_while_a_daemon_drains_is_made_anew(tmp_path: Path, role: str) -> None:
    async def main() -> None:
        async with scene(tmp_path) as made:
            stops, other = stopping(made, role)
            draining = asyncio.create_task(stops.drain())
            (peer,) = other.peers
            await until(lambda: not peer.online)
            made.break_link()
            await until(lambda: made.resumed)
            # It is told again, and is given nothing new.
            await until(lambda: not peer.online)
            assert not draining.done()
            await made.finish()
            await draining
            await until(lambda: peer.channel is None)

    run(main())


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_link_that_is_down_when_a_daemon_is_told_to_stop_is_made_anew(tmp_path: Path, role: str) -> None:
    async def main() -> None:
        async with scene(tmp_path) as made:
            made.break_link()
            await until(lambda: not made.client.links.all() and not made.server.links.all())
            stops, _ = stopping(made, role)
            draining = asyncio.create_task(stops.drain())
            await until(lambda: made.resumed)
            await made.finish()
            await draining

    run(main())


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_reply_that_was_sent_into_a_broken_link_is_delivered_first(tmp_path: Path, role: str) -> None:
    async def main() -> None:
        async with scene(tmp_path) as made:
            made.break_link()
            await until(lambda: not made.client.links.all())
            made.worker.reply(made.asked.stream, b"once")
            await until(lambda: not made.client.in_flight)
            stops, _ = stopping(made, role)
            await stops.drain()
            (reply,) = await made.caller.got(frames.REPLY)
            assert reply.body == b"once"

    run(main())


def test_who_has_no_session_here_is_left_to_the_next_daemon(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as made:
            draining = asyncio.create_task(made.server.drain())
            await until(lambda: not made.client.server.online)
            newcomer = made.pair.client("beta")
            with logged("restpipe.daemon.dialing") as lines:
                async with running(newcomer):
                    await until(lambda: lines.at_least(logging.INFO))
                    assert not newcomer.links.all()
            # That is no failure.
            assert lines.at_least(logging.WARNING) == []
            assert "refused by the server: the daemon stops" in lines.at_least(logging.INFO)[0]
            assert made.server.peers.get("beta") is None
            await made.finish()
            await draining

    run(main())


def test_a_peer_that_stays_away_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with scene(tmp_path, drain_timeout_s=0.05) as made:
            made.client.stop()
            made.break_link()
            await until(lambda: not made.client.links.all())
            made.worker.reply(made.asked.stream, b"never")
            await until(lambda: not made.client.in_flight)
            monkeypatch.setattr("restpipe.daemon.daemon.RETURN_S", 0.0)
            await made.client.drain()

    run(main())


def test_it_is_told_who_has_not_taken_what_was_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, drain_timeout_s=0.05) as made:
            made.client.stop()
            made.break_link()
            await until(lambda: not made.client.links.all())
            made.worker.reply(made.asked.stream, b"never")
            await until(lambda: not made.client.in_flight)
            made.client.reload(made.pair.client_config(drain_timeout_s=0.05))
            with logged("restpipe.daemon.daemon") as lines:
                await made.client.drain()
            assert lines.texts == ["what was sent to server was still not taken over after 0.05 s"]

    run(main())
