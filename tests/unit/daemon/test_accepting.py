from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restpipe.daemon import accepting
from restpipe.daemon.accepting import Accepting
from restpipe.daemon.channel import Channel
from restpipe.daemon.peers import Peer
from restpipe.daemon.pool import Worker
from restpipe.daemon.trust import Refused
from restpipe.errors import Code, Delivered
from restpipe.protocol import frames
from restpipe.protocol.connection import Side
from restpipe.protocol.messages import read_message, read_reset
from restpipe.protocol.schema_pb2 import ROLE_HANDLER, ROLE_PIPE, Goaway, Hello, Welcome
from restpipe.protocol.session import Session
from restpipe.transport.link import Link
from tests.unit.daemon.ends import BUFFER, Caller, House, linked
from tests.unit.daemon.kit import event, session, taken
from tests.unit.transport.kit import logged, run, until


class Named(NamedTuple):
    name: str


class FakeTrust:
    """Lets everybody in under the name that the test says next."""

    def __init__(self) -> None:
        self.name = "alpha"
        self.refusal: Refused | None = None
        self.watched: set[Link] = set()

    def admit(self, link: Link) -> Any:
        if self.refusal is not None:
            raise self.refusal
        self.watched.add(link)
        return Named(self.name)

    def joined(self, link: Link, peer: Peer) -> None:
        assert link in self.watched

    def forget(self, link: Link) -> None:
        self.watched.discard(link)


class Port(House):
    """The server's end of the pipe, without sockets and certificates."""

    def __init__(self, *, max_clients: int = 10, session_life_s: float = 300.0) -> None:
        super().__init__(session_life_s=session_life_s)
        self.trust = FakeTrust()
        self.accepting = Accepting(
            self.peers,
            self.links,
            self.trust,  # type: ignore[arg-type]
            buffer_size=BUFFER,
            max_clients=max_clients,
        )
        self.callers: list[Caller] = []

    async def dial(self, name: str = "alpha", *, session: Session | None = None) -> Caller:
        self.trust.name = name
        self.callers.append(await Caller.dial(self.accepting, ROLE_PIPE, session=session))
        return self.callers[-1]

    async def join(self, name: str = "alpha", *, session: Session | None = None) -> Caller:
        caller = await (await self.dial(name, session=session)).welcomed()
        await until(lambda: self.online(name))
        return caller

    def online(self, name: str) -> bool:
        peer = self.peers.get(name)
        return peer is not None and peer.online


@asynccontextmanager
async def port(**how: Any) -> AsyncIterator[Port]:
    house = Port(**how)
    try:
        yield house
    finally:
        for contender in house.accepting._contenders.values():
            contender.timer.cancel()
        for caller in house.callers:
            await caller.leave()
        await until(lambda: not house.accepting._names)
        assert len(house.links) == 0
        assert house.links._peers == {}
        assert house.trust.watched == set()
        await house.close()


def freeze(caller: Caller) -> None:
    """From now on it answers nothing, as if its host had vanished."""
    assert caller.link is not None
    assert caller.link.transport is not None
    caller.link.transport.pause_reading()


def test_a_client_comes_under_the_name_in_its_certificate() -> None:
    async def main() -> None:
        async with port() as house:
            caller = await house.join("alpha")
            (frame,) = await caller.got(frames.WELCOME)
            welcome = read_message(Welcome(), frame)
            assert (welcome.name, welcome.resumed) == ("alpha", False)
            assert house.online("alpha")
            assert house.news == ["alpha joined"]
            await caller.leave()
            await until(lambda: not house.online("alpha"))
            assert house.news == ["alpha joined", "alpha left"]

    run(main())


def test_a_session_goes_on_where_it_was() -> None:
    async def main() -> None:
        async with port() as house:
            first = await house.join()
            session = first.session
            channel = house.channel("alpha")
            first.open(1, timeout_s=3600)
            await until(lambda: channel.routes)
            await first.leave()
            await until(lambda: not house.online("alpha"))
            assert channel.routes, "what is under way outlives the link"

            second = await house.join(session=session)
            assert second.link is not None
            assert second.link.connection.resumed
            assert second.session is session
            assert house.channel("alpha") is channel
            assert set(channel.routes) == {1}

    run(main())


def test_the_same_session_takes_over_at_once_from_a_link_that_seems_alive() -> None:
    async def main() -> None:
        async with port() as house:
            first = await house.join()
            freeze(first)
            channel = house.channel("alpha")
            second = await house.join(session=first.session)
            assert second.link is not None
            assert second.link.connection.resumed
            assert house.channel("alpha") is channel
            assert house.accepting.conflicts == 0
            assert house.online("alpha")
            assert first.link is not None
            assert first.link.transport is not None
            first.link.transport.resume_reading()
            await until(lambda: first.lost)
            await until(lambda: len(house.accepting._names) == 1)
            assert house.online("alpha")

    run(main())


def test_another_session_of_the_same_name_is_refused_while_the_older_is_alive() -> None:
    async def main() -> None:
        async with port() as house:
            older = await house.join()
            with logged("restpipe.daemon.accepting") as lines:
                newer = await house.dial()
                goaway = await newer.told_to_go()
            assert goaway.code == Code.NAME_IN_USE
            assert house.accepting.conflicts == 1
            assert "two machines have the same certificate" in lines.texts[0]
            assert house.online("alpha")
            assert not older.lost
            older.open(1)
            await until(lambda: house.channel("alpha").routes)

    run(main())


def test_another_session_of_the_same_name_wins_if_the_older_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(accepting, "CONFLICT_WAIT_S", 0.05)
        async with port() as house:
            older = await house.join()
            channel = house.channel("alpha")
            older.open(1, timeout_s=3600)
            await until(lambda: channel.routes)
            freeze(older)
            newer = await house.join()
            assert newer.link is not None
            assert not newer.link.connection.resumed
            assert house.channel("alpha") is not channel
            assert channel.routes == {}
            assert house.accepting.conflicts == 0
            assert house.online("alpha")
            assert house.news == ["alpha joined", "alpha left", "alpha joined"]

    run(main())


def test_a_contender_need_not_wait_when_the_older_goes_by_itself() -> None:
    async def main() -> None:
        async with port() as house:
            older = await house.join()
            freeze(older)
            newer = await house.dial()
            await until(lambda: house.accepting._contenders)
            await older.leave()
            await newer.welcomed()
            await until(lambda: house.online("alpha"))

    run(main())


def test_a_second_contender_is_refused_but_not_one_after_the_first_has_left() -> None:
    async def main() -> None:
        async with port() as house:
            older = await house.join()
            freeze(older)
            first = await house.dial()
            await until(lambda: house.accepting._contenders)
            goaway = await (await house.dial()).told_to_go()
            assert goaway.code == Code.NAME_IN_USE
            await first.leave()
            await until(lambda: not house.accepting._contenders)
            third = await house.dial()
            await until(lambda: house.accepting._contenders)
            await older.leave()
            await third.welcomed()

    run(main())


def test_a_dead_link_is_not_replaced_by_a_contender_that_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with port() as house:
            older = await house.join()
            freeze(older)
            newer = await house.dial()
            await until(lambda: house.accepting._contenders)
            (contender,) = house.accepting._contenders.values()
            await newer.leave()
            await until(lambda: not house.accepting._contenders)
            assert contender.timer.cancelled()
            assert house.online("alpha")

    run(main())


def test_a_session_in_which_the_protocol_was_broken_does_not_go_on() -> None:
    async def main() -> None:
        async with port() as house:
            first = await house.join()
            session, channel = first.session, house.channel("alpha")
            assert first.link is not None
            # The event is lost with the bad frame behind it: whoever went on would never know.
            first.open(1)
            assert first.link.transport is not None
            first.link.transport.write(
                b"".join(session.take(1 << 20)) + frames.encode(frames.PING, body=b"bad")
            )
            goaway = await first.told_to_go()
            assert goaway.code == Code.BAD_FRAME
            second = await house.join(session=session)
            assert second.link is not None
            assert not second.link.connection.resumed
            assert house.channel("alpha") is not channel

    run(main())


def test_a_resume_that_cannot_be_is_refused_and_the_session_kept() -> None:
    async def main() -> None:
        async with port() as house:
            first = await house.join()
            session = first.session
            await first.leave()
            await until(lambda: not house.online("alpha"))
            impostor = Session(session.id, BUFFER)
            impostor.received = 99
            goaway = await (await house.dial(session=impostor)).told_to_go()
            assert goaway.code == Code.BAD_FRAME
            assert not house.online("alpha")

    run(main())


def test_a_stale_greeting_costs_the_good_link_nothing() -> None:
    """One that was under way so long that the session has gone on meanwhile."""

    async def main() -> None:
        async with port() as house:
            caller = await house.join()
            channel = house.channel("alpha")
            stale = Session(caller.session.id, BUFFER)
            sender = Channel(session(), Side.LISTENER)
            house.router.from_sender(sender, [event(1, "alpha")], 0.0)
            await caller.got(frames.EVENT)
            assert caller.link is not None
            caller.link.connection.ping(0.0)
            caller.link.wake()
            await until(lambda: channel.session.acknowledged == 1)
            goaway = await (await house.dial(session=stale)).told_to_go()
            assert goaway.code == Code.BAD_FRAME
            assert house.online("alpha")
            assert not caller.lost
            caller.open(1)
            await until(lambda: 1 in channel.routes)

    run(main())


def test_a_session_belongs_to_its_name() -> None:
    async def main() -> None:
        async with port() as house:
            alpha = await house.join("alpha")
            channel = house.channel("alpha")
            beta = await house.join("beta", session=Session(alpha.session.id, BUFFER))
            assert beta.link is not None
            assert not beta.link.connection.resumed
            assert house.channel("beta") is not channel
            assert house.channel("alpha") is channel
            assert not alpha.lost

    run(main())


def test_a_session_without_a_link_is_given_up_in_the_end() -> None:
    async def main() -> None:
        async with port(session_life_s=0.05) as house:
            first = await house.join()
            channel = house.channel("alpha")
            first.open(1, timeout_s=3600)
            await until(lambda: channel.routes)
            await first.leave()
            peer = house.peers.get("alpha")
            assert peer is not None
            with logged("restpipe.daemon.links") as lines:
                await until(lambda: peer.channel is None)
            assert channel.routes == {}
            assert "did not come back within 0.05 s" in lines.texts[-1]
            second = await house.join(session=first.session)
            assert second.link is not None
            assert not second.link.connection.resumed

    run(main())


def test_who_is_refused_hears_why() -> None:
    async def main() -> None:
        async with port() as house:
            house.trust.refusal = Refused(Code.REVOKED, "alpha", "it is revoked")
            with logged("restpipe.daemon.accepting") as lines:
                goaway = await (await house.dial()).told_to_go()
            assert (goaway.code, goaway.detail) == (Code.REVOKED, "it is revoked")
            assert len(lines.texts) == 1
            assert "alpha is refused: it is revoked" in lines.texts[0]

    run(main())


def test_too_many_clients_are_refused() -> None:
    async def main() -> None:
        async with port(max_clients=2) as house:
            await house.join("alpha")
            beta = await house.join("beta")
            goaway = await (await house.dial("gamma")).told_to_go()
            assert goaway.code == Code.TOO_MANY_LINKS
            await beta.leave()
            await until(lambda: not house.online("beta"))
            await house.join("gamma")

    run(main())


def test_a_client_that_comes_back_by_another_way_is_not_one_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its address has changed: nobody has told the server yet that the older link is dead."""

    async def main() -> None:
        monkeypatch.setattr(accepting, "SPARE_LINKS", 1)
        async with port(max_clients=2) as house:
            first = await house.join("alpha")
            await house.join("beta")
            freeze(first)
            again = await house.join("alpha", session=first.session)
            assert again.link is not None
            assert again.link.connection.resumed
            await first.leave()
            await until(lambda: len(house.accepting._names) == 2)
            # Room for it is bounded, too: so many greetings may be missing.
            link, sock = await linked(house.accepting)
            with sock:
                goaway = await (await house.dial("beta")).told_to_go()
                assert goaway.code == Code.TOO_MANY_LINKS
                link.abort()

    run(main())


def test_more_clients_than_can_be_known_are_refused() -> None:
    async def main() -> None:
        async with port() as house:
            house.peers.limit = 1
            await house.join("alpha")
            goaway = await (await house.dial("beta")).told_to_go()
            assert (goaway.code, goaway.detail) == (Code.TOO_MANY_LINKS, "too many clients are known already")

    run(main())


def test_only_daemons_talk_to_this_port() -> None:
    async def main() -> None:
        async with port() as house:
            house.callers.append(await Caller.dial(house.accepting, ROLE_HANDLER))
            goaway = await house.callers[-1].told_to_go()
            assert goaway.code == Code.HANDSHAKE

    run(main())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "the first bytes are not RestPipe's"),
        (
            frames.encode(frames.HELLO, head=Hello(major=9).SerializeToString()),
            "speaks version 9 of the protocol",
        ),
        (frames.encode(frames.HELLO, head=b"\xff\xff"), "no Hello"),
        (
            frames.encode(frames.GOAWAY, head=Goaway(detail="changed my mind").SerializeToString()),
            "changed my mind",
        ),
        (b"\x80" + b"\xff" * 15, "a body of"),
    ],
)
def test_nonsense_is_one_clear_line(data: bytes, said: str) -> None:
    async def main() -> None:
        async with port() as house:
            other = await house.join("other")
            loop = asyncio.get_running_loop()
            with logged("restpipe.daemon.accepting") as lines:
                link, sock = await linked(house.accepting)
                with sock:
                    await loop.sock_sendall(sock, data)
                    await until(lambda: link.transport is None)
            (line,) = lines.texts
            assert said in line
            assert "\n" not in line
            other.open(1)
            await until(lambda: house.channel("other").routes)

    run(main())


def test_a_peer_that_goes_is_sent_no_more() -> None:
    async def main() -> None:
        async with port() as house:
            caller = await house.join()
            assert caller.link is not None
            caller.link.send_control(caller.link.connection.goodbye(Code.SHUTDOWN, "stops"))
            await until(lambda: not house.online("alpha"))
            assert not caller.lost
            assert house.news == ["alpha joined"]

    run(main())


def test_what_is_under_way_with_a_client_that_stops_is_answered_for_at_once() -> None:
    async def main() -> None:
        async with port() as house:
            caller = await house.join()
            sender = Channel(session(), Side.LISTENER)
            house.router.from_sender(sender, [event(1, "alpha")], 0.0)
            await caller.got(frames.EVENT)
            # The last of these comes when the client has said that it takes no more.
            house.router.from_sender(sender, [event(3, "alpha")], 0.0)
            goes(caller, Code.SHUTDOWN)
            house.router.from_sender(sender, [event(5, "alpha")], 0.0)
            await until(lambda: not len(house.links))
            told = {frame.stream: read_reset(frame) for frame in taken(sender)}
            assert {stream: (reset.code, reset.delivered) for stream, reset in told.items()} == {
                1: (Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN),
                3: (Code.DRAINING, Delivered.NO),
            }
            assert house.links.expected == 0
            again = await house.join(session=caller.session)
            assert again.session.id != caller.session.id
            await again.got(frames.EVENT)
            assert not taken(sender)

    run(main())


@pytest.mark.parametrize("code", [Code.AUTHORITY_GONE, Code.REVOKED, Code.HEARTBEAT])
def test_a_client_that_leaves_for_another_reason_goes_on_where_it_was(code: Code) -> None:
    async def main() -> None:
        async with port() as house:
            caller = await house.join()
            sender = Channel(session(), Side.LISTENER)
            house.router.from_sender(sender, [event(1, "alpha")], 0.0)
            (asked,) = await caller.got(frames.EVENT)
            goes(caller, code)
            await until(lambda: not len(house.links))
            again = await house.join(session=caller.session)
            assert again.link is not None
            assert again.link.connection.resumed
            again.reply(asked.stream)
            await until(house.settled)
            assert [frame.kind for frame in taken(sender)] == [frames.REPLY]

    run(main())


def goes(caller: Caller, code: Code) -> None:
    """The client says goodbye, and the link ends with nothing more sent."""
    assert caller.link is not None
    assert caller.far is not None
    caller.far.data_received(caller.link.connection.goodbye(code, "goodbye"))
    caller.far.abort()


def test_what_waited_for_a_client_reaches_it_when_it_comes() -> None:
    async def main() -> None:
        async with port() as house:
            house.peers.add("alpha")
            sender = Channel(session(), Side.LISTENER)
            house.router.from_sender(sender, [event(1, "alpha")], 0.0)
            caller = await house.join()
            await caller.got(frames.EVENT)

    run(main())


def test_nothing_is_sent_in_a_session_of_which_the_client_may_never_have_heard() -> None:
    """Its WELCOME was lost with the link: it dials again, and knows nothing of the session before."""

    async def main() -> None:
        async with port() as house:
            house.peers.add("alpha")
            sender = Channel(session(), Side.LISTENER)
            house.router.from_sender(sender, [event(1, "alpha")], 0.0)
            deaf = await house.dial()
            freeze(deaf)
            await until(lambda: len(house.links) == 1)
            house.router.from_sender(sender, [event(3, "alpha")], 0.0)
            await deaf.leave()
            await until(lambda: not len(house.links))
            caller = await house.join()
            for frame in await caller.got(frames.EVENT, 2):
                caller.reply(frame.stream)
            await until(house.settled)
            assert [frame.kind for frame in taken(sender)] == [frames.REPLY] * 2
            assert house.news == ["alpha joined"]

    run(main())


def test_a_client_goes_on_with_a_session_whose_first_link_broke_at_once() -> None:
    async def main() -> None:
        async with port() as house:
            first = await house.dial()
            assert first.link is not None
            await until(lambda: first.link and first.link.connection.session)
            first.open(1)
            await first.leave()
            again = await house.join(session=first.session)
            assert again.link is not None
            assert again.link.connection.resumed
            await until(lambda: house.channel("alpha").routes)

    run(main())


some_frame = st.builds(
    lambda kind, stream, flags, head, body: frames.encode(kind, stream, head, body, flags=flags),
    st.one_of(st.sampled_from((*range(1, 7), *range(128, 137))), st.integers(0, 255)),
    st.integers(0, 6),
    st.integers(0, 1),
    st.one_of(
        st.binary(max_size=12),
        st.just(b""),
        st.just(event(1).head),
        st.just(Hello(major=1, role=ROLE_PIPE).SerializeToString()),
        st.just(Goaway(code=1, detail="x").SerializeToString()),
    ),
    st.one_of(st.binary(max_size=12), st.integers(0, 3).map(lambda n: n.to_bytes(8, "big"))),
)


@settings(deadline=None, max_examples=80)
@given(
    st.booleans(),
    st.lists(st.one_of(some_frame, some_frame, st.binary(max_size=60)), max_size=10),
    st.booleans(),
)
def test_no_bytes_of_a_client_disturb_anybody_else(greets: bool, pieces: list[bytes], worker: bool) -> None:
    async def main() -> None:
        async with port() as house:
            other = await house.join("other")
            loop = asyncio.get_running_loop()
            house.trust.name = "wild"
            link, sock = await linked(house.accepting)
            handlers = [Worker(session(), link.connection, 3)] if worker else []
            house.pool.workers |= set(handlers)
            with sock:
                if greets:
                    head = Hello(major=1, role=ROLE_PIPE).SerializeToString()
                    await loop.sock_sendall(sock, frames.encode(frames.HELLO, head=head))
                    await until(lambda: link.connection.session)
                    house.router.from_sender(Channel(session(), Side.LISTENER), [event(1, "wild")], 0.0)
                with contextlib.suppress(OSError):
                    for piece in pieces:
                        await loop.sock_sendall(sock, piece)
                    sock.shutdown(socket.SHUT_WR)
                await until(lambda: link.transport is None)
            house.pool.workers.clear()
            other.open(1)
            await until(lambda: house.channel("other").routes)
            # The wild one may come back, and be served, whatever it did before.
            again = await house.join("wild")
            house.router.from_sender(Channel(session(), Side.LISTENER), [event(3, "wild")], 0.0)
            await again.got(frames.EVENT)

    run(main(), collect=False)


def test_a_copy_that_waits_does_not_take_the_place_of_an_owner_that_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        monkeypatch.setattr(accepting, "CONFLICT_WAIT_S", 0.05)
        async with port() as house:
            owner = await house.join()
            freeze(owner)
            copy = await house.dial()
            await until(lambda: house.accepting._contenders)
            back = await house.join(session=owner.session)
            goaway = await copy.told_to_go()
            assert goaway.code == Code.NAME_IN_USE
            assert not house.accepting._contenders
            assert house.online("alpha")
            assert not back.lost
            owner.link.transport.resume_reading()  # type: ignore[union-attr]

    run(main())
