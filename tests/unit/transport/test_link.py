from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from restpipe.errors import Code, ProtocolError, Reset
from restpipe.protocol import frames
from restpipe.protocol.connection import Side, new_session_id
from restpipe.protocol.frames import (
    ACK,
    DATA,
    EVENT,
    GOAWAY,
    HELLO,
    PING,
    PONG,
    RESET,
    WELCOME,
    Frame,
    FrameDecoder,
)
from restpipe.protocol.messages import encode_reset, read_message
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Goaway, Hello
from restpipe.protocol.session import Session
from restpipe.transport import link as links
from restpipe.transport.link import FRAMES_A_TURN, GATHER, MAX_RESETS, WRITE_AT_ONCE, Link, set_socket_options
from tests.unit.transport.kit import Recorder, connection, run, until

BUFFER = 1 << 24


def accept(link: Link, hello: Hello) -> None:
    session = Session(new_session_id(), BUFFER)
    link.connection.accept(session, hello, now=asyncio.get_running_loop().time())
    session.attach(link.wake)


class Ends:
    """Two links joined by a socket pair."""

    def __init__(self, near: Link, far: Link, near_owner: Recorder, far_owner: Recorder) -> None:
        self.near, self.far = near, far
        self.near_owner, self.far_owner = near_owner, far_owner

    @property
    def near_session(self) -> Session:
        assert self.near.connection.session is not None
        return self.near.connection.session

    @property
    def far_session(self) -> Session:
        assert self.far.connection.session is not None
        return self.far.connection.session


def test_a_peer_that_reads_nothing_is_given_up_by_tcp_too() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sock,
    ):
        set_socket_options(sock, 10.0)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@asynccontextmanager
async def joined(**how: Any) -> AsyncIterator[Ends]:
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    far_owner, near_owner = Recorder(accept), Recorder()
    far = Link(connection(Side.LISTENER, **how), far_owner, loop)
    near = Link(connection(Side.DIALER, **how), near_owner, loop)
    near.connection.say_hello(ROLE_PIPE, buffer_size=BUFFER)
    await loop.create_connection(lambda: far, sock=right)
    await loop.create_connection(lambda: near, sock=left)
    await until(lambda: near.connection.session)
    ends = Ends(near, far, near_owner, far_owner)
    ends.near_session.attach(near.wake)
    try:
        yield ends
    finally:
        near.abort()
        far.abort()
        await until(lambda: near_owner.lost and far_owner.lost)


@asynccontextmanager
async def raw(**how: Any) -> AsyncIterator[tuple[Link, Recorder, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A listening link, and the bare other end of its socket."""
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    owner = Recorder(accept)
    link = Link(connection(Side.LISTENER, **how), owner, loop)
    await loop.create_connection(lambda: link, sock=right)
    reader, writer = await asyncio.open_connection(sock=left)
    try:
        yield link, owner, reader, writer
    finally:
        writer.close()
        link.abort()
        await until(lambda: owner.lost)


def said_goodbye(data: bytes) -> Goaway:
    last = FrameDecoder().feed(data)[-1]
    assert last.kind == GOAWAY
    return read_message(Goaway(), last)


def hello() -> bytes:
    return frames.encode(HELLO, head=Hello(major=1, role=ROLE_PIPE).SerializeToString())


def test_frames_cross_in_both_directions() -> None:
    async def main() -> None:
        async with joined() as ends:
            for number in range(500):
                ends.near_session.send(1, frames.encode(DATA, 1, body=b"%d" % number))
                ends.far_session.send(2, frames.encode(DATA, 2, body=b"%d" % number))
            expected = [b"%d" % number for number in range(500)]
            for owner in (ends.near_owner, ends.far_owner):
                await until(lambda owner=owner: owner.kinds().count(DATA) == 500)
                assert [frame.body for frame in owner.frames if frame.kind == DATA] == expected

    run(main())


class CountedWrites:
    """A link's transport, and the sizes of what is written to it."""

    def __init__(self, link: Link) -> None:
        assert link.transport is not None
        self._transport = link.transport
        self.sizes: list[int] = []
        link.transport = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.sizes.append(len(data))
        self._transport.write(data)


def test_what_comes_up_in_a_turn_leaves_in_one_write() -> None:
    async def main() -> None:
        async with joined() as ends:
            writes = CountedWrites(ends.near)
            for stream in range(GATHER // 2):
                ends.near_session.send(stream, frames.encode(EVENT, stream))
            assert writes.sizes == []
            await until(lambda: ends.far_owner.kinds().count(EVENT) == GATHER // 2)
            assert len(writes.sizes) == 1

    run(main())


def test_very_much_does_not_wait_for_the_end_of_its_turn() -> None:
    async def main() -> None:
        async with joined() as ends:
            writes = CountedWrites(ends.near)
            for stream in range(3 * GATHER + 1):
                ends.near_session.send(stream, frames.encode(EVENT, stream))
            assert len(writes.sizes) == 3
            assert max(writes.sizes) == GATHER * frames.HEADER_SIZE
            await until(lambda: ends.far_owner.kinds().count(EVENT) == 3 * GATHER + 1)
            assert len(writes.sizes) == 4

    run(main())


def test_a_reader_that_does_not_read_pauses_the_session() -> None:
    async def main() -> None:
        async with raw() as (link, _, reader, writer):
            writer.write(hello())
            await until(lambda: link.connection.session)
            session = link.connection.session
            assert session is not None
            body = bytes(frames.MAX_BODY)
            for _ in range(100):
                session.send(2, frames.encode(DATA, 2, body=body))
            await until(lambda: not link._writable)
            assert link.transport is not None
            held = link.transport.get_write_buffer_size()
            assert held <= 3 * WRITE_AT_ONCE
            assert session.queue.size > 50 * len(body)
            decoder, got = FrameDecoder(), 0
            while got < 100:
                got += sum(frame.kind == DATA for frame in decoder.feed(await reader.read(1 << 20)))
            assert session.queue.size == 0

    run(main())


def test_closing_says_why_to_both() -> None:
    async def main() -> None:
        async with joined() as ends:
            ends.far.close(Code.SHUTDOWN, "stops")
            ends.far.close(Code.HEARTBEAT, "too late")
            assert ends.far.closing
            await until(lambda: ends.near_owner.lost and ends.far_owner.lost)
            assert ends.far_owner.lost == [(ends.far, "stops")]
            assert ends.near_owner.frames[-1].kind == GOAWAY
            goaway = read_message(Goaway(), ends.near_owner.frames[-1])
            assert (goaway.code, goaway.detail) == (Code.SHUTDOWN, "stops")

    run(main())


def test_what_waits_when_a_link_closes_stays_in_its_session() -> None:
    async def main() -> None:
        async with joined() as ends:
            ends.far.close(Code.SHUTDOWN, "stops")
            ends.far_session.send(2, frames.encode(EVENT, 2))
            await until(lambda: ends.far_owner.lost)
            assert ends.far_session.take(1000) == [frames.encode(EVENT, 2)]

    run(main())


def test_a_link_that_is_closing_hears_nothing_more() -> None:
    async def main() -> None:
        async with raw() as (link, owner, _, writer):
            link.close(Code.SHUTDOWN, "stops")
            writer.write(hello())
            await until(lambda: owner.lost)
            assert owner.frames == []

    run(main())


def test_a_peer_that_reads_nothing_cannot_hold_a_closed_link(monkeypatch: Any) -> None:
    async def main() -> None:
        async with raw() as (link, owner, _, writer):
            loop = asyncio.get_running_loop()
            timers: list[Any] = []
            writer.write(hello())
            await until(lambda: link.connection.session)
            assert link.connection.session is not None
            for _ in range(100):
                link.connection.session.send(2, frames.encode(DATA, 2, body=bytes(frames.MAX_BODY)))
            await until(lambda: not link._writable)

            class Later:
                def __getattr__(self, name: str) -> Any:
                    return getattr(loop, name)

                def call_later(self, _: float, callback: Any) -> None:
                    timers.append(callback)

            link.loop = Later()  # type: ignore[assignment]
            link.close(Code.SHUTDOWN, "stops")
            await asyncio.sleep(0)
            assert owner.lost == []
            (timer,) = timers
            timer()
            await until(lambda: owner.lost)
            assert owner.lost == [(link, "stops")]

    run(main())


def test_strangers_are_told_and_left() -> None:
    async def main() -> None:
        async with raw() as (link, owner, reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            goaway = said_goodbye(await reader.read())
            assert goaway.code == Code.HANDSHAKE
            assert "GET / HTTP" in goaway.detail
            await until(lambda: owner.lost)
            assert owner.lost == [(link, goaway.detail)]

    run(main())


def test_silence_instead_of_a_handshake_is_bounded() -> None:
    async def main() -> None:
        async with raw(handshake_s=0.05) as (link, owner, _, _):
            await until(lambda: owner.lost)
            assert owner.lost == [(link, "no handshake in time")]

    run(main())


def test_a_silent_peer_is_given_up_after_two_heartbeats() -> None:
    async def main() -> None:
        async with raw(heartbeat_s=0.05) as (link, owner, reader, writer):
            writer.write(hello())
            await until(lambda: owner.lost)
            assert owner.lost[0][0] is link
            assert owner.lost[0][1].startswith("nothing heard for")
            kinds = [frame.kind for frame in FrameDecoder().feed(await reader.read())]
            assert kinds[:2] == [WELCOME, PING]

    run(main())


def test_links_at_rest_stay_up_by_their_heartbeats() -> None:
    async def main() -> None:
        async with joined(heartbeat_s=0.03) as ends:
            await until(lambda: ends.near_owner.kinds().count(PONG) >= 8)
            assert ends.near_owner.lost == []
            assert ends.far_owner.lost == []

    run(main())


def test_the_other_side_is_gone() -> None:
    async def main() -> None:
        async with joined() as ends:
            ends.near.abort()
            ends.near.abort()
            await until(lambda: ends.far_owner.lost)
            assert len(ends.far_owner.lost) == 1
            assert ends.far.transport is None
            # Whoever still has the link may still use it.
            ends.far.wake()
            ends.far.close(Code.SHUTDOWN, "late")
            ends.far_session.send(2, frames.encode(EVENT, 2))

    run(main())


def test_a_fault_that_the_owner_finds_ends_the_link_and_its_session() -> None:
    async def main() -> None:
        async with joined() as ends:
            ends.far_owner.fault = ProtocolError(Code.BAD_MESSAGE, "nonsense")
            ends.near_session.send(1, frames.encode(EVENT, 1))
            await until(lambda: ends.near_owner.lost)
            assert ends.far_owner.lost == [(ends.far, "nonsense")]
            assert ends.far_session.broken
            assert not ends.near_session.broken

    run(main())


def test_a_break_of_the_protocol_ends_the_session_but_a_broken_link_does_not() -> None:
    async def main() -> None:
        async with raw() as (link, owner, _, writer):
            # The event is counted as received but handed to nobody: going on after it would lose it.
            writer.write(hello())
            await until(lambda: link.connection.session)
            writer.write(frames.encode(EVENT, 1) + frames.encode(ACK, body=b"bad"))
            await until(lambda: owner.lost)
            session = link.connection.session
            assert session is not None
            assert EVENT not in owner.kinds()
            assert session.broken
        async with joined() as ends:
            ends.near.abort()
            await until(lambda: ends.far_owner.lost)
            assert not ends.far_session.broken

    run(main())


def test_a_peer_that_is_gone_already_has_no_address() -> None:
    class Transport:
        """As uvloop's, of a TCP connection that was reset."""

        def __init__(self, sock: socket.socket) -> None:
            self.extra = {"socket": sock, "peername": None}

        def get_extra_info(self, name: str, default: object = None) -> object:
            return self.extra.get(name) or default

        def set_write_buffer_limits(self, high: int) -> None:
            assert high == WRITE_AT_ONCE

        def write(self, data: bytes) -> None:
            pass

        def abort(self) -> None:
            pass

    async def main() -> None:
        owner = Recorder()
        with socket.socket(socket.AF_INET) as sock:
            link = Link(connection(Side.LISTENER), owner, asyncio.get_running_loop())
            link.connection_made(Transport(sock))  # type: ignore[arg-type]
            assert owner.made == [link]
            assert link.peer_address == ("", 0)
            link.connection_lost(None)
            assert owner.lost == [(link, "closed by the other side")]

    run(main())


def test_what_the_other_side_sent_before_it_answered_has_come_in() -> None:
    async def main() -> None:
        async with joined() as ends:
            assert ends.far.transport is not None
            ends.far.transport.pause_reading()
            ends.near.connection.ping(asyncio.get_running_loop().time())
            ends.near.wake()
            waiting = asyncio.create_task(ends.near.wait_answered())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not waiting.done()
            ends.far_session.send(2, frames.encode(DATA, 2, body=b"crossed on the way"))
            ends.far.transport.resume_reading()
            await waiting
            assert [frame.body for frame in ends.near_owner.frames if frame.kind == DATA] == [
                b"crossed on the way"
            ]

    run(main())


def test_an_answer_is_waited_for_longer_where_the_way_is_long(monkeypatch: Any) -> None:
    async def main() -> None:
        monkeypatch.setattr(links, "LAST_WORDS_S", 0.0)
        async with joined() as ends:
            assert ends.far.transport is not None
            ends.far.transport.pause_reading()
            ends.near.connection.round_trip_s = 3600.0
            ends.near.connection.ping(asyncio.get_running_loop().time())
            waiting = asyncio.create_task(ends.near.wait_answered())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not waiting.done()
            ends.far.transport.resume_reading()
            await waiting
            assert ends.near.connection.pinged_at is None

    run(main())


def test_another_heartbeat_is_one_for_tcp_too() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            link = Link(connection(Side.DIALER), Recorder(), loop)
            link.set_heartbeat(7.0)  # nobody there yet
            await loop.create_connection(lambda: link, *server.getsockname())
            assert link.transport is not None
            sock = link.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 14_000
            link.set_heartbeat(3.0)
            assert link.connection.dead_s == 6.0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 6_000
            link.abort()
            await until(lambda: link.transport is None)

    run(main())


def test_an_answer_is_not_waited_for_when_the_link_is_gone() -> None:
    async def main() -> None:
        async with joined() as ends:
            assert ends.far.transport is not None
            ends.far.transport.pause_reading()
            waiting = asyncio.create_task(ends.near.wait_answered())
            await asyncio.sleep(0)
            ends.near.abort()
            await waiting

    run(main())


def test_frames_of_one_read_are_taken_by_turns() -> None:
    """However many a neighbour sends at once, other links have their turns in between."""

    async def main() -> None:
        async with raw() as (link, owner, _, writer):
            writer.write(hello())
            await until(lambda: link.connection.session)
            turns = 0
            counting = True

            async def count_turns() -> None:
                nonlocal turns
                while counting:
                    turns += 1
                    await asyncio.sleep(0)

            other = asyncio.create_task(count_turns())
            writer.write(b"".join(frames.encode(DATA, stream) for stream in range(20 * FRAMES_A_TURN)))
            await until(lambda: len(owner.kinds()) == 1 + 20 * FRAMES_A_TURN)
            counting = False
            await other
            assert max(owner.batches) <= FRAMES_A_TURN
            assert turns >= 20
            assert [frame.stream for frame in owner.frames[1:]] == list(range(20 * FRAMES_A_TURN))

    run(main())


def test_a_fault_behind_many_frames_ends_the_link_after_them() -> None:
    async def main() -> None:
        async with raw() as (link, owner, reader, writer):
            too_large = frames.HEADER.pack(DATA, 0, 0, frames.MAX_BODY + 1, 1)
            writer.write(hello())
            await until(lambda: link.connection.session)
            writer.write(frames.encode(DATA, 1) * (3 * FRAMES_A_TURN) + too_large)
            await until(lambda: link.closing)
            assert said_goodbye(await reader.read()).code == Code.BAD_FRAME
            assert len(owner.kinds()) > FRAMES_A_TURN

    run(main())


def test_nothing_more_is_read_from_a_neighbour_that_does_not_read_its_refusals() -> None:
    """What waits for it stays bounded, and all goes on once it reads."""

    class Refusing(Recorder):
        def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
            super().stream_frames(link, received, now)
            session = link.connection.session
            assert session is not None
            for frame in received:
                session.send(frame.stream, encode_reset(frame.stream, Reset(Code.OVERLOADED, "x" * 200)))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        owner = Refusing(accept)
        link = Link(connection(Side.LISTENER), owner, loop)
        await loop.create_connection(lambda: link, sock=right)
        left.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=left, limit=1)
        try:
            writer.write(hello())
            await until(lambda: link.connection.session)
            events = 6 * MAX_RESETS
            writer.write(b"".join(frames.encode(EVENT, 2 * n + 1) for n in range(events)))
            await until(lambda: link._held_back)
            session = link.connection.session
            assert session is not None
            for _ in range(100):
                await asyncio.sleep(0)
            # What one read had brought is refused still.
            assert session.queue.resets < MAX_RESETS + (1 << 18) // frames.HEADER_SIZE
            answered = FrameDecoder()
            refused = 0
            while refused < events:
                refused += sum(frame.kind == RESET for frame in answered.feed(await reader.read(1 << 16)))
            assert session.queue.resets == 0
            assert not link._held_back
        finally:
            writer.close()
            link.abort()
            await until(lambda: owner.lost)

    run(main())


def test_a_read_that_leaves_nothing_to_say_asks_for_no_flush() -> None:
    async def main() -> None:
        async with joined() as ends:
            asked = 0
            write = ends.far._write

            def counting_write() -> None:
                nonlocal asked
                asked += 1
                write()

            ends.far._write = counting_write  # type: ignore[method-assign]
            before = len(ends.far_owner.frames)
            ends.near_session.send(1, frames.encode(DATA, 1))
            await until(lambda: len(ends.far_owner.frames) > before)
            await asyncio.sleep(0)
            assert asked == 0

    run(main())


def test_another_heartbeat_is_in_force_at_once() -> None:
    async def main() -> None:
        async with joined(heartbeat_s=3600.0) as ends:
            ends.near.set_heartbeat(0.01)
            await until(lambda: ends.near.connection.round_trip_s is not None)

    run(main())


def test_what_was_read_before_the_end_of_a_link_is_taken_if_nobody_would_send_it_again() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()

        def accept_worker(link: Link, hello: Hello) -> None:
            link.connection.accept(Session(new_session_id(), 0), hello, now=loop.time())

        owner = Recorder(accept_worker)
        link = Link(connection(Side.LISTENER), owner, loop)
        transport, _ = await loop.create_connection(lambda: link, sock=right)
        link.data_received(hello())
        link.data_received(b"".join(frames.encode(DATA, stream) for stream in range(3 * FRAMES_A_TURN)))
        assert len(owner.kinds()) == 1 + FRAMES_A_TURN
        transport.abort()
        left.close()
        await until(lambda: owner.lost)
        assert len(owner.kinds()) == 1 + 3 * FRAMES_A_TURN

    run(main())


def test_a_full_session_is_not_held_back_from_what_would_let_it_go_on() -> None:
    async def main() -> None:
        async with joined() as ends:
            session = ends.far_session
            session.unacknowledged_size = BUFFER
            for stream in range(MAX_RESETS + 2):
                session.queue.push(stream, frames.encode(RESET, stream))
            ends.near_session.send(1, frames.encode(DATA, 1))
            await until(lambda: DATA in ends.far_owner.kinds())
            assert session.full
            assert not ends.far._held_back

    run(main())
