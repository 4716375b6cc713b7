from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
from pathlib import Path

import pytest

from restpipe.daemon import server as server_module
from restpipe.daemon.server import ServerDaemon
from restpipe.errors import ConfigError, RestPipeError
from restpipe.protocol.frames import NOTICE
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_HANDLER, Notice
from tests.unit.daemon.ends import Caller
from tests.unit.daemon.roles import Pair, running
from tests.unit.transport.kit import logged, run, until


def test_clients_are_counted_and_remembered(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        server, one, other = pair.server(), pair.client("alpha"), pair.client("beta")
        with logged("restpipe.daemon.server") as lines:
            async with running(server, one, other):
                assert server.status == "0 clients" or len(server.links) > 0
                await until(lambda: server.status == "2 clients")
        assert any(line.startswith("listening at 127.0.0.1:") for line in lines.texts)
        seen = json.loads((tmp_path / "state" / "clients.json").read_text())
        assert set(seen) == {"alpha", "beta"}
        # The next start waits for them.
        assert {peer.name for peer in pair.server().peers} == {"alpha", "beta"}

    run(main())


def test_handler_workers_are_told_of_clients(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        server, client = pair.server(), pair.client()
        async with running(server):
            worker = await (await Caller.dial(server.handlers, ROLE_HANDLER, capacity=1)).welcomed()
            async with running(client):
                await worker.got(NOTICE, 2)
                late = await (await Caller.dial(server.handlers, ROLE_HANDLER, capacity=1)).welcomed()
                (told,) = await late.got(NOTICE)
                assert read_message(Notice(), told).kind == Notice.CONNECTION_ADDED
            told = await worker.got(NOTICE, 4)
            notices = [read_message(Notice(), frame) for frame in told]
            assert [(notice.kind, notice.peer, notice.connected) for notice in notices] == [
                (Notice.IDLE, "", 0),
                (Notice.CONNECTION_ADDED, "alpha", 1),
                (Notice.CONNECTION_REMOVED, "alpha", 0),
                (Notice.IDLE, "", 0),
            ]
        for caller in (worker, late):
            await until(lambda caller=caller: caller.lost)

    run(main())


def test_clients_are_told_their_turns_again_when_there_are_more(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        server, one, other = pair.server(session_life_s=0.05), pair.client("alpha"), pair.client("beta")
        async with running(server, one):
            await until(lambda: len(server.links) == 1)
            assert one.dialing._redial._round_s == 0.0
            async with running(other):
                await until(lambda: one.dialing._redial._round_s > 0.0)
                await until(lambda: other.dialing._redial._round_s > 0.0)
            # It has said that it stops: it is not expected back.
            await until(lambda: one.dialing._redial._round_s == 0.0)

    run(main())


def test_other_values_hold_after_a_reload(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        server, client = pair.server(), pair.client()
        async with running(server, client):
            await until(lambda: len(server.links) == 1)
            server.reload(pair.server_config(max_clients=1, heartbeat_interval_s=7.0, max_waiting=3))
            (link,) = server.links.all()
            assert link.connection.dead_s == 14.0
            assert (server.peers.limit, server._accepting.max_clients) == (1, 1)
            assert server.pool.queue.limit == 3
            broken = pair.server_config()
            tls = dataclasses.replace(broken.tls, key=tmp_path / "nowhere")
            with pytest.raises(ConfigError):
                server.reload(dataclasses.replace(broken, tls=tls))
            assert server.peers.limit == 1

    run(main())


def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            server = pair.server(port=port)
            with pytest.raises(RestPipeError, match=rf"cannot listen at 127\.0\.0\.1:{port}: "):
                list(server.tasks())

    run(main())


class Store:
    """A service manager that keeps a socket for one address."""

    def __init__(self, sock: socket.socket, detail: str) -> None:
        self.sock = sock
        self.detail = detail

    def take(self, kind: str, detail: str = "") -> socket.socket | None:
        return self.sock if detail == self.detail else None

    def keep(self, kind: str, detail: str, sock: socket.socket) -> None:
        raise AssertionError("it is kept already")


def test_the_socket_of_an_earlier_start_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        kept = socket.create_server(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        config = pair.server_config(port=port)
        server = ServerDaemon(config, Store(kept, f"127.0.0.1-{port}"))  # type: ignore[arg-type]
        monkeypatch.setattr(server_module, "listening_socket", lambda *_: pytest.fail("a new one"))
        client = pair.client(servers=(f"127.0.0.1:{port}",))
        async with running(server, client):
            await until(lambda: len(server.links) == 1)
            await asyncio.sleep(0)

    run(main())
