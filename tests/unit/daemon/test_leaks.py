"""Cutting and healing leaves no task, link, session, route or timer behind: not one, in either daemon."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from restpipe_ca.profiles import Role

from restpipe.daemon.accepting import Accepting
from restpipe.daemon.channel import Channel, Route, Waiting
from restpipe.daemon.daemon import Daemon
from restpipe.daemon.dialing import Dialing
from restpipe.daemon.links import peer_connection
from restpipe.daemon.peers import Peer, PeerTable
from restpipe.daemon.trust import Sources, Trust
from restpipe.errors import Code, Reset
from restpipe.host import config as configuration
from restpipe.host.config import Pipe
from restpipe.host.stats import Stats
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.session import Session
from restpipe.transport.certificates import Use
from restpipe.transport.link import Link
from restpipe.transport.listener import Listener, listening_socket
from restpipe.transport.tls import TlsFiles, client_context, server_context
from tests.unit.daemon.kit import event, reset, session
from tests.unit.transport.kit import Identities, run, until

CUTS = 20
COUNTED = (Channel, Connection, Link, Route, Session, Waiting, asyncio.Transport)


class Ends:
    """The owners of links of a server and of its client, all real, and what is in flight between them."""

    def __init__(self, ids: Identities) -> None:
        sock = listening_socket("127.0.0.1", 0)
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        pipe = Pipe(servers=(address,), reconnect_min_s=0.001, reconnect_max_s=0.002)
        self.peer = Peer("server", 20)
        self.server = daemon(ids.folder, pipe, PeerTable(10, 20), None)
        self.client = daemon(ids.folder, pipe, PeerTable(1, 20), self.peer)
        self.client.peers.put(self.peer)
        server_files = ids.issue(["127.0.0.1"], Role.SERVER)
        client_files = ids.issue(["alpha"], Role.CLIENT)
        self.trusts = (
            trust(self.server, server_files, server_context, Use.CLIENT),
            trust(self.client, client_files, client_context, Use.SERVER),
        )
        loop = asyncio.get_running_loop()
        self.accepting = Accepting(
            self.server.peers, self.server.links, self.trusts[0], buffer_size=1 << 20, max_clients=10
        )
        self.listener = Listener(
            sock,
            lambda: self.trusts[0].context,
            lambda: Link(peer_connection(Side.LISTENER, pipe, loop.time()), self.accepting, loop),
            handshake_s=10.0,
        )
        self.dialing = Dialing(
            self.peer,
            self.client.links,
            self.trusts[1],
            Stats.off(),
            pipe,
            failed=lambda attempts, broken_at: None,
        )
        self.sender = Channel(session(), Side.LISTENER)
        self._number = 1

    @property
    def up(self) -> bool:
        alpha = self.server.peers.get("alpha")
        return self.peer.online and alpha is not None and alpha.online

    @property
    def link(self) -> Link:
        (link,) = self.client.links.all()
        return link

    async def cut(self, how: Callable[[Ends], None]) -> None:
        """Once, with an event in flight; it reaches the client before or after, and is then cancelled."""
        before, number = self.link, self._number
        self._number += 2
        now = asyncio.get_running_loop().time()
        self.server.router.from_sender(self.sender, [event(number, "alpha", timeout_s=3600)], now)
        how(self)
        await until(lambda: self.up and self.link is not before)
        await until(lambda: self.client.router.waiting_size)
        cancelled = reset(number, Reset(Code.CANCELLED))
        self.server.router.from_sender(self.sender, [cancelled], now)
        await until(lambda: not self.client.router.waiting_size)
        # What is still to be said of it, and what the last link leaves to the loop.
        await self.link.wait_written()
        (other,) = self.server.links.all()
        await other.wait_written()

    def left(self) -> dict[str, int]:
        """All that there is at this moment, counted."""
        for end in (self.server, self.client):
            # Of those who wait no more, a few stay here until they are many.
            end.deadlines._deadlines._compact()
        gc.collect()
        found = Counter(
            kind.__name__ for one in gc.get_objects() for kind in COUNTED if isinstance(one, kind)
        )
        found["tasks"] = len(asyncio.all_tasks())
        found["names"] = len(self.accepting._names) + len(self.accepting._contenders)
        for end in (self.server, self.client):
            links = end.links
            found["tables"] += len(links._peers) + len(links._links) + len(links._given_up)
            found["deadlines"] += len(end.deadlines._deadlines._heap)
            found["unacknowledged"] += sum(
                len(peer.channel.session._unacknowledged) for peer in end.peers if peer.channel is not None
            )
        found["certificates"] = sum(len(trust._certificates) for trust in self.trusts)
        found["disappointments"] = len(self.dialing._disappointments._addresses)
        return dict(found)


def daemon(folder: Path, pipe: Pipe, peers: PeerTable, server: Peer | None) -> Daemon:
    empty = folder / "empty.toml"
    empty.touch()
    config = configuration.load(
        configuration.Role.SERVER, environ={"RP_RUNTIME_DIR": str(folder), "RP_CONFIG_FILE": str(empty)}
    )
    return Daemon(dataclasses.replace(config, pipe=pipe), peers, server=server)


def trust(end: Daemon, files: TlsFiles, context: Callable[[TlsFiles], Any], use: Use) -> Trust:
    return Trust(Sources(files, (), lambda: context(files)), links=end.links, peers=end.peers, use=use)


@asynccontextmanager
async def ends(folder: Path) -> AsyncIterator[Ends]:
    made = Ends(Identities.make(folder / "ca"))
    tasks = [asyncio.create_task(made.listener.run()), asyncio.create_task(made.dialing.run())]
    try:
        await until(lambda: made.up)
        yield made
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for link in (*made.client.links.all(), *made.server.links.all()):
            link.abort()
        await until(lambda: not made.accepting._names)
        for end in (made.server, made.client):
            for timer in end.links._given_up.values():
                timer.cancel()
            end.deadlines.close()


def by_the_client(made: Ends) -> None:
    made.link.abort()


def by_the_server(made: Ends) -> None:
    (link,) = made.server.links.all()
    link.abort()


def with_a_word(made: Ends) -> None:
    (link,) = made.server.links.all()
    link.close(Code.REVOKED, "come anew")


@pytest.fixture
def unlogged() -> Iterator[None]:
    """Records of a log that is kept hold the links that they speak of."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("unlogged")
def test_cutting_and_healing_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with ends(tmp_path) as made:
            kinds = (by_the_client, by_the_server, with_a_word)
            for how in kinds:
                await made.cut(how)
            # A link that was closed with a word is watched for a moment, lest it stay.
            await until(lambda: made.left()["Link"] == 2)
            before = made.left()
            for number in range(CUTS):
                await made.cut(kinds[number % 3])
            await until(lambda: made.left()["Link"] == 2)
            assert made.left() == before

    run(main())
