from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restpipe.daemon import local
from restpipe.daemon.channel import Channel
from restpipe.daemon.local import EventsDoor, HandlersDoor
from restpipe.daemon.notices import Notices
from restpipe.errors import Code, Delivered
from restpipe.protocol import frames
from restpipe.protocol.connection import Side
from restpipe.protocol.frames import Frame
from restpipe.protocol.messages import read_message, read_reset
from restpipe.protocol.schema_pb2 import ROLE_HANDLER, ROLE_PIPE, ROLE_WEB, Event, Hello, Notice, Origin, Role
from restpipe.protocol.session import Session
from tests.unit.daemon.ends import Caller, House, linked
from tests.unit.transport.kit import run, until


class Doors(House):
    """A daemon's two doors, and a peer named alpha on whom the test waits."""

    def __init__(self, present: Iterable[Notice] = ()) -> None:
        super().__init__()
        self.notices = Notices(lambda: present)
        self.events = EventsDoor(self.router)
        self.handlers = HandlersDoor(self.router, self.pool, self.notices)
        self.callers: list[Caller] = []

    async def web(self) -> Caller:
        self.callers.append(await (await Caller.dial(self.events, ROLE_WEB)).welcomed())
        return self.callers[-1]

    async def worker(self, capacity: int = 10) -> Caller:
        caller = await Caller.dial(self.handlers, ROLE_HANDLER, capacity=capacity)
        self.callers.append(await caller.welcomed())
        return self.callers[-1]

    def arrive(self, *received: Frame) -> None:
        """From the peer."""
        peer = self.peers.get("alpha")
        assert peer is not None
        assert peer.channel is not None
        self.router.from_peer(peer, peer.channel, list(received), asyncio.get_running_loop().time())


@asynccontextmanager
async def doors(present: Iterable[Notice] = ()) -> AsyncIterator[Doors]:
    house = Doors(present)
    peer = house.peers.add("alpha")
    assert peer is not None
    peer.joined(Channel(Session(bytes(16), 0), Side.LISTENER), "10.0.0.1", 1)
    try:
        yield house
    finally:
        for caller in house.callers:
            await caller.leave()
        await until(lambda: not house.events.links and not house.handlers.links)
        assert house.pool.workers == set()
        assert house.events.in_flight == house.handlers.in_flight == 0


def event(stream: int) -> Frame:
    head = Event(verb="GET", timeout_ms=30_000).SerializeToString()
    return Frame(frames.EVENT, frames.END, len(head), stream, head)


def test_a_web_worker_sends_events_to_peers() -> None:
    async def main() -> None:
        async with doors() as house:
            web = await house.web()
            web.open(1, "alpha")
            await until(lambda: house.channel("alpha").session.queue)
            assert house.events.in_flight == 1
            (opened,) = frames.FrameDecoder().feed(b"".join(house.channel("alpha").session.take(1 << 20)))
            house.arrive(Frame(frames.REPLY, frames.END, 0, opened.stream, b"hello"))
            (reply,) = await web.got(frames.REPLY)
            assert (reply.stream, reply.body) == (1, b"hello")
            web.open(3, "nobody.example")
            await until(lambda: house.lookups)
            house.lookups["nobody.example"](frozenset(), asyncio.get_running_loop().time())
            (reset,) = await web.got(frames.RESET)
            assert read_reset(reset).code is Code.UNKNOWN_PEER

    run(main())


def test_a_handler_worker_answers_events_of_peers() -> None:
    async def main() -> None:
        async with doors() as house:
            worker = await house.worker()
            house.arrive(event(1))
            (origin,) = await worker.got(frames.ORIGIN)
            (opened,) = await worker.got(frames.EVENT)
            assert read_message(Origin(), origin).peer == "alpha"
            assert house.handlers.in_flight == 1
            worker.reply(opened.stream, b"done")
            await until(lambda: house.channel("alpha").session.queue)
            (reply,) = frames.FrameDecoder().feed(b"".join(house.channel("alpha").session.take(1 << 20)))
            assert (reply.kind, reply.stream, reply.body) == (frames.REPLY, 1, b"done")

    run(main())


@pytest.mark.parametrize(
    ("door", "role"),
    [
        ("events", ROLE_HANDLER),
        ("handlers", ROLE_WEB),
        ("events", ROLE_PIPE),
        ("handlers", ROLE_PIPE),
        ("events", 0),
        ("handlers", 77),
    ],
)
def test_the_door_decides_what_one_may_do(door: str, role: Role) -> None:
    async def main() -> None:
        async with doors() as house:
            caller = await Caller.dial(getattr(house, door), role)
            goaway = await caller.told_to_go()
            assert goaway.code == Code.HANDSHAKE
            assert "wrong socket" in goaway.detail

    run(main())


def test_a_handler_worker_cannot_send_events_nor_a_web_worker_answer_them() -> None:
    async def main() -> None:
        async with doors() as house:
            worker, web = await house.worker(), await house.web()
            worker.open(1, "alpha")
            house.arrive(event(1))
            (opened,) = await worker.got(frames.EVENT)
            web.reply(opened.stream)
            web.open(5, "alpha")
            await until(lambda: house.events.in_flight)
            assert house.handlers.in_flight == 1
            sent = frames.FrameDecoder().feed(b"".join(house.channel("alpha").session.take(1 << 20)))
            assert [frame.kind for frame in sent] == [frames.EVENT]

    run(main())


def test_a_worker_that_leaves_answers_for_its_events() -> None:
    async def main() -> None:
        async with doors() as house:
            worker = await house.worker()
            house.arrive(event(1))
            await worker.got(frames.EVENT)
            await worker.leave()
            await until(lambda: house.channel("alpha").session.queue)
            (frame,) = frames.FrameDecoder().feed(b"".join(house.channel("alpha").session.take(1 << 20)))
            reset = read_reset(frame)
            assert (reset.code, reset.delivered) == (Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN)
            assert "handler worker is gone" in reset.detail

    run(main())


def test_capacity_is_what_the_worker_says_last() -> None:
    async def main() -> None:
        async with doors() as house:
            worker = await house.worker(capacity=1)
            house.arrive(event(1), event(3), event(5))
            await worker.got(frames.EVENT)
            assert len(house.pool.queue) == 2
            assert worker.link is not None
            worker.link.send_control(frames.encode_credit(frames.CAPACITY, 0, 3))
            await worker.got(frames.EVENT, 3)
            assert len(house.pool.queue) == 0
            worker.link.send_control(frames.encode_credit(frames.CAPACITY, 0, (1 << 32) - 1))
            (only,) = house.pool.workers
            await until(lambda: only.capacity == local.MAX_CAPACITY)

    run(main())


def test_a_worker_hears_how_things_are_and_what_changes() -> None:
    async def main() -> None:
        present = [Notice(kind=Notice.CONNECTION_ADDED, peer="alpha")]
        async with doors(present) as house:
            one, other = await house.worker(), await house.worker()
            house.notices.tell(Notice(kind=Notice.CONNECTION_REMOVED, peer="alpha"))
            for worker in (one, other):
                told = await worker.got(frames.NOTICE, 2)
                assert [read_message(Notice(), frame).kind for frame in told] == [
                    Notice.CONNECTION_ADDED,
                    Notice.CONNECTION_REMOVED,
                ]
            await one.leave()
            await until(lambda: len(house.handlers.links) == 1)
            house.notices.tell(Notice(kind=Notice.IDLE))
            await other.got(frames.NOTICE, 3)

    run(main())


def test_no_worker_is_let_in_once_it_closes() -> None:
    async def main() -> None:
        async with doors() as house:
            old = await house.web()
            house.events.closed = True
            goaway = await (await Caller.dial(house.events, ROLE_WEB)).told_to_go()
            assert goaway.code == Code.SHUTDOWN
            assert not old.lost

    run(main())


def test_too_many_workers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(local, "MAX_LINKS", 2)
        async with doors() as house:
            one, _ = await house.web(), await house.web()
            goaway = await (await Caller.dial(house.events, ROLE_WEB)).told_to_go()
            assert goaway.code == Code.TOO_MANY_LINKS
            await one.leave()
            await until(lambda: len(house.events.links) == 1)
            await house.web()

    run(main())


hello = Hello(major=1, role=ROLE_WEB, capacity=3)
some_frame = st.builds(
    lambda kind, stream, flags, head, body: frames.encode(kind, stream, head, body, flags=flags),
    st.one_of(st.sampled_from((*range(1, 7), *range(128, 137))), st.integers(0, 255)),
    st.integers(0, 6),
    st.integers(0, 1),
    st.one_of(
        st.binary(max_size=12),
        st.just(Event(verb="GET", to="alpha", timeout_ms=1000).SerializeToString()),
        st.just(Event(verb="GET", to="10.9.9.9", timeout_ms=1000).SerializeToString()),
        st.just(hello.SerializeToString()),
    ),
    st.one_of(st.binary(max_size=12), st.integers(0, 9).map(lambda n: n.to_bytes(8, "big"))),
)


@settings(deadline=None, max_examples=80)
@given(
    st.booleans(),
    st.booleans(),
    st.lists(st.one_of(some_frame, some_frame, st.binary(max_size=60)), max_size=10),
    st.booleans(),
)
def test_no_bytes_at_all_disturb_anybody_else(
    handlers: bool, greets: bool, pieces: list[bytes], event_for_it: bool
) -> None:
    async def main() -> None:
        async with doors() as house:
            web = await house.web()
            loop = asyncio.get_running_loop()
            link, sock = await linked(house.handlers if handlers else house.events)
            with sock:
                role = ROLE_HANDLER if handlers else ROLE_WEB
                opening = Hello(major=1, role=role, capacity=3).SerializeToString()
                if greets:
                    await loop.sock_sendall(sock, frames.encode(frames.HELLO, head=opening))
                    await until(lambda: link.connection.session)
                if event_for_it:
                    house.arrive(event(1))
                with contextlib.suppress(OSError):
                    for piece in pieces:
                        await loop.sock_sendall(sock, piece)
                    sock.shutdown(socket.SHUT_WR)
                await until(lambda: link.transport is None)
            # Everyone else's traffic goes on.
            worker = await house.worker()
            house.arrive(event(101))
            await worker.got(frames.EVENT, 2 if event_for_it and not (handlers and greets) else 1)
            web.open(1, "alpha")
            await until(lambda: house.events.in_flight == 1)

    run(main(), collect=False)
