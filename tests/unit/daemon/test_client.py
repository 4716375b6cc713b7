from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from restpipe.daemon.client import ClientDaemon
from restpipe.errors import ConfigError
from restpipe.protocol.frames import NOTICE
from restpipe.protocol.messages import read_message
from restpipe.protocol.schema_pb2 import ROLE_HANDLER, Notice
from tests.unit.daemon.ends import Caller
from tests.unit.daemon.kit import event, opener, taken
from tests.unit.daemon.roles import Pair, running
from tests.unit.transport.kit import run, until


def test_a_client_says_whether_it_is_connected(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        server, client = pair.server(), pair.client()
        assert client.status == "not connected"
        async with running(server, client):
            await until(lambda: client.server.online)
            assert client.status.startswith("connected to 127.0.0.1:")

    run(main())


def test_handler_workers_are_told_of_attempts_and_breaks(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        client = pair.client()
        async with running(client):
            worker = await (await Caller.dial(client.handlers, ROLE_HANDLER, capacity=1)).welcomed()
            await worker.got(NOTICE, 2)
            server = pair.server()
            async with running(server):
                await until(lambda: client.server.online)
                late = await (await Caller.dial(client.handlers, ROLE_HANDLER, capacity=1)).welcomed()
                (told,) = await late.got(NOTICE)
                assert read_message(Notice(), told).kind == Notice.CONNECTION_SUCCESS
            await until(lambda: not client.server.online)
        notices = [read_message(Notice(), frame) for frame in await worker.got(NOTICE, 4)]
        kinds = [notice.kind for notice in notices]
        up = kinds.index(Notice.CONNECTION_SUCCESS)
        assert set(kinds[:up]) == {Notice.CONNECTION_FAIL}
        assert [notice.attempts for notice in notices[:2]] == [1, 2]
        assert (notices[up].peer, notices[up].peer_address) == ("server", "127.0.0.1")
        assert notices[up].attempts >= 2
        broken = notices[up + 1]
        assert (broken.kind, broken.attempts) == (Notice.CONNECTION_FAIL, 0)
        assert broken.since > 0
        for caller in (worker, late):
            await until(lambda caller=caller: caller.lost)

    run(main())


def test_its_events_go_to_the_server_and_wait_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        server, client = pair.server(), pair.client()
        sender, now = opener(), asyncio.get_running_loop().time()
        client.router.from_sender(sender, [event(1)], now)
        async with running(server, client):
            worker = await (await Caller.dial(server.handlers, ROLE_HANDLER, capacity=1)).welcomed()
            (asked,) = await worker.got(1)
            worker.reply(asked.stream, b"hello")
            await until(lambda: sender.session.queue)
            assert taken(sender)[0].body == b"hello"
        await until(lambda: worker.lost)

    run(main())


def test_other_values_hold_after_a_reload(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        server, client = pair.server(), pair.client()
        async with running(server, client):
            await until(lambda: client.server.online)
            client.reload(pair.client_config(heartbeat_interval_s=7.0, max_waiting=3))
            (link,) = client.links.all()
            assert link.connection.dead_s == 14.0
            assert client.server.queue.limit == 3
            assert client.server.online

    run(main())


def test_an_identity_that_cannot_be_used_leaves_the_old(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        client, config = pair.client(), pair.client_config()
        broken = dataclasses.replace(
            config, tls=dataclasses.replace(config.tls, certificate=tmp_path / "nowhere")
        )
        with pytest.raises(ConfigError):
            ClientDaemon(broken)
        before = client.pipe
        with pytest.raises(ConfigError):
            client.reload(broken)
        assert client.pipe is before

    run(main())


def test_once_stopped_it_dials_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        server, client = pair.server(), pair.client()
        async with running(server, client):
            await until(lambda: client.server.online)
            client.stop()
            for link in client.links.all():
                link.abort()
            await until(lambda: not client.server.online)
            await asyncio.sleep(0.05)
            assert not client.server.online

    run(main())
