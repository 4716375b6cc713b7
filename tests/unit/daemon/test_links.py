from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from restpipe.daemon.channel import Channel
from restpipe.daemon.links import peer_connection
from restpipe.daemon.peers import Peer
from restpipe.errors import Code
from restpipe.host.config import Pipe
from restpipe.protocol.connection import Side
from restpipe.protocol.frames import FrameDecoder
from restpipe.protocol.messages import encode_goaway
from restpipe.transport.link import Link
from tests.unit.daemon.ends import House
from tests.unit.daemon.kit import event, opener, taken
from tests.unit.transport.kit import Recorder, connection, logged, run, until


class FakeLink(Link):
    """A link of which only the connection is real."""

    def __init__(self, *, resumed: bool = False, peer_goes: bool = False) -> None:
        super().__init__(connection(Side.LISTENER), Recorder(), asyncio.get_running_loop())
        self.connection.resumed = resumed
        self.connection.peer_goes = peer_goes
        self.peer_address = ("10.0.0.1", 4000)
        self.ended: list[object] = []

    def wake(self) -> None:
        """Nothing is sent."""

    def close(self, code: Code, detail: str) -> None:
        self.ended.append(code)

    def abort(self) -> None:
        self.ended.append("abort")


@asynccontextmanager
async def house(session_life_s: float = 300.0) -> AsyncIterator[tuple[House, Peer, Channel]]:
    made = House(session_life_s=session_life_s)
    peer = made.peers.add("alpha")
    assert peer is not None
    yield made, peer, opener()
    await made.close()


def join(made: House, peer: Peer, channel: Channel, link: FakeLink, *, known: bool = True) -> None:
    made.links.join(link, peer, channel, known=known)


def lose(made: House, link: FakeLink) -> None:
    made.links.lost(link, "cut")


def test_a_peer_has_joined_once_it_knows_of_its_session() -> None:
    async def main() -> None:
        async with house() as (made, peer, channel):
            link = FakeLink()
            join(made, peer, channel, link, known=False)
            assert (peer.online, made.news, len(made.links)) == (False, [], 1)
            made.links.stream_frames(link, [event(1)], 0.0)
            assert (peer.online, made.news) == (True, ["alpha joined"])
            assert 1 in channel.routes
            made.links.stream_frames(link, [event(3)], 0.0)
            assert made.news == ["alpha joined"]

    run(main())


def test_a_peer_that_says_goodbye_first_has_not_joined() -> None:
    async def main() -> None:
        async with house() as (made, peer, channel):
            link = FakeLink(peer_goes=True)
            join(made, peer, channel, link, known=False)
            (goaway,) = FrameDecoder().feed(encode_goaway(Code.SHUTDOWN, "stops"))
            made.links.link_frame(link, peer, goaway, 0.0)
            lose(made, link)
            assert made.news == []
            assert peer.channel is None
            assert made.links.expected == 0

    run(main())


def test_frames_of_a_link_that_was_lost_are_dropped() -> None:
    async def main() -> None:
        async with house() as (made, peer, channel):
            link = FakeLink()
            join(made, peer, channel, link)
            made.links.cut(link, Code.REVOKED, "revoked")
            assert link.ended == [Code.REVOKED]
            made.links.stream_frames(link, [event(1)], 0.0)
            assert channel.routes == {}
            lose(made, link)
            assert made.news == ["alpha joined", "alpha left"]

    run(main())


def test_a_session_waits_for_its_peer_for_a_while() -> None:
    async def main() -> None:
        async with house(session_life_s=0.02) as (made, peer, channel):
            link, newer = FakeLink(), FakeLink(resumed=True)
            join(made, peer, channel, link)
            lose(made, link)
            assert (len(made.links), made.links.expected, peer.channel) == (0, 1, channel)
            join(made, peer, channel, newer)
            await asyncio.sleep(0.03)
            assert peer.channel is channel
            # An older link that is lost late is no loss.
            lose(made, link)
            assert peer.online
            made.router.from_sender(sender := opener(), [event(1, "alpha")], 0.0)
            lose(made, newer)
            await until(lambda: peer.channel is None)
            assert made.links.expected == 0
            assert len(taken(sender)) == 1

    run(main())


@pytest.mark.parametrize(
    ("peer_goes", "stopping", "level"),
    [(False, False, logging.WARNING), (True, False, logging.INFO), (False, True, logging.INFO)],
)
def test_a_loss_that_was_announced_is_no_warning(peer_goes: bool, stopping: bool, level: int) -> None:
    async def main() -> None:
        async with house() as (made, peer, channel):
            link = FakeLink(peer_goes=peer_goes)
            join(made, peer, channel, link)
            made.links.stopping = stopping
            with logged("restpipe.daemon.links") as lines:
                lose(made, link)
            assert [record.levelno for record in lines.records] == [level]

    run(main())


def test_a_newer_link_ends_the_older_at_once() -> None:
    async def main() -> None:
        async with house() as (made, peer, channel):
            link = FakeLink()
            made.links.replace(peer, "there is none")
            join(made, peer, channel, link)
            made.links.replace(peer, "the same client has connected anew")
            assert link.ended == [Code.REPLACED, "abort"]
            assert made.links.link(peer) is None

    run(main())


def test_a_connection_to_another_host_goes_by_the_configuration() -> None:
    made = peer_connection(Side.DIALER, Pipe(heartbeat_interval_s=3.0, handshake_timeout_s=1.5), 100.0)
    assert (made.side, made.dead_s, made.next_tick) == (Side.DIALER, 6.0, 101.5)
