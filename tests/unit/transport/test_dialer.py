from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from restpipe.protocol.connection import Side, new_session_id
from restpipe.protocol.frames import WELCOME
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Hello
from restpipe.protocol.session import Session
from restpipe.transport import dialer
from restpipe.transport.dialer import MAX_REMEMBERED, Disappointments, dial
from restpipe.transport.link import Link
from restpipe.transport.listener import Listener, listening_socket
from restpipe.transport.lookups import AddressInfo, Lookups
from restpipe.transport.tls import handshake_failure
from tests.unit.transport.kit import Identities, Recorder, connection, run, until

TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities.make(tmp_path_factory.mktemp("dialer") / "ca")


def accept(link: Link, hello: Hello) -> None:
    now = asyncio.get_running_loop().time()
    link.connection.accept(Session(new_session_id(), 1000), hello, now=now)


@asynccontextmanager
async def served(context: ssl.SSLContext, host: str = "127.0.0.1") -> AsyncIterator[tuple[int, Recorder]]:
    """A real listener, and the port that it is at."""
    loop = asyncio.get_running_loop()
    owner = Recorder(accept)
    sock = listening_socket(host, 0)
    port = sock.getsockname()[1]
    listener = Listener(
        sock, lambda: context, lambda: Link(connection(Side.LISTENER), owner, loop), handshake_s=TIMEOUT_S
    )
    task = asyncio.create_task(listener.run())
    try:
        yield port, owner
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for link in owner.made:
            link.abort()
        await until(lambda: len(owner.lost) == len(owner.made))


class Dialer:
    """Dials like the daemon; what resolves to what is for the test to say."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.owner = Recorder()
        self.disappointments = Disappointments()

    async def dial(
        self, host: str, port: int, *, server_name: str = "", timeout_s: float = TIMEOUT_S
    ) -> Link:
        loop = asyncio.get_running_loop()

        def make_link() -> Link:
            made = Link(connection(Side.DIALER), self.owner, loop)
            made.connection.say_hello(ROLE_PIPE, buffer_size=1000)
            return made

        return await dial(
            host,
            port,
            self.context,
            make_link,
            server_name=server_name,
            timeout_s=timeout_s,
            disappointments=self.disappointments,
        )

    async def close(self) -> None:
        for link in self.owner.made:
            link.abort()
        await until(lambda: len(self.owner.lost) == len(self.owner.made))


def resolving(monkeypatch: pytest.MonkeyPatch, *found: AddressInfo, silent: bool = False) -> None:
    """Every name has these addresses, unless no name server answers."""

    def begin(self: Lookups, host: str, port: int) -> asyncio.Future[Any]:
        answer = asyncio.get_running_loop().create_future()
        if not silent:
            answer.set_result(found)
        return answer

    monkeypatch.setattr(Lookups, "begin", begin)


def at(host: str, port: int) -> AddressInfo:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address: Any = (host, port, 0, 0) if ":" in host else (host, port)
    return family, socket.SOCK_STREAM, 6, "", address


def refused_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


def test_a_link_stands_once_tls_is_through(ids: Identities) -> None:
    async def main() -> None:
        async with served(ids.server()) as (port, owner):
            caller = Dialer(ids.client("alpha"))
            link = await caller.dial("127.0.0.1", port)
            assert link.peer_address == ("127.0.0.1", port)
            await until(lambda: link.connection.session)
            assert caller.owner.kinds() == [WELCOME]
            assert owner.made[0].peer_address[0] == "127.0.0.1"
            await caller.close()

    run(main())


def test_ipv6_too(ids: Identities) -> None:
    async def main() -> None:
        async with served(ids.server("::1"), "::1") as (port, owner):
            caller = Dialer(ids.client("alpha"))
            link = await caller.dial("::1", port)
            await until(lambda: link.connection.session)
            assert owner.made[0].peer_address[0] == "::1"
            await caller.close()

    run(main())


def test_all_addresses_are_tried(ids: Identities, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with served(ids.server("pipe.example")) as (port, _):
            resolving(
                monkeypatch,
                at("::1", refused_port("::1")),
                at("127.0.0.1", refused_port()),
                at("127.0.0.1", port),
            )
            caller = Dialer(ids.client("alpha"))
            link = await caller.dial("pipe.example", 1)
            await until(lambda: link.connection.session)
            assert len(caller.owner.made) == 1
            await caller.close()

    run(main())


def test_an_address_that_says_nothing_holds_up_the_next_only_a_moment(
    ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(dialer, "ATTEMPT_DELAY_S", 0.01)
        hung: list[asyncio.Task[Any] | None] = []
        real = dialer._connect

        async def connect(info: AddressInfo) -> socket.socket:
            if info[4][0] == "192.0.2.1":
                hung.append(asyncio.current_task())
                await asyncio.get_running_loop().create_future()
            return await real(info)

        monkeypatch.setattr(dialer, "_connect", connect)
        async with served(ids.server("pipe.example")) as (port, _):
            resolving(monkeypatch, at("192.0.2.1", 9), at("127.0.0.1", port))
            caller = Dialer(ids.client("alpha"))
            link = await caller.dial("pipe.example", 1)
            await until(lambda: link.connection.session)
            (task,) = hung
            assert task is not None
            await until(task.cancelled)
            await caller.close()

    run(main())


def test_an_address_that_connects_and_shakes_no_hands_is_the_last_to_be_tried_next(
    ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stands still, or a load balancer with nobody behind it: the kernel answers for them."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with served(ids.server("pipe.example")) as (port, _):
                hangs, good = at("127.0.0.1", silent.getsockname()[1]), at("127.0.0.1", port)
                resolving(monkeypatch, hangs, good)
                caller = Dialer(ids.client("alpha"))
                with pytest.raises(OSError):
                    await caller.dial("pipe.example", 1, timeout_s=0.5)
                for _ in range(2):
                    link = await caller.dial("pipe.example", 1)
                    await until(lambda at=link: at.connection.session)
                    assert link.peer_address == good[4]
                await caller.close()

    run(main())


def test_a_last_resort_waits_for_what_is_under_way_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(dialer, "ATTEMPT_DELAY_S", 0)
        monkeypatch.setattr(dialer, "LAST_RESORT_DELAY_S", 0.05)
        slow, refused, resort = (at("10.0.0.1", number) for number in range(3))
        tried: list[AddressInfo] = []
        go = asyncio.Event()

        async def connect(info: AddressInfo) -> socket.socket:
            tried.append(info)
            if info is refused:
                raise ConnectionRefusedError
            if info is slow:
                await go.wait()
            return socket.socket()

        monkeypatch.setattr(dialer, "_connect", connect)
        asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(go.set))
        (await dialer._connect_any([slow, refused], [resort])).close()
        assert resort not in tried
        go.clear()
        (await dialer._connect_any([slow, refused], [resort])).close()
        assert tried[-1] is resort
        # Nobody else is there at all.
        (await dialer._connect_any([], [resort])).close()

    run(main())


def test_who_disappointed_longest_ago_goes_first_of_the_last_and_all_are_forgotten_in_the_end() -> None:
    past = Disappointments()
    one, two, three = (at("10.0.0.1", number) for number in (1, 2, 3))
    assert past.order([one, two, three]) == ([one, two, three], [])
    for number in (2, 1, 2):
        past.add(("10.0.0.1", number))
    assert past.order([one, two, three]) == ([three], [one, two])
    past.forget(("10.0.0.1", 1))
    past.forget(("10.0.0.1", 99))
    assert past.order([one, two, three]) == ([one, three], [two])
    for number in range(MAX_REMEMBERED):
        past.add(("10.0.0.2", number))
    assert past.order([two]) == ([two], [])


def test_the_slower_of_two_that_connect_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(dialer, "ATTEMPT_DELAY_S", 0)
        go = asyncio.Event()
        made = [socket.socket(), socket.socket()]

        async def connect(info: AddressInfo) -> socket.socket:
            await go.wait()
            return made[info[4][1]]  # type: ignore[index,call-overload,no-any-return]

        monkeypatch.setattr(dialer, "_connect", connect)
        asyncio.get_running_loop().call_later(0.02, go.set)
        winner = await dialer._connect_any([at("10.0.0.1", 0), at("10.0.0.1", 1)], [])
        loser = made[1 - made.index(winner)]
        await until(lambda: loser.fileno() < 0)
        assert winner.fileno() >= 0
        winner.close()

    run(main())


def test_families_take_turns_and_the_resolvers_order_stays() -> None:
    found = [at("::1", 1), at("::1", 2), at("::1", 3), at("127.0.0.1", 4), at("127.0.0.1", 5)]
    assert [info[4][1] for info in dialer._interleaved(found)] == [1, 4, 2, 5, 3]
    assert dialer._interleaved([]) == []


def test_a_name_without_an_address_and_one_that_refuses(
    ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        caller = Dialer(ids.client("alpha"))
        with pytest.raises(ConnectionRefusedError):
            await caller.dial("127.0.0.1", refused_port())
        resolving(monkeypatch)
        with pytest.raises(OSError, match="the name has no address"):
            await caller.dial("pipe.example", 1)
        assert caller.owner.made == []

    run(main())


def test_a_name_that_is_not_looked_up_in_time_is_no_fault_of_the_servers(
    ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        resolving(monkeypatch, silent=True)
        with pytest.raises(socket.gaierror) as caught:
            await Dialer(ids.client("alpha")).dial("pipe.example", 1, timeout_s=0.05)
        assert handshake_failure(caught.value) == "its name could not be looked up in time"

    run(main())


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example", ".example"])
def test_what_is_no_name_is_an_error_like_all_others(ids: Identities, host: str) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match=r"cannot be dialed|not known|No address"):
            await Dialer(ids.client("alpha")).dial(host, 1)

    run(main())


def test_another_name_than_the_one_dialed_can_be_expected(ids: Identities) -> None:
    async def main() -> None:
        async with served(ids.server("pipe.example")) as (port, owner):
            caller = Dialer(ids.client("alpha"))
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                await caller.dial("127.0.0.1", port)
            assert "its certificate is refused: IP address mismatch" in handshake_failure(caught.value)
            assert "restpipe-ca issue --server makes another" in handshake_failure(caught.value)
            assert owner.made == []
            # With a dot at the end, as DNS has complete names, it is the same.
            for name in ("pipe.example", "pipe.example."):
                link = await caller.dial("127.0.0.1", port, server_name=name)
                await until(lambda: link.connection.session)  # noqa: B023
            await caller.close()

    run(main())


def test_a_server_that_never_shakes_hands_is_given_up(ids: Identities) -> None:
    async def main() -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            caller = Dialer(ids.client("alpha"))
            with pytest.raises(OSError) as caught:
                await caller.dial("127.0.0.1", silent.getsockname()[1], timeout_s=0.1)
            assert handshake_failure(caught.value) == "no TLS handshake in time"

    run(main())


def test_a_connection_that_hangs_is_given_up_and_told_in_words(
    ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCP would try again ever more rarely, and be asleep when the network is back."""

    async def main() -> None:
        monkeypatch.setattr(dialer, "CONNECT_S", 0.05)
        with contextlib.ExitStack() as open_until_then:
            deaf = open_until_then.enter_context(socket.socket())
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            for _ in range(2):
                # Nobody accepts: the queue is full, and the next SYN is dropped.
                filler = open_until_then.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(deaf.getsockname())
            with pytest.raises(OSError) as told:
                await Dialer(ids.client("alpha")).dial("127.0.0.1", deaf.getsockname()[1])
        assert handshake_failure(told.value) == "Connection timed out"

    run(main())
