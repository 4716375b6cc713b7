"""The handler worker, linked to a daemon that is played here."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from restpipe import Context, EventHandler, ServerEventHandler, streamed
from restpipe.errors import Code, ConfigError, RestPipeError
from restpipe.handler import worker
from restpipe.handler.dispatch import CLOSE_S
from restpipe.handler.worker import Worker, load_handler, load_listener
from restpipe.host.config import Config, Role, load
from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side, new_session_id
from restpipe.protocol.frames import Frame
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_HANDLER, Event, Hello, Notice, Origin, Reply
from restpipe.protocol.session import Session
from restpipe.transport.exchange import Exchange
from restpipe.transport.link import Link

Run = Callable[[Awaitable[object]], object]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]
LARGE = 40 * 65536


class FakeDaemon:
    """The daemon's end of `handlers.sock`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._exchanges: dict[int, Exchange] = {}
        self._next = 2
        self.link: Link | None = None
        self.hello = Hello()
        self.capacities: list[int] = []
        self.goodbye = False

    async def __aenter__(self) -> FakeDaemon:
        self._server = await asyncio.get_running_loop().create_unix_server(self._link, str(self._path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if self.link is not None:
            self.link.abort()

    def _link(self) -> Link:
        loop = asyncio.get_running_loop()
        return Link(Connection(Side.LISTENER, heartbeat_s=5, handshake_s=5, now=loop.time()), self, loop)

    def open(self, event: Event, body: bytes = b"", *, end: bool = True) -> Exchange:
        assert self.link is not None
        session = self.link.connection.session
        assert session is not None
        number, self._next = self._next, self._next + 2
        origin = Origin(peer="alpha", address="192.0.2.7", port=4711)
        session.send(number, frames.encode(frames.ORIGIN, number, origin.SerializeToString()))
        flags = frames.END if end else 0
        session.send(
            number, frames.encode(frames.EVENT, number, event.SerializeToString(), body, flags=flags)
        )
        exchange = Exchange(session, number, event, loop=self.link.loop, forget=self._forget)
        exchange.sent_with_opening(len(body))
        self._exchanges[number] = exchange
        return exchange

    def _forget(self, number: int) -> None:
        self._exchanges.pop(number, None)

    def notify(self, notice: Notice) -> None:
        assert self.link is not None
        self.link.send_control(frames.encode(frames.NOTICE, head=notice.SerializeToString()))

    # LinkOwner.

    def link_made(self, link: Link) -> None:
        pass

    def link_frame(self, link: Link, frame: Frame, now: float) -> None:
        if frame.kind == frames.HELLO:
            self.hello = read_message(Hello(), frame)
            session = Session(new_session_id(), 0)
            link.connection.accept(session, self.hello, now=now)
            session.attach(link.wake)
            self.link = link
        elif frame.kind == frames.CAPACITY:
            self.capacities.append(frames.decode_credit(frame))
        elif frame.kind == frames.GOAWAY:
            self.goodbye = True

    def stream_frames(self, link: Link, received: list[Frame], now: float) -> None:
        for frame in received:
            if frame.stream in self._exchanges:
                self._exchanges[frame.stream].receive(frame, now)

    def link_lost(self, link: Link, reason: str) -> None:
        self.link = None
        for exchange in list(self._exchanges.values()):
            exchange.lose()


class Notified:
    """Stands in for the service manager."""

    watchdog_interval = 0.01

    def __init__(self) -> None:
        self.said: list[str] = []

    def ready(self, status: str = "") -> None:
        self.said.append("ready")

    def status(self, text: str) -> None:
        self.said.append(text)

    def stopping(self) -> None:
        self.said.append("stopping")

    def trigger_watchdog(self) -> None:
        self.said.append("watchdog")


class Handler(ServerEventHandler):
    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.gate = threading.Event()

    def start_hook(self) -> None:
        self.calls.append("start")

    async def stop_hook(self) -> None:
        self.calls.append("stop")

    def connection_added(self, ip: str, count: int) -> None:
        self.calls.append(("added", ip, count))

    def get_who(self, ctx: Context, post_data: tuple[str, Any]) -> Any:
        return [ctx.peer, *ctx.participant_address, ctx.event_id]

    @streamed
    async def post_echo(self, ctx: Context, post_data: tuple[str, Any]) -> AsyncIterator[bytes]:
        async for piece in post_data[1]:
            yield piece

    @streamed
    def put_echo(self, ctx: Context, post_data: tuple[str, Any]) -> Iterator[bytes]:
        yield from post_data[1]

    def get_block(self, ctx: Context, post_data: tuple[str, Any]) -> str:
        self.calls.append("blocked")
        self.gate.wait(10)
        return "done"

    def get_block_large(self, ctx: Context, post_data: tuple[str, Any]) -> str:
        return self.get_block(ctx, post_data) * 1_000_000

    async def get_sleep(self, ctx: Context, post_data: tuple[str, Any]) -> None:
        self.calls.append("asleep")
        try:
            await asyncio.sleep(60)
        finally:
            self.calls.append("cancelled")


@pytest.fixture
def config() -> Iterator[Config]:
    # Not pytest's folder: the path of a Unix socket is at most 107 bytes long.
    with tempfile.TemporaryDirectory() as folder:
        environ = {"RP_RUNTIME_DIR": folder, "RP_STATSD_HOST": "", "RP_STATSD_PORT": ""}
        loaded = load(Role.SERVER, environ)
        handlers = dataclasses.replace(loaded.handlers, threads=2)
        yield dataclasses.replace(loaded, handlers=handlers)


@contextlib.asynccontextmanager
async def working(
    config: Config, handler: EventHandler, *, notified: Notified | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    worker = Worker(config, handler, [handler], notifier=notified or Notified())  # type: ignore[arg-type]
    task = asyncio.ensure_future(worker.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def event(verb: str, target: str) -> Event:
    return Event(id=bytes(range(16)), verb=verb, target=target, timeout_ms=30_000)


async def head_of(exchange: Exchange) -> Reply:
    await exchange.answered()
    assert exchange.reply is not None
    return exchange.reply


async def read_all(exchange: Exchange) -> bytes:
    gathered = b""
    while piece := await exchange.read():
        gathered += piece
    return gathered


def test_events_are_answered(run: Run, config: Config, eventually: Eventually) -> None:
    async def main() -> None:
        handler = Handler()
        async with FakeDaemon(config.sockets.handlers) as daemon, working(config, handler):
            await eventually(lambda: daemon.link)
            assert (daemon.hello.role, daemon.hello.capacity) == (ROLE_HANDLER, 2)
            exchange = daemon.open(event("GET", "/who"))
            reply = await head_of(exchange)
            assert (reply.status, reply.code, reply.content_type) == (200, 0, "application/json")
            expected = b'["alpha", "192.0.2.7", 4711, "000102030405060708090a0b0c0d0e0f"]'
            assert await read_all(exchange) == expected
            assert reply.body_length == len(expected)
            many = [daemon.open(event("GET", "/who")) for _ in range(100)]
            assert {await read_all(one) for one in many} == {expected}
            refused = daemon.open(event("GET", "/who//too/many"))
            await refused.answered()
            assert refused.failure is not None
            assert refused.failure.code is Code.BAD_REQUEST
        assert handler.calls == ["start", "stop"]

    run(main())


@pytest.mark.parametrize("verb", ["POST", "PUT"])
def test_bodies_flow_through_with_bounded_credit(
    run: Run, config: Config, eventually: Eventually, verb: str
) -> None:
    content = os.urandom(LARGE)

    async def main() -> None:
        async with FakeDaemon(config.sockets.handlers) as daemon, working(config, Handler()):
            await eventually(lambda: daemon.link)
            exchange = daemon.open(event(verb, "/echo"), end=False)
            sending = asyncio.ensure_future(exchange.write(content, end=True))
            assert await read_all(exchange) == content
            await sending

    run(main())


def test_a_cancelled_event_reaches_the_method(run: Run, config: Config, eventually: Eventually) -> None:
    async def main() -> None:
        handler = Handler()
        async with FakeDaemon(config.sockets.handlers) as daemon, working(config, handler):
            await eventually(lambda: daemon.link)
            exchange = daemon.open(event("GET", "/sleep"))
            await eventually(lambda: "asleep" in handler.calls)
            exchange.reset(Code.CANCELLED)
            await eventually(lambda: "cancelled" in handler.calls)

    run(main())


def test_a_stuck_thread_lowers_the_capacity(
    run: Run, config: Config, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "restpipe.handler.dispatch")

    async def main() -> None:
        handler = Handler()
        async with FakeDaemon(config.sockets.handlers) as daemon, working(config, handler):
            await eventually(lambda: daemon.link)
            exchange = daemon.open(event("GET", "/block"))
            await eventually(lambda: "blocked" in handler.calls)
            exchange.reset(Code.CANCELLED)
            await eventually(lambda: daemon.capacities == [1])
            handler.gate.set()
            await eventually(lambda: daemon.capacities == [1, 2])

    run(main())
    said = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "restpipe.handler.dispatch"]
    assert said == [
        ("WARNING", "1 threads are held by events that were given up: get_block"),
        ("INFO", "nothing goes on any more for an event that was given up"),
    ]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/block", b"done"),
        ("/block/large", b"done" * 1_000_000),
    ],
)
def test_stopping_waits_for_what_is_in_flight(
    run: Run, config: Config, eventually: Eventually, target: str, expected: bytes
) -> None:
    async def main() -> None:
        handler, notified = Handler(), Notified()
        async with (
            FakeDaemon(config.sockets.handlers) as daemon,
            working(config, handler, notified=notified) as task,
        ):
            await eventually(lambda: "ready" in notified.said)
            exchange = daemon.open(event("GET", target))
            await eventually(lambda: "blocked" in handler.calls)
            task.cancel()
            await eventually(lambda: daemon.goodbye)
            assert not task.done()
            assert handler.calls[-1] != "stop"
            handler.gate.set()
            assert await read_all(exchange) == expected
            await asyncio.wait([task])
            assert handler.calls[-1] == "stop"
            assert notified.said.index("ready") < notified.said.index("stopping")

    run(main())


def test_the_service_manager_is_told_the_truth(run: Run, config: Config, eventually: Eventually) -> None:
    async def main() -> None:
        handler, notified = Handler(), Notified()
        async with working(config, handler, notified=notified):
            await eventually(lambda: notified.said.count("watchdog") > 2)
            assert "ready" not in notified.said
            assert handler.calls == ["start"]
            async with FakeDaemon(config.sockets.handlers):
                await eventually(lambda: "ready" in notified.said)
                await eventually(lambda: "answering events, 0 in flight, 0 done" in notified.said)

    run(main())


def test_a_worker_is_ready_without_a_daemon_after_a_while(
    run: Run, config: Config, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "UNLINKED_S", 0.01)

    async def main() -> None:
        notified = Notified()
        async with working(config, Handler(), notified=notified):
            await eventually(lambda: "ready" in notified.said)
            await eventually(lambda: "waiting for the pipe daemon, 0 in flight, 0 done" in notified.said)

    run(main())


def test_the_daemon_may_come_back(run: Run, config: Config, eventually: Eventually) -> None:
    async def main() -> None:
        handler = Handler()
        async with working(config, handler):
            async with FakeDaemon(config.sockets.handlers) as daemon:
                await eventually(lambda: daemon.link)
                daemon.open(event("GET", "/sleep"))
                await eventually(lambda: "asleep" in handler.calls)
            await eventually(lambda: "cancelled" in handler.calls)
            config.sockets.handlers.unlink(missing_ok=True)
            async with FakeDaemon(config.sockets.handlers) as daemon:
                await eventually(lambda: daemon.link)
                assert (await head_of(daemon.open(event("GET", "/who")))).status == 200

    run(main())


def test_notices_reach_the_hooks(run: Run, config: Config, eventually: Eventually) -> None:
    async def main() -> None:
        handler = Handler()
        async with FakeDaemon(config.sockets.handlers) as daemon, working(config, handler):
            await eventually(lambda: daemon.link)
            for count in range(3):
                kind = Notice.CONNECTION_ADDED
                daemon.notify(Notice(kind=kind, peer_address="192.0.2.1", connected=count))
            await eventually(lambda: len(handler.calls) == 4)
            assert handler.calls[1:] == [("added", "192.0.2.1", count) for count in range(3)]

    run(main())


def test_a_start_hook_that_fails_ends_the_worker(run: Run, config: Config) -> None:
    class Broken(EventHandler):
        def start_hook(self) -> None:
            raise ValueError("no database")

    async def main() -> None:
        async with working(config, Broken()) as task:
            with pytest.raises(RestPipeError, match="start_hook failed: ValueError: no database"):
                await task

    run(main())


def test_a_stop_hook_that_fails_is_only_logged(
    run: Run, config: Config, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(EventHandler):
        async def stop_hook(self) -> None:
            raise ValueError("no database")

    async def main() -> None:
        async with FakeDaemon(config.sockets.handlers) as daemon, working(config, Broken()) as task:
            await eventually(lambda: daemon.link)
            task.cancel()
            await asyncio.wait([task])
            assert not task.cancelled()

    run(main())
    assert "stop_hook failed" in [record.getMessage() for record in caplog.records]


def test_no_step_of_the_end_is_cut_short_by_the_patience_with_it(
    run: Run, config: Config, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all tasks, none heeds that it is cancelled. The clock is that of the steps themselves."""
    waited: list[float] = []

    async def wait(tasks: Iterable[asyncio.Task[Any]], timeout: float | None = None) -> Any:  # noqa: ASYNC109
        if timeout is not None:
            waited.append(timeout)
        return await unpatched(tasks, timeout=timeout)

    async def drain(link: object, timeout_s: float) -> None:
        waited.append(timeout_s)

    async def close(dispatcher: object) -> None:
        waited.append(CLOSE_S)

    unpatched = asyncio.wait
    monkeypatch.setattr(asyncio, "wait", wait)
    monkeypatch.setattr(worker.DaemonLink, "drain", drain)
    monkeypatch.setattr(worker.Dispatcher, "close", close)

    async def main() -> None:
        class Broken(Exception): ...

        async def broken(_: object) -> None:
            raise Broken

        mine = Worker(config, Handler(), [], notifier=Notified())  # type: ignore[arg-type]
        monkeypatch.setattr(mine, "_stop_hook", broken)
        task = asyncio.ensure_future(mine.run())
        await eventually(lambda: mine._serving)
        patience_s = mine.patience_s
        waited.clear()
        task.cancel()
        with contextlib.suppress(Broken):
            await task
        assert len(waited) == 5
        assert patience_s >= sum(waited) + worker.GRACE_S

    run(main())


# Loading the user's class.

MODULE = """
from restpipe import ClientEventHandler, ClientStateChangeEvent, EventHandler, ServerEventHandler

class Good(EventHandler):
    def get_x(self, ctx, post_data): ...

class Stranger:
    pass

class Broken(EventHandler):
    def __init__(self):
        self.x = 1 / 0

class OfClient(ClientEventHandler): ...
class OfServer(ServerEventHandler): ...
class OfBoth(ServerEventHandler, ClientEventHandler): ...
class ClientStates(ClientStateChangeEvent): ...
"""


def configured(config: Config, folder: Path, **handlers: Any) -> Config:
    return dataclasses.replace(config, handlers=dataclasses.replace(config.handlers, path=folder, **handlers))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine_for_worker", raising=False)
    (tmp_path / "mine_for_worker.py").write_text(MODULE)
    return tmp_path


def test_the_built_in_example_is_the_default(config: Config) -> None:
    assert type(load_handler(config)).__name__ == "TestServerEventHandler"
    client = dataclasses.replace(config, role=Role.CLIENT)
    assert type(load_handler(client)).__name__ == "TestClientEventHandler"
    assert load_listener(config) == []


def test_the_users_class_is_loaded_from_its_folder(config: Config, folder: Path) -> None:
    found = load_handler(configured(config, folder, event_class="mine_for_worker.Good"))
    assert (type(found).__module__, type(found).__name__) == ("mine_for_worker", "Good")
    listeners = load_listener(configured(config, folder, connection_state_class="mine_for_worker.Stranger"))
    assert [type(listener).__name__ for listener in listeners] == ["Stranger"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine_for_worker.Stranger", "does not inherit from restpipe.EventHandler"),
        ("mine_for_worker.Broken", r"mine_for_worker.py:12: ZeroDivisionError"),
        ("mine_for_worker.Absent", "no class Absent"),
        ("not_there_at_all.Class", "not_there_at_all"),
    ],
)
def test_what_cannot_be_loaded_is_one_clear_line(config: Config, folder: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_handler(configured(config, folder, event_class=name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("role", "option", "name", "warned"),
    [
        (Role.SERVER, "event_class", "OfClient", True),
        (Role.CLIENT, "event_class", "OfServer", True),
        (Role.SERVER, "connection_state_class", "ClientStates", True),
        (Role.CLIENT, "connection_state_class", "ClientStates", False),
        (Role.SERVER, "event_class", "OfServer", False),
        (Role.SERVER, "event_class", "OfBoth", False),
        (Role.CLIENT, "event_class", "Good", False),
    ],
)
def test_a_class_for_the_other_role_is_told(
    config: Config,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    role: Role,
    option: str,
    name: str,
    warned: bool,
) -> None:
    config = dataclasses.replace(configured(config, folder, **{option: f"mine_for_worker.{name}"}), role=role)
    load_handler(config)
    load_listener(config)
    said = [record.getMessage() for record in caplog.records]
    wanted = f"handlers.{option}: {name} has the hooks of the other role: on a {role} none of them is called"
    assert said == ([wanted] if warned else [])
