from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from restpipe.daemon import dialing
from restpipe.daemon.channel import Channel
from restpipe.daemon.dialing import Dialing
from restpipe.daemon.trust import Refused
from restpipe.errors import Code, Delivered
from restpipe.host import stats as metrics
from restpipe.host.config import Address, Pipe
from restpipe.protocol import frames
from restpipe.protocol.connection import Side, new_session_id
from restpipe.protocol.messages import encode_goaway, read_reset
from restpipe.protocol.schema_pb2 import Event, Hello
from restpipe.protocol.session import Session
from restpipe.transport.dialer import Disappointments
from restpipe.transport.link import Link
from tests.unit.daemon.ends import BUFFER, House
from tests.unit.daemon.kit import event, resets, session, taken
from tests.unit.transport.kit import Recorder, connection, logged, run, until

ADDRESSES = (Address("one.example", 1), Address("two.example", 2))
PIPE = Pipe(
    servers=tuple(f"{host}:{port}" for host, port in ADDRESSES),
    reconnect_min_s=0.001,
    reconnect_max_s=0.002,
    session_buffer_bytes=BUFFER,
)


class FakeServer(Recorder):
    """Answers HELLOs with a session that it knows, else with a new one; it may refuse, or be away."""

    def __init__(self) -> None:
        super().__init__(self._greet)
        self.hellos: list[Hello] = []
        self.session: Session | None = None
        self.before_greeting: Callable[[], None] = lambda: None
        self.refusal = ""
        self.refusal_code = Code.TOO_MANY_LINKS
        self.away: OSError | None = None
        self.dialed: list[tuple[str, int]] = []
        self.how: dict[str, object] = {}
        """What the latest dial was told."""

    async def dial(
        self, host: str, port: int, context: object, make_link: Callable[[], Link], **how: object
    ) -> Link:
        """In place of the real one."""
        self.dialed.append((host, port))
        self.how = how
        if self.away is not None:
            raise self.away
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        await loop.create_connection(lambda: Link(connection(Side.LISTENER), self, loop), sock=far)
        link = make_link()
        await loop.create_connection(lambda: link, sock=near)
        link.peer_address = ("10.0.0.1", port)
        return link

    def _greet(self, link: Link, hello: Hello) -> None:
        self.hellos.append(hello)
        self.before_greeting()
        if self.refusal:
            link.close(self.refusal_code, self.refusal)
            return
        if self.session is None or hello.session != self.session.id:
            self.session = Session(new_session_id(), BUFFER)
        link.connection.accept(self.session, hello, now=asyncio.get_running_loop().time())
        self.session.attach(link.wake)

    @property
    def link(self) -> Link:
        return self.made[-1]


class FakeTrust:
    context = None

    def __init__(self) -> None:
        self.refusal: Refused | None = None

    def admit(self, link: Link) -> None:
        if self.refusal is not None:
            raise self.refusal

    def joined(self, link: Link, peer: object) -> None:
        """Nothing to remember."""

    forget = admit


class Counts:
    """In place of statsd."""

    def __init__(self) -> None:
        self.ticks: list[str] = []
        self.timings: list[str] = []

    def tick(self, name: str, n: int = 1) -> None:
        self.ticks.append(name)

    def timing(self, name: str, seconds: float) -> None:
        self.timings.append(name)


class Client(House):
    def __init__(self, heartbeat_s: float) -> None:
        super().__init__(client=True)
        self.far = FakeServer()
        self.trust = FakeTrust()
        self.counts = Counts()
        self.failures: list[int] = []
        assert self.server is not None
        self.dialing = Dialing(
            self.server,
            self.links,
            self.trust,  # type: ignore[arg-type]
            self.counts,  # type: ignore[arg-type]
            dataclasses.replace(PIPE, heartbeat_interval_s=heartbeat_s),
            failed=lambda attempts, _: self.failures.append(attempts),
        )

    @property
    def online(self) -> bool:
        assert self.server is not None
        return self.server.online

    @property
    def here(self) -> Channel:
        assert self.server is not None
        assert self.server.channel is not None
        return self.server.channel


@asynccontextmanager
async def client(
    monkeypatch: pytest.MonkeyPatch, *, heartbeat_s: float = 60.0, away: bool = False
) -> AsyncIterator[Client]:
    house = Client(heartbeat_s)
    if away:
        house.far.away = ConnectionRefusedError(111, "refused")
    monkeypatch.setattr(dialing, "dial", house.far.dial)
    task = asyncio.create_task(house.dialing.run())
    try:
        if not away:
            await until(lambda: house.online)
        yield house
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for link in (*house.far.made, *house.links.all()):
            link.abort()
        await until(lambda: len(house.far.lost) == len(house.far.made) and len(house.links) == 0)
        await house.close()


def test_it_connects_and_begins_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with client(monkeypatch) as house:
            assert house.far.dialed == [("one.example", 1)]
            assert house.far.hellos[0].session == b""
            assert house.far.session is not None
            assert house.here.session.id == house.far.session.id
            assert house.here.next_number % 2 == 1
            assert house.counts.ticks == [metrics.CONNECT_NEW, metrics.CONNECTED]
            assert house.news == ["server joined"]

    run(main())


def test_a_broken_link_is_dialed_again_at_once_and_its_session_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with client(monkeypatch) as house:
            before, sender = house.here, Channel(session(), Side.LISTENER)
            house.router.from_sender(sender, [event(1)], 0.0)
            await until(lambda: frames.EVENT in house.far.kinds())
            number = house.far.frames[-1].stream
            house.far.link.abort()
            await until(lambda: len(house.far.hellos) == 2 and house.online)
            assert house.here is before
            assert house.far.hellos[1].session == before.session.id
            assert house.dialing.broken_at > 0
            assert metrics.BROKEN in house.counts.ticks
            assert house.dialing.attempts == 0
            assert house.far.session is not None
            house.far.session.send(
                number, frames.encode(frames.REPLY, number, body=b"late but whole", flags=frames.END)
            )
            await until(lambda: sender.session.queue)
            assert taken(sender)[0].body == b"late but whole"

    run(main())


def test_a_server_that_was_restarted_begins_another_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with client(monkeypatch) as house:
            sender = Channel(session(), Side.LISTENER)
            house.router.from_sender(sender, [event(1)], 0.0)
            await until(lambda: frames.EVENT in house.far.kinds())
            before = house.here
            house.far.session = None
            house.far.link.abort()
            await until(lambda: house.here is not before and house.online)
            (frame,) = taken(sender)
            reset = read_reset(frame)
            assert reset.code is Code.OUTCOME_UNKNOWN
            assert "the server began a new session" in reset.detail
            assert house.settled()

    run(main())


def test_a_server_that_says_nothing_is_told_with_what_may_be_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        with logged("restpipe.daemon.dialing") as lines:
            async with client(monkeypatch, away=True) as house:
                house.far.away = TimeoutError()
                await until(lambda: len(house.far.dialed) >= 6)
            told = [line for line in lines.at_least(logging.WARNING) if "no TLS handshake in time" in line]
        assert len(told) == 1
        assert "large packets are lost on the way" in told[0]

    run(main())


def test_addresses_are_tried_in_turn_and_failures_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with logged("restpipe.daemon.dialing") as lines:
            async with client(monkeypatch, away=True) as house:
                await until(lambda: len(house.far.dialed) >= 4)
                assert house.failures[:3] == [1, 2, 3]
                house.far.away = None
                await until(lambda: house.online)
                assert house.dialing.attempts == 0
                assert house.far.dialed[:4] == [("one.example", 1), ("two.example", 2)] * 2
        # The same failure again is no news.
        assert lines.at_least(30) == ["cannot connect to one.example:1: Connection refused"]

    run(main())


def test_the_address_that_worked_is_the_one_to_come_back_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other server would know nothing of the session."""

    async def main() -> None:
        async with client(monkeypatch) as house:
            for links in (2, 3):
                house.far.link.abort()
                await until(lambda n=links: len(house.far.hellos) == n and house.online)
            assert set(house.far.dialed) == {("one.example", 1)}

    run(main())


def test_a_client_that_was_told_its_turn_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        turns: list[tuple[float, float]] = []
        monkeypatch.setattr(
            dialing.Redial, "take_turn", lambda _, turn_s, round_s: turns.append((turn_s, round_s))
        )
        monkeypatch.setattr(dialing.Redial, "after_link_s", lambda _, stood_s, alone: turns[-1][0])
        async with client(monkeypatch) as house:
            house.far.link.send_control(frames.encode_turn(0.2, 0.4))
            await until(lambda: turns)
            assert turns == [(0.2, 0.4)]
            broken_at = asyncio.get_running_loop().time()
            house.far.link.abort()
            await until(lambda: len(house.far.hellos) == 2)
            assert asyncio.get_running_loop().time() - broken_at >= 0.2

    run(main())


@pytest.mark.parametrize(
    ("code", "alone"),
    [
        (Code.REVOKED, True),
        (Code.SHUTDOWN, False),
        (Code.AUTHORITY_GONE, False),
        (Code.HEARTBEAT, False),
        (None, False),
    ],
)
def test_a_goodbye_that_concerns_this_client_alone_is_told_from_the_others(
    monkeypatch: pytest.MonkeyPatch, code: Code | None, alone: bool
) -> None:
    async def main() -> None:
        told: list[bool] = []

        def after_link_s(_: object, stood_s: float, *, alone: bool) -> float:
            told.append(alone)
            return 0.0

        monkeypatch.setattr(dialing.Redial, "after_link_s", after_link_s)
        async with client(monkeypatch) as house:
            if code is None:
                house.far.link.abort()
            else:
                house.far.link.close(code, "goodbye")
            await until(lambda: len(house.far.hellos) == 2 and house.online)
            # What the one before said is nothing to the next.
            house.far.link.abort()
            await until(lambda: len(house.far.hellos) == 3 and house.online)
            assert told == [alone, False]

    run(main())


def test_a_refusal_is_told_in_the_servers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with logged("restpipe.daemon.dialing") as lines:
            async with client(monkeypatch, away=True) as house:
                house.far.refusal, house.far.away = "full", None
                await until(lambda: len(house.far.hellos) >= 3)
                assert not house.online
                assert house.news == []
                house.far.refusal = ""
                await until(lambda: house.online)
        assert any("refused by the server: full" in line for line in lines.at_least(30))

    run(main())


def test_a_server_that_stops_and_takes_nobody_new_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with logged("restpipe.daemon.dialing") as lines:
            async with client(monkeypatch) as house:
                house.far.refusal, house.far.refusal_code = "the daemon stops", Code.SHUTDOWN
                house.far.session = None
                before = len(house.far.hellos)
                house.far.link.abort()
                await until(lambda: len(house.far.hellos) >= before + 4)
                assert house.failures == []
                assert house.dialing.attempts == 0
                # Another refusal is one.
                house.far.refusal_code = Code.TOO_MANY_LINKS
                await until(lambda: house.failures)
                house.far.refusal = ""
                await until(lambda: house.online)
        told = [line for line in lines.at_least(logging.INFO) if "the daemon stops" in line]
        assert "refused by the server: the daemon stops" in told[0]
        assert told[0] not in lines.at_least(logging.WARNING)

    run(main())


def test_an_address_that_gives_no_welcome_is_remembered_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with client(monkeypatch, away=True) as house:
            house.far.refusal, house.far.away = "full", None
            await until(lambda: len(house.far.lost) >= 4)
            past = house.far.how["disappointments"]
            assert isinstance(past, Disappointments)
            assert set(past._addresses) == {("10.0.0.1", 1), ("10.0.0.1", 2)}
            house.far.refusal = ""
            await until(lambda: house.online)
            assert len(past._addresses) == 1

    run(main())


def test_a_server_whose_certificate_is_not_good_is_not_greeted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with client(monkeypatch, away=True) as house:
            house.trust.forget = lambda link: None  # type: ignore[method-assign]
            house.trust.refusal = Refused(Code.REVOKED, "server", "it is revoked")
            house.far.away = None
            await until(lambda: len(house.far.lost) >= 2)
            assert house.far.hellos == []
            house.trust.refusal = None
            await until(lambda: house.online)

    run(main())


def test_a_session_given_up_amid_the_handshake_is_not_taken_for_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with client(monkeypatch) as house:
            before = house.here
            assert house.server is not None

            def give_up() -> None:
                house.far.before_greeting = lambda: None
                assert house.server is not None
                house.links.forget_session(house.server, "its time was up")

            house.far.before_greeting = give_up
            house.far.link.abort()
            await until(lambda: len(house.far.hellos) == 3)
            await until(lambda: house.online)
            assert house.far.hellos[1].session == before.session.id
            assert house.far.hellos[2].session == b""
            assert house.here is not before
            house.router.from_sender(Channel(session(), Side.LISTENER), [event(1)], 0.0)
            await until(lambda: frames.EVENT in house.far.kinds())

    run(main())


def test_a_session_in_which_the_protocol_was_broken_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with client(monkeypatch) as house:
            before = house.here
            head = Event(verb="GET", timeout_ms=60_000).SerializeToString()
            assert house.far.link.transport is not None
            house.far.link.transport.write(
                frames.encode(frames.EVENT, 2, head) + frames.encode(frames.PING, body=b"bad")
            )
            await until(lambda: len(house.far.hellos) == 2 and house.online)
            assert house.far.hellos[1].session == b""
            assert house.here is not before

    run(main())


def test_a_server_that_goes_is_sent_no_more_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with client(monkeypatch) as house:
            house.far.link.send_control(encode_goaway(Code.SHUTDOWN, "stops"))
            await until(lambda: not house.online)
            assert len(house.links) == 1
            sender = Channel(session(), Side.LISTENER)
            house.router.from_sender(sender, [event(1)], 0.0)
            assert house.here.routes == {}
            house.far.link.abort()
            await until(lambda: frames.EVENT in house.far.kinds())

    run(main())


def test_what_is_under_way_with_a_server_that_stops_is_answered_for_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with client(monkeypatch) as house:
            sender = Channel(session(), Side.LISTENER)
            house.router.from_sender(sender, [event(1)], 0.0)
            await until(lambda: frames.EVENT in house.far.kinds())
            house.far.away = OSError("nobody listens")
            house.far.link.close(Code.SHUTDOWN, "stops")
            await until(lambda: not len(house.links))
            (reset,) = resets(taken(sender))
            assert (reset.code, reset.delivered) == (Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN)
            house.far.away = None
            await until(lambda: house.online)
            assert house.far.hellos[-1].session == b""

    run(main())


def test_heartbeats_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with client(monkeypatch, heartbeat_s=0.02) as house:
            await until(lambda: house.counts.ticks.count(metrics.HEARTBEAT_SUCCESS) >= 2)
            assert metrics.HEARTBEAT_TIME in house.counts.timings
            assert house.far.link.transport is not None
            house.far.link.transport.pause_reading()
            await until(lambda: metrics.HEARTBEAT_FAIL in house.counts.ticks)

    run(main())


def test_once_stopped_it_dials_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with client(monkeypatch) as house:
            house.dialing.stop()
            assert house.online
            house.far.link.abort()
            await until(lambda: not house.online)
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(house.far.dialed) == 1

    run(main())


def test_other_addresses_are_dialed_at_once_and_by_the_new_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with client(monkeypatch, away=True) as house:
            slow = dataclasses.replace(PIPE, reconnect_min_s=3600.0, reconnect_max_s=3600.0)
            house.dialing.configure(slow)
            tried = len(house.far.dialed)
            await until(lambda: len(house.far.dialed) > tried)
            # Now it waits for an hour at the most; half of that on average.
            house.far.away = None
            house.dialing.configure(dataclasses.replace(slow, servers=("three.example:3",)))
            await until(lambda: house.online)
            assert house.far.dialed[-1] == ("three.example", 3)

    run(main())


def test_a_link_that_is_up_stays_when_the_addresses_change(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with client(monkeypatch) as house:
            house.dialing.configure(dataclasses.replace(PIPE, servers=("three.example:3",)))
            assert house.online
            assert len(house.far.dialed) == 1
            house.far.link.abort()
            await until(lambda: len(house.far.dialed) > 1 and house.online)
            assert house.far.dialed[1] == ("three.example", 3)

    run(main())
