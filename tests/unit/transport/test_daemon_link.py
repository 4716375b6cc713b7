from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import restpipe.transport.link
from restpipe.errors import Code, Delivered, NotConnected, Reset, StreamReset
from restpipe.protocol import frames
from restpipe.protocol.connection import Side, new_session_id
from restpipe.protocol.frames import (
    CAPACITY,
    DATA,
    END,
    EVENT,
    GOAWAY,
    MAX_BODY,
    MAX_HEAD,
    NOTICE,
    ORIGIN,
    PING,
    REPLY,
    RESET,
    WINDOW,
    Frame,
)
from restpipe.protocol.messages import encode_reset, read_message, read_reset
from restpipe.protocol.schema_pb2 import (
    ROLE_HANDLER,
    ROLE_WEB,
    Event,
    Goaway,
    Hello,
    Notice,
    Origin,
    Reply,
)
from restpipe.protocol.session import Session
from restpipe.transport import daemon_link
from restpipe.transport.daemon_link import DaemonLink
from restpipe.transport.exchange import Exchange
from restpipe.transport.link import Link
from tests.unit.transport.kit import Recorder, connection, logged, reply_of, run, until


class FakeDaemon:
    """The daemon's end of one Unix socket; `welcoming` decides whether it answers a HELLO."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hellos: list[Hello] = []
        self.welcoming = True
        self.owner = Recorder(self._greet)
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: Link(connection(Side.LISTENER), self.owner, loop), str(self.path)
        )

    async def stop(self) -> None:
        """As if the process had been killed."""
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)
        for link in self.owner.made:
            link.abort()
        await until(lambda: len(self.owner.lost) == len(self.owner.made))

    def _greet(self, link: Link, hello: Hello) -> None:
        self.hellos.append(hello)
        if not self.welcoming:
            link.close(Code.TOO_MANY_LINKS, "full")
            return
        session = Session(new_session_id(), 0)
        link.connection.accept(session, hello, now=asyncio.get_running_loop().time())
        session.attach(link.wake)

    @property
    def link(self) -> Link:
        return self.owner.made[-1]

    @property
    def session(self) -> Session:
        session = self.link.connection.session
        assert session is not None
        return session

    async def frames(self, kind: int, count: int = 1) -> list[Frame]:
        def come() -> list[Frame]:
            return [frame for frame in self.owner.frames if frame.kind == kind]

        await until(lambda: len(come()) >= count)
        return come()

    def say(self, kind: int, head: bytes = b"") -> None:
        self.link.connection.send_control(frames.encode(kind, head=head))
        self.link.wake()

    def event(self, number: int, body: bytes = b"", *, end: bool = True, verb: str = "GET") -> None:
        origin = Origin(peer="alpha", address="10.0.0.1", port=7).SerializeToString()
        head = Event(verb=verb, target="/x").SerializeToString()
        self.session.send(number, frames.encode(ORIGIN, number, origin))
        self.session.send(number, frames.encode(EVENT, number, head, body, flags=END if end else 0))


@asynccontextmanager
async def worker(
    tmp_path: Path, role: Any = ROLE_WEB, *, welcoming: bool = True, **how: Any
) -> AsyncIterator[tuple[DaemonLink, FakeDaemon]]:
    """A worker's link that runs, and its daemon."""
    daemon = FakeDaemon(tmp_path / "daemon.sock")
    daemon.welcoming = welcoming
    await daemon.start()
    link = DaemonLink(str(daemon.path), role, **how)
    running = asyncio.create_task(link.run())
    try:
        if welcoming:
            await link.wait_connected()
        yield link, daemon
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await daemon.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redials at once; how long it would wait is for the tests of the backoff."""
    real = daemon_link.Backoff

    def backoff(least_s: float, most_s: float) -> Any:
        assert (least_s, most_s) == (0.1, 1.0)
        return real(0.001, 0.01)

    monkeypatch.setattr(daemon_link, "Backoff", backoff)


def handed(exchanges: list[Exchange], count: int = 1) -> Callable[[], bool]:
    return lambda: len(exchanges) >= count


def test_it_says_who_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with worker(tmp_path, ROLE_HANDLER, capacity=42) as (link, daemon):
            assert link.connected
            assert [(hello.role, hello.capacity) for hello in daemon.hellos] == [(ROLE_HANDLER, 42)]

    run(main())


def test_an_event_and_its_reply(tmp_path: Path) -> None:
    async def main() -> None:
        async with worker(tmp_path) as (link, daemon):
            exchange = link.open(Event(verb="GET", target="/time"), b"body", end=True)
            (frame,) = await daemon.frames(EVENT)
            assert (read_message(Event(), frame).target, frame.body, frame.ends) == ("/time", b"body", True)
            assert frame.stream % 2 == 1
            head = Reply(status=200).SerializeToString()
            daemon.session.send(frame.stream, frames.encode(REPLY, frame.stream, head, b"now", flags=END))
            assert (await reply_of(exchange)).status == 200
            assert await exchange.read() == b"now"
            assert await exchange.read() == b""
            assert exchange.closed

    run(main())


@pytest.mark.parametrize("turns", range(12))
def test_it_can_be_stopped_at_any_moment_of_its_dialing(tmp_path: Path, turns: int) -> None:
    async def main() -> None:
        daemon = FakeDaemon(tmp_path / "daemon.sock")
        await daemon.start()
        dialing = asyncio.create_task(DaemonLink(str(daemon.path), ROLE_HANDLER, capacity=1).run())
        for _ in range(turns):
            await asyncio.sleep(0)
        dialing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing
        await daemon.stop()

    run(main())


def test_before_there_is_a_link_nothing_can_be_opened(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "nobody.sock"
        link = DaemonLink(str(path), ROLE_WEB)
        with pytest.raises(NotConnected):
            link.open(Event(), end=True)
        with logged("restpipe.transport.daemon_link") as lines:
            running = asyncio.create_task(link.run())
            await until(lambda: link._backoff.attempts > 3)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        # The same failure again and again is one line.
        assert lines.texts == [f"cannot reach the pipe daemon at {path}: No such file or directory"]
        with pytest.raises(NotConnected, match="cannot reach the pipe daemon"):
            link.open(Event(), end=True)

    run(main())


def test_it_comes_back_after_its_daemon(tmp_path: Path) -> None:
    async def main() -> None:
        async with worker(tmp_path) as (link, daemon):
            first = link.open(Event(), end=True)
            await daemon.frames(EVENT)
            await daemon.stop()
            with pytest.raises(StreamReset) as caught:
                await reply_of(first)
            assert (caught.value.code, caught.value.reset.delivered) == (
                Code.OUTCOME_UNKNOWN,
                Delivered.UNKNOWN,
            )
            assert not link.connected
            await daemon.start()
            await link.wait_connected()
            second = link.open(Event(), end=True)
            (_, frame) = await daemon.frames(EVENT, 2)
            daemon.session.send(frame.stream, frames.encode(REPLY, frame.stream, flags=END))
            await reply_of(second)

    run(main())


def test_an_event_that_was_still_here_when_the_link_broke_was_not_delivered(tmp_path: Path) -> None:
    async def main() -> None:
        async with worker(tmp_path) as (link, daemon):
            exchange = link.open(Event(), end=True)
            link._link.abort()  # type: ignore[union-attr]
            with pytest.raises(StreamReset) as caught:
                await reply_of(exchange)
            assert caught.value.reset.delivered is Delivered.NO
            assert EVENT not in daemon.owner.kinds()

    run(main())


def test_a_daemon_that_stops_in_good_order_is_no_cause_for_alarm_until_it_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with logged("restpipe.transport.daemon_link") as lines:
            async with worker(tmp_path) as (link, daemon):
                daemon.say(GOAWAY, Goaway(code=Code.SHUTDOWN, detail="stops").SerializeToString())
                await until(lambda: not link.connected)
                await daemon.stop()
                await until(lambda: any("cannot reach" in line for line in lines.texts))
                assert len(lines.texts) == 3
                assert lines.at_least(logging.WARNING) == []
                link._patient_until = 0.0
                await until(lambda: link._level == logging.WARNING)
                missed = lines.at_least(logging.WARNING)
                assert len(missed) == 1
                assert "cannot reach the pipe daemon" in missed[0]
                await daemon.start()
                await link.wait_connected()
                await daemon.stop()
                await until(lambda: len(lines.at_least(logging.WARNING)) > 1)

    run(main())


def test_a_refusal_is_said_once_and_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        with logged("restpipe.transport.daemon_link") as lines:
            async with worker(tmp_path, welcoming=False) as (link, daemon):
                await until(lambda: len(daemon.hellos) >= 3)
                assert not link.connected
                daemon.welcoming = True
                await link.wait_connected()
        assert "the pipe daemon is shutting down: full" in lines.at_least(logging.WARNING)

    run(main())


def test_a_daemon_that_goes_gets_no_new_events_but_finishes_the_old(tmp_path: Path) -> None:
    async def main() -> None:
        async with worker(tmp_path) as (link, daemon):
            old = link.open(Event(), end=True)
            (frame,) = await daemon.frames(EVENT)
            daemon.say(GOAWAY, Goaway(code=Code.SHUTDOWN, detail="stops").SerializeToString())
            await until(lambda: not link.connected)
            with pytest.raises(NotConnected, match="stops"):
                link.open(Event(), end=True)
            daemon.session.send(frame.stream, frames.encode(REPLY, frame.stream, flags=END))
            await reply_of(old)

    run(main())


def test_too_many_events_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(daemon_link, "MAX_EXCHANGES", 2)
        async with worker(tmp_path) as (link, _):
            one, _ = link.open(Event(), end=True), link.open(Event(), end=True)
            with pytest.raises(StreamReset) as caught:
                link.open(Event(), end=True)
            assert (caught.value.code, caught.value.reset.delivered) == (Code.OVERLOADED, Delivered.NO)
            one.reset(Code.CANCELLED)
            link.open(Event(), end=True)

    run(main())


def test_an_event_whose_head_fits_no_frame_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with worker(tmp_path) as (link, _):
            with pytest.raises(StreamReset) as caught:
                link.open(Event(target="x" * (MAX_HEAD + 1)), end=True)
            assert (caught.value.code, caught.value.reset.delivered) == (Code.BAD_REQUEST, Delivered.NO)
            assert link._exchanges == {}

    run(main())


# Handler workers.


def test_an_event_is_handed_over_with_who_sent_it(tmp_path: Path) -> None:
    async def main() -> None:
        exchanges: list[Exchange] = []
        async with worker(tmp_path, ROLE_HANDLER, on_event=exchanges.append) as (_, daemon):
            daemon.event(2, b"abc", end=False, verb="PUT")
            await until(handed(exchanges))
            (exchange,) = exchanges
            assert exchange.answers
            assert exchange.event.verb == "PUT"
            assert exchange.origin is not None
            assert (exchange.origin.peer, exchange.origin.address, exchange.origin.port) == (
                "alpha",
                "10.0.0.1",
                7,
            )
            assert await exchange.read() == b"abc"
            exchange.start_reply(Reply(code=5).SerializeToString(), b"done", end=True)
            (frame,) = await daemon.frames(REPLY)
            assert (frame.stream, frame.body, frame.ends) == (2, b"done", True)

    run(main())


def test_large_bodies_cross_a_real_link(tmp_path: Path) -> None:
    async def main() -> None:
        exchanges: list[Exchange] = []
        body = bytes(range(256)) * 12_000
        async with worker(tmp_path, ROLE_HANDLER, on_event=exchanges.append) as (_, daemon):
            daemon.event(2)
            await until(handed(exchanges))
            exchanges[0].start_reply(Reply().SerializeToString(), end=False)
            writer = asyncio.create_task(exchanges[0].write(body, end=True))
            window = frames.encode_credit(WINDOW, 2, 2 * MAX_BODY)
            granted = 0
            while not writer.done():
                got = sum(len(f.body) + 16 for f in daemon.owner.frames if f.kind == DATA)
                if got > granted:
                    daemon.session.send(2, window)
                    granted += 2 * MAX_BODY
                await asyncio.sleep(0)
            await until(lambda: daemon.owner.frames[-1].ends)
            assert b"".join(f.body for f in daemon.owner.frames if f.kind == DATA) == body

    run(main())


def test_an_event_that_cannot_be_read_is_refused_alone(tmp_path: Path) -> None:
    async def main() -> None:
        exchanges: list[Exchange] = []
        async with worker(tmp_path, ROLE_HANDLER, on_event=exchanges.append) as (link, daemon):
            daemon.session.send(2, frames.encode(ORIGIN, 2, Origin(peer="a").SerializeToString()))
            daemon.session.send(2, frames.encode(EVENT, 2, b"\xff\xff"))
            (frame,) = await daemon.frames(RESET)
            reset = read_reset(frame)
            assert (reset.code, reset.delivered) == (Code.BAD_MESSAGE, Delivered.NO)
            daemon.event(4)
            await until(handed(exchanges))
            assert link.connected

    run(main())


def test_an_event_of_nobody_breaks_the_link(tmp_path: Path) -> None:
    async def main() -> None:
        exchanges: list[Exchange] = []
        async with worker(tmp_path, ROLE_HANDLER, on_event=exchanges.append) as (_, daemon):
            daemon.session.send(2, frames.encode(EVENT, 2))
            await until(lambda: daemon.owner.lost)
            assert exchanges == []

    run(main())


def test_a_web_worker_is_sent_no_events(tmp_path: Path) -> None:
    async def main() -> None:
        async with worker(tmp_path) as (link, daemon):
            daemon.event(2)
            daemon.say(NOTICE, Notice().SerializeToString())
            daemon.say(PING, b"")  # not a u64: the link breaks, once all before was taken in
            await until(lambda: daemon.owner.lost)
            assert link._exchanges == {}
            assert link._origins == {}

    run(main())


def test_a_cancelled_event_tells_its_handler(tmp_path: Path) -> None:
    async def main() -> None:
        exchanges: list[Exchange] = []
        heard: list[Reset] = []
        async with worker(tmp_path, ROLE_HANDLER, on_event=exchanges.append) as (link, daemon):
            daemon.event(2, end=False)
            await until(handed(exchanges))
            exchanges[0].on_reset = heard.append
            daemon.session.send(2, encode_reset(2, Reset(Code.CANCELLED, "hung up")))
            await until(lambda: heard)
            assert heard[0].code is Code.CANCELLED
            assert link._exchanges == {}

    run(main())


def test_handlers_hear_of_a_lost_link(tmp_path: Path) -> None:
    async def main() -> None:
        exchanges: list[Exchange] = []
        heard: list[Reset] = []
        async with worker(tmp_path, ROLE_HANDLER, on_event=exchanges.append) as (_, daemon):
            for number in (2, 4):
                daemon.event(number)
            await until(handed(exchanges, 2))
            for exchange in exchanges:
                exchange.on_reset = heard.append
            daemon.link.abort()
            await until(lambda: len(heard) == 2)
            with pytest.raises(StreamReset):
                exchanges[0].start_reply(Reply().SerializeToString(), end=True)

    run(main())


def test_notices_are_handed_over_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        notices: list[Notice] = []
        async with worker(tmp_path, ROLE_HANDLER, on_notice=notices.append) as (_, daemon):
            for name in ("a", "b", "c"):
                notice = Notice(kind=Notice.CONNECTION_ADDED, peer=name)
                daemon.say(NOTICE, notice.SerializeToString())
            await until(lambda: len(notices) == 3)
            assert [notice.peer for notice in notices] == ["a", "b", "c"]

    run(main())


def test_capacity_is_told_now_and_to_the_next_daemon(tmp_path: Path) -> None:
    async def main() -> None:
        async with worker(tmp_path, ROLE_HANDLER, capacity=1) as (link, daemon):
            link.set_capacity(9)
            (frame,) = await daemon.frames(CAPACITY)
            assert frames.decode_credit(frame) == 9
            daemon.link.abort()
            await until(lambda: len(daemon.hellos) == 2)
            assert [hello.capacity for hello in daemon.hellos] == [1, 9]

    run(main())


# Draining.


def test_draining_finishes_what_is_under_way_and_refuses_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        exchanges: list[Exchange] = []
        async with worker(tmp_path, ROLE_HANDLER, on_event=exchanges.append) as (link, daemon):
            daemon.event(2)
            await until(handed(exchanges))
            draining = asyncio.create_task(link.drain(PATIENT))
            await daemon.frames(GOAWAY)
            daemon.event(4)
            (frame,) = await daemon.frames(RESET)
            reset = read_reset(frame)
            assert (frame.stream, reset.code, reset.delivered) == (4, Code.DRAINING, Delivered.NO)
            assert not draining.done()
            assert not link.connected
            exchanges[0].start_reply(Reply().SerializeToString(), b"last", end=True)
            await draining
            (frame,) = await daemon.frames(REPLY)
            assert frame.body == b"last"
            await until(lambda: daemon.owner.lost)
            assert len(exchanges) == 1
            assert len(daemon.hellos) == 1

    run(main())


def test_draining_hears_out_what_crossed_it_on_the_way(tmp_path: Path) -> None:
    """Else the daemon could not know that the event never ran."""

    async def main() -> None:
        exchanges: list[Exchange] = []
        async with worker(tmp_path, ROLE_HANDLER, on_event=exchanges.append) as (link, daemon):
            assert daemon.link.transport is not None
            daemon.link.transport.pause_reading()
            draining = asyncio.create_task(link.drain(PATIENT))
            for _ in range(20):
                await asyncio.sleep(0)
            daemon.event(2)
            daemon.link.transport.resume_reading()
            (frame,) = await daemon.frames(RESET)
            assert read_reset(frame).delivered == Delivered.NO
            await draining
            assert not exchanges

    run(main())


def test_draining_writes_a_reply_to_its_end_even_if_the_daemon_reads_slowly(tmp_path: Path) -> None:
    async def main() -> None:
        exchanges: list[Exchange] = []
        async with worker(tmp_path, ROLE_HANDLER, on_event=exchanges.append) as (link, daemon):
            daemon.event(2)
            await until(handed(exchanges))
            for _ in range(14):
                daemon.session.send(2, frames.encode_credit(WINDOW, 2, MAX_BODY))
            await asyncio.sleep(0)
            await until(lambda: exchanges[0]._credit >= 15 * MAX_BODY)
            assert daemon.link.transport is not None
            daemon.link.transport.pause_reading()
            exchanges[0].start_reply(Reply().SerializeToString(), end=False)
            await exchanges[0].write(bytes(14 * MAX_BODY), end=True)
            draining = asyncio.create_task(link.drain(PATIENT))
            for _ in range(50):
                await asyncio.sleep(0)
            assert not draining.done()
            daemon.link.transport.resume_reading()
            await draining
            await until(lambda: daemon.owner.lost)
            body = b"".join(frame.body for frame in daemon.owner.frames if frame.kind == DATA)
            assert len(body) == 14 * MAX_BODY

    run(main())


def test_draining_hears_that_the_last_reply_has_been_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the daemon writes to a link that is closed already would keep it from reading what is in there."""
    monkeypatch.setattr(restpipe.transport.link, "POLL_S", 0.0)

    async def main() -> None:
        exchanges: list[Exchange] = []
        async with worker(tmp_path, ROLE_HANDLER, on_event=exchanges.append) as (link, daemon):
            daemon.event(2)
            await until(handed(exchanges))
            draining = asyncio.create_task(link.drain(PATIENT))
            await until(lambda: link._idle._waiters)  # type: ignore[attr-defined]
            assert daemon.link.transport is not None
            daemon.link.transport.pause_reading()
            exchanges[0].start_reply(Reply().SerializeToString(), b"last", end=True)
            for _ in range(50):
                await asyncio.sleep(0)
            daemon.say(NOTICE, Notice().SerializeToString())
            await asyncio.sleep(0)
            daemon.link.transport.resume_reading()
            (frame,) = await daemon.frames(REPLY)
            assert frame.body == b"last"
            await draining

    run(main())


def test_draining_is_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        exchanges: list[Exchange] = []
        with logged("restpipe.transport.daemon_link") as lines:
            async with worker(tmp_path, ROLE_HANDLER, on_event=exchanges.append) as (link, daemon):
                daemon.event(2)
                await until(handed(exchanges))
                await link.drain(0.01)
                await until(lambda: daemon.owner.lost)
        assert "1 events were still in flight after 0.01 s" in lines.texts

    run(main())


def test_draining_without_a_link_is_over_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        link = DaemonLink(str(tmp_path / "nobody.sock"), ROLE_WEB)
        await link.drain(PATIENT)
        await link.run()

    run(main())


PATIENT = 15.0
