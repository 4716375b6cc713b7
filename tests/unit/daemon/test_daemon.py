from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

from restpipe.daemon.daemon import Daemon
from restpipe.daemon.links import peer_connection
from restpipe.daemon.peers import PeerTable
from restpipe.errors import Code
from restpipe.host.config import Config, Role, load
from restpipe.protocol import frames
from restpipe.protocol.connection import Side
from restpipe.protocol.schema_pb2 import ROLE_HANDLER, ROLE_WEB
from tests.unit.daemon.ends import Caller
from tests.unit.daemon.kit import event, opener, taken, the_reset
from tests.unit.transport.kit import logged, run, until


def configured(folder: Path, **pipe: float) -> Config:
    empty = folder / "server.toml"
    empty.touch()
    config = load(Role.SERVER, environ={"RP_RUNTIME_DIR": str(folder), "RP_CONFIG_FILE": str(empty)})
    return dataclasses.replace(config, pipe=dataclasses.replace(config.pipe, **pipe))


def make(folder: Path, **pipe: float) -> Daemon:
    return Daemon(configured(folder, **pipe), PeerTable(10, 10))


def test_what_waits_in_vain_is_answered_by_the_loops_clock(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = make(tmp_path)
        daemon.peers.add("alpha")
        sender, now = opener(), asyncio.get_running_loop().time()
        # The later first: the timer must be brought forward.
        daemon.router.from_sender(sender, [event(1, "alpha", timeout_s=0.06)], now)
        daemon.router.from_sender(sender, [event(3, "alpha", timeout_s=0.02)], now)
        await until(lambda: sender.session.queue)
        assert [one.stream for one in taken(sender)] == [3]
        await until(lambda: sender.session.queue)
        assert the_reset(sender).code is Code.UNREACHABLE
        assert daemon.router.waiting_size == 0

    run(main())


def test_what_is_in_flight_is_counted(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = make(tmp_path)
        peer = daemon.peers.add("alpha")
        assert peer is not None
        assert daemon.in_flight == 0
        peer.joined(opener(), "10.0.0.1", 1)
        sender, now = opener(), asyncio.get_running_loop().time()
        daemon.router.from_sender(sender, [event(1, "alpha"), event(3, "alpha")], now)
        assert daemon.in_flight == 2
        daemon.router.lose(sender, "gone", now)
        assert daemon.in_flight == 0

    run(main())


def test_other_values_hold_from_now_on(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = make(tmp_path)
        assert daemon.peers.add("alpha") is not None
        config = configured(tmp_path, max_waiting=1, heartbeat_interval_s=7.0, session_life_s=3.0)
        daemon.reload(dataclasses.replace(config, log=dataclasses.replace(config.log, debug=True)))
        sender, now = opener(), asyncio.get_running_loop().time()
        daemon.router.from_sender(sender, [event(1, "alpha"), event(3, "alpha")], now)
        assert the_reset(sender).code is Code.OVERLOADED
        assert daemon.pool.queue.limit == 1
        assert daemon.links.session_life_s == 3.0
        assert peer_connection(Side.LISTENER, daemon.pipe, now).dead_s == 14.0
        assert daemon.router.debug
        daemon.deadlines.close()

    run(main())


# The end.


async def workers(daemon: Daemon) -> tuple[Caller, Caller]:
    web = await (await Caller.dial(daemon.events, ROLE_WEB)).welcomed()
    handlers = await (await Caller.dial(daemon.handlers, ROLE_HANDLER, capacity=10)).welcomed()
    return web, handlers


def test_a_daemon_that_drains_lets_events_in_flight_finish(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = make(tmp_path)
        peer = daemon.peers.add("alpha")
        assert peer is not None
        channel = opener()
        peer.joined(channel, "10.0.0.1", 1)
        web, handlers = await workers(daemon)
        now = asyncio.get_running_loop().time()
        daemon.router.from_peer(peer, channel, [event(1)], now)
        (asked,) = await handlers.got(frames.EVENT)
        draining = asyncio.create_task(daemon.drain())
        await web.got(frames.GOAWAY)
        daemon.router.from_peer(peer, channel, [event(3)], now)
        assert the_reset(channel).code is Code.DRAINING
        assert not draining.done()
        handlers.reply(asked.stream, b"in time")
        await draining
        assert taken(channel)[0].body == b"in time"
        # Handler workers go last.
        assert (await handlers.told_to_go()).code == Code.SHUTDOWN
        for caller in (web, handlers):
            await until(lambda caller=caller: caller.lost)

    run(main())


def test_a_daemon_drains_for_no_longer_than_it_is_given(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = make(tmp_path, drain_timeout_s=0.05)
        daemon.peers.add("alpha")
        peer = daemon.peers.get("alpha")
        assert peer is not None
        channel = opener()
        peer.joined(channel, "10.0.0.1", 1)
        web, handlers = await workers(daemon)
        daemon.router.from_peer(peer, channel, [event(1)], asyncio.get_running_loop().time())
        await handlers.got(frames.EVENT)
        with logged("restpipe.daemon.daemon") as lines:
            await daemon.drain()
        assert lines.texts == ["1 events were still under way after 0.05 s"]
        for caller in (web, handlers):
            await until(lambda caller=caller: caller.lost)

    run(main())


def test_a_daemon_that_drains_lets_in_no_worker(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = make(tmp_path)
        await daemon.drain()
        for door, role in ((daemon.events, ROLE_WEB), (daemon.handlers, ROLE_HANDLER)):
            goaway = await (await Caller.dial(door, role)).told_to_go()
            assert goaway.code == Code.SHUTDOWN

    run(main())


def test_a_bare_daemon_says_nothing_of_itself(tmp_path: Path) -> None:
    """What the roles say is theirs."""

    async def main() -> None:
        daemon = make(tmp_path)
        assert (list(daemon.tasks()), daemon.status, list(daemon.present())) == ([], "", [])

    run(main())
