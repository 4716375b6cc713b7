from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

from restpipe.daemon.channel import Channel
from restpipe.daemon.core import Core
from restpipe.daemon.peers import PeerTable
from restpipe.errors import Code
from restpipe.host.config import Role, load
from restpipe.protocol.connection import Side
from tests.unit.daemon.kit import event, session, taken, the_reset
from tests.unit.transport.kit import run, until


def make(folder: Path) -> Core:
    config = load(Role.SERVER, environ={"RP_RUNTIME_DIR": str(folder), "RP_CONFIG_FILE": str(empty(folder))})
    peers = PeerTable(10, 10)
    return Core(
        config.pipe,
        peers,
        server=None,
        joined=lambda peer: None,
        left=lambda peer, reason: None,
        present=lambda: (),
    )


def empty(folder: Path) -> Path:
    path = folder / "server.toml"
    path.write_text("")
    return path


def test_whoever_waits_in_vain_is_told_by_the_loops_clock(tmp_path: Path) -> None:
    async def main() -> None:
        core = make(tmp_path)
        core.peers.add("alpha")
        sender, now = Channel(session(), Side.LISTENER), asyncio.get_running_loop().time()
        # The later first: the timer must be brought forward.
        core.router.from_sender(sender, [event(1, "alpha", timeout_s=0.06)], now)
        core.router.from_sender(sender, [event(3, "alpha", timeout_s=0.02)], now)
        await until(lambda: sender.session.queue)
        assert [one.stream for one in taken(sender)] == [3]
        await until(lambda: sender.session.queue)
        assert the_reset(sender).code is Code.UNREACHABLE
        assert core.router.deadlines.next_at is None

    run(main())


def test_what_is_under_way_is_counted(tmp_path: Path) -> None:
    async def main() -> None:
        core = make(tmp_path)
        peer = core.peers.add("alpha")
        assert peer is not None
        assert core.under_way == 0
        peer.joined(Channel(session(), Side.LISTENER), "10.0.0.1", 1)
        sender, now = Channel(session(), Side.LISTENER), asyncio.get_running_loop().time()
        core.router.from_sender(sender, [event(1, "alpha"), event(3, "alpha")], now)
        assert core.under_way == 2
        core.router.lose(sender, "gone", now)
        assert core.under_way == 0

    run(main())


def test_other_limits_hold_from_now_on(tmp_path: Path) -> None:
    async def main() -> None:
        core = make(tmp_path)
        assert core.peers.add("alpha") is not None
        pipe = dataclasses.replace(
            core.pipe, max_waiting=1, heartbeat_interval_s=7.0, handshake_timeout_s=3.0
        )
        core.configure(pipe, max_peers=1)
        sender, now = Channel(session(), Side.LISTENER), asyncio.get_running_loop().time()
        core.router.from_sender(sender, [event(1, "alpha"), event(3, "alpha")], now)
        assert the_reset(sender).code is Code.OVERLOADED
        assert core.make_connection(Side.LISTENER).dead_s == 14.0
        # One is all, but who is known already stays.
        assert core.peers.add("alpha") is not None
        assert core.peers.add("beta") is None

    run(main())
