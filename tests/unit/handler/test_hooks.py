"""Hooks for connections that come and go."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from restpipe import (
    ClientEventHandler,
    ClientStateChangeEvent,
    ConnectionStateEvents,
    ServerEventHandler,
    ServerStateChangeEvent,
)
from restpipe.handler.hooks import MAX_WAITING, StateHooks, call_hook, hook_call
from restpipe.handler.threads import ThreadPool
from restpipe.protocol.schema_pb2 import Notice

Run = Callable[[Awaitable[object]], object]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]
SINCE = 1_700_000_000.0
SINCE_DT = datetime.datetime.fromtimestamp(SINCE)


@pytest.mark.parametrize(
    ("notice", "name", "arguments"),
    [
        (Notice(kind=Notice.CONNECTION_SUCCESS), "connection_success", (0, None)),
        (
            Notice(kind=Notice.CONNECTION_SUCCESS, attempts=3, since=SINCE),
            "connection_success",
            (3, SINCE_DT),
        ),
        (Notice(kind=Notice.CONNECTION_FAIL, attempts=1, since=SINCE), "connection_fail", (1, SINCE_DT)),
        (
            Notice(kind=Notice.CONNECTION_ADDED, peer="a", peer_address="192.0.2.1", connected=2),
            "connection_added",
            ("192.0.2.1", 2),
        ),
        (Notice(kind=Notice.CONNECTION_REMOVED, peer_address="::1"), "connection_removed", ("::1", 0)),
        (Notice(kind=Notice.IDLE, since=SINCE), "idle", (SINCE_DT, 60.0)),
    ],
)
def test_notices_become_calls(notice: Notice, name: str, arguments: tuple[Any, ...]) -> None:
    call = hook_call(notice, SINCE + 60)
    assert call is not None
    assert call.names[0] == name
    assert call.arguments == arguments


def test_a_notice_of_a_later_version_is_skipped() -> None:
    assert hook_call(Notice(kind=99), SINCE) is None  # type: ignore[arg-type]


class Heard:
    """Remembers what it was told, and in which thread."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()

    def note(self, *call: Any) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())


class Newer(Heard, ConnectionStateEvents):
    def connection_success(self, retry_attempts: int, last_connection_dt: Any) -> None:
        self.note("success", retry_attempts)

    def connection_fail(self, retry_attempts: int, last_connection_dt: Any) -> None:
        self.note("fail", retry_attempts)


class Older(Heard, ClientStateChangeEvent):
    def connect_success(self, retry_attempts: int, last_connection_dt: Any) -> None:
        self.note("success", retry_attempts)

    def connect_fail(self, retry_attempts: int, last_connection_dt: Any) -> None:
        self.note("fail", retry_attempts)


class Unrelated(Heard):
    def connect_success(self, retry_attempts: int, last_connection_dt: Any) -> None:
        self.note("success", retry_attempts)

    def connect_fail(self, retry_attempts: int, last_connection_dt: Any) -> None:
        self.note("fail", retry_attempts)


class OnTheHandler(Heard, ClientEventHandler):
    async def connection_success(self, retry_attempts: int, last_connection_dt: Any) -> None:
        self.note("success", retry_attempts)

    async def connect_fail(self, retry_attempts: int, last_connection_dt: Any) -> None:
        self.note("fail", retry_attempts)


class ServerSide(Heard, ServerStateChangeEvent):
    def idle(self, waiting_since_dt: Any, duration_s: float) -> None:
        self.note("idle")

    def connection_added(self, ip: str, count: int) -> None:
        self.note("added", ip, count)

    def connection_removed(self, ip: str, count: int) -> None:
        self.note("removed", ip, count)


class ServerHandler(ServerSide, ServerEventHandler):
    pass


async def tell(listeners: list[Any], notices: list[Notice], until: Callable[[], object]) -> None:
    pool = ThreadPool(4, asyncio.get_running_loop())
    hooks = StateHooks(listeners, pool.run)
    running = asyncio.ensure_future(hooks.run())
    for notice in notices:
        hooks.take(notice)
    async with asyncio.timeout(10):
        while not until():  # noqa: ASYNC110 - hooks run in threads
            await asyncio.sleep(0.001)
    running.cancel()
    pool.close()


@pytest.mark.parametrize("listener", [Newer, Older, Unrelated, OnTheHandler])
def test_clients_hear_in_order_under_either_name(run: Run, listener: Callable[[], Heard]) -> None:
    heard = listener()
    notices = [Notice(kind=Notice.CONNECTION_FAIL, attempts=n) for n in range(50)]
    notices.append(Notice(kind=Notice.CONNECTION_SUCCESS, attempts=50))
    run(tell([heard], notices, lambda: len(heard.calls) == 51))
    assert heard.calls == [*(("fail", n) for n in range(50)), ("success", 50)]


@pytest.mark.parametrize("listener", [ServerSide, ServerHandler])
def test_servers_hear_of_their_clients(run: Run, listener: Callable[[], Heard]) -> None:
    heard = listener()
    notices = [
        Notice(kind=Notice.IDLE),
        Notice(kind=Notice.CONNECTION_ADDED, peer_address="192.0.2.1", connected=1),
        Notice(kind=Notice.CONNECTION_REMOVED, peer_address="192.0.2.1"),
    ]
    run(tell([heard], notices, lambda: len(heard.calls) == 3))
    assert heard.calls == [("idle",), ("added", "192.0.2.1", 1), ("removed", "192.0.2.1", 0)]


def test_plain_hooks_run_in_threads_and_all_listeners_hear(run: Run) -> None:
    first, second = Newer(), Older()
    run(tell([first, object(), second], [Notice(kind=Notice.CONNECTION_SUCCESS)], lambda: second.calls))
    assert first.calls == second.calls == [("success", 0)]
    assert threading.get_ident() not in first.threads | second.threads


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_hook_that_fails_stops_nothing(
    run: Run, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    class Broken(ClientStateChangeEvent):
        def connection_success(self, retry_attempts: int, last_connection_dt: Any) -> None:
            raise error("broken")

        async def connection_fail(self, retry_attempts: int, last_connection_dt: Any) -> None:
            raise error("broken")

    heard = Newer()
    notices = [Notice(kind=Notice.CONNECTION_SUCCESS), Notice(kind=Notice.CONNECTION_FAIL)]
    run(tell([Broken(), heard], notices, lambda: len(heard.calls) == 2))
    assert [record.getMessage() for record in caplog.records] == [
        "connection_success of Broken failed",
        "connection_fail of Broken failed",
    ]


@pytest.mark.parametrize("arguments", [(), (1,)])
def test_a_hook_that_holds_a_thread_up_is_known_by_its_own_name(run: Run, arguments: tuple[int, ...]) -> None:
    class Mine:
        def stop_hook(self, *given: int) -> None:
            entered.append(given)
            go.wait(10)

    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        calling = asyncio.ensure_future(call_hook(Mine().stop_hook, arguments, pool.run))
        async with asyncio.timeout(10):
            while not entered:  # noqa: ASYNC110 - in a thread
                await asyncio.sleep(0.001)
        calling.cancel()
        await asyncio.wait([calling])
        assert [job.name for job in pool.stuck] == [Mine.stop_hook.__qualname__]
        go.set()
        pool.close()

    entered: list[tuple[int, ...]] = []
    go = threading.Event()
    run(main())
    assert entered == [arguments]


def test_hooks_that_are_too_slow_lose_the_oldest(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    heard = Newer()
    notices = [Notice(kind=Notice.CONNECTION_FAIL, attempts=n) for n in range(MAX_WAITING + 5)]
    run(tell([heard], notices, lambda: len(heard.calls) == MAX_WAITING))
    assert heard.calls[0] == ("fail", 5)
    assert len(caplog.records) == 5


def test_the_defaults_do_nothing() -> None:
    client, server = ClientStateChangeEvent(), ServerStateChangeEvent()
    assert client.connection_success(0, None) is client.connection_fail(0, None) is None
    assert server.idle(SINCE_DT, 0.0) is server.connection_added("", 0) is None
    assert server.connection_removed("", 0) is None
