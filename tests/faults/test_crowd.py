"""Two hundred clients who lose their links together come back spread out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.faults.crowd import Crowd, Identities
from tests.support.nodes import Node, free_port

CLIENTS = 200
PATIENCE_S = 60.0


def test_no_more_than_a_quarter_of_all_clients_dial_in_any_one_second(folder: Path) -> None:
    def of_the_link(crowd: Crowd, node: Node) -> Awaitable[None]:
        crowd.cut()
        return asyncio.sleep(0)

    _spread(folder, of_the_link)


def test_nor_after_a_restart_of_the_server(folder: Path) -> None:
    def of_the_server(crowd: Crowd, node: Node) -> Awaitable[None]:
        def restart() -> None:
            node.pipe.terminate()
            node.start("pipe")

        return asyncio.to_thread(restart)

    _spread(folder, of_the_server)


def test_nor_after_a_crash_of_the_server(folder: Path) -> None:
    def of_the_server(crowd: Crowd, node: Node) -> Awaitable[None]:
        def crash() -> None:
            node.pipe.kill()
            node.start("pipe")

        return asyncio.to_thread(crash)

    _spread(folder, of_the_server)


def test_nor_while_the_server_is_away_nor_when_it_is_back(folder: Path) -> None:
    def of_the_server(crowd: Crowd, node: Node) -> Awaitable[None]:
        node.pipe.kill()
        before = len(crowd.dialed)

        async def start() -> None:
            # Long enough for chance to have them meet, if it were chance that they go by.
            while len(crowd.dialed) < before + 4 * CLIENTS:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.to_thread(node.start, "pipe")

        return start()

    _spread(folder, of_the_server)


def _spread(folder: Path, break_links: Callable[[Crowd, Node], Awaitable[None]]) -> None:
    async def storm(crowd: Crowd, node: Node) -> None:
        await crowd.join(per_s=100)
        # The last ones have been told their turn, and all links have proved to stand.
        await asyncio.sleep(1.5)
        broken_at = asyncio.get_running_loop().time()
        watch = asyncio.create_task(crowd.watch_lateness())
        await break_links(crowd, node)
        while crowd.connected == CLIENTS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await crowd.wait_back()
        watch.cancel()
        # Dials that were due within a second crowd together where the loop is late.
        span_s = max(0.5, 1.0 - crowd.lateness_s)
        most = crowd.most_in(span_s, broken_at)
        assert most <= CLIENTS / 4, f"{most} of {CLIENTS} dialed within {span_s:.2f} s"

    _in_a_crowd(folder, CLIENTS, storm)


def test_who_stays_when_the_others_are_not_expected_back_waits_for_nobody(folder: Path) -> None:
    """They were told their turns when they were many; who is left is told anew."""

    async def main(crowd: Crowd, node: Node) -> None:
        await crowd.join(per_s=100)
        *others, last = crowd.clients
        while last.dialing._redial._round_s == 0.0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for task, client in zip(crowd.tasks, others, strict=False):
            task.cancel()
            client.cut()
        while last.dialing._redial._round_s > 0.0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert last.connected

    _in_a_crowd(folder, 40, main, session_life_s=0.5)


def _in_a_crowd(
    folder: Path, clients: int, main: Callable[[Crowd, Node], Awaitable[None]], **pipe: float
) -> None:
    identities = Identities(folder / "ca")
    node = Node("server", folder / "server", identities.server())
    port = free_port()
    node.configure({"pipe": {"bind": "127.0.0.1", "port": port, "drain_timeout_s": 2.0, **pipe}})

    async def in_time() -> None:
        crowd = Crowd(identities, clients, port)
        async with asyncio.timeout(PATIENCE_S):
            await main(crowd, node)
            await crowd.leave()

    with node:
        node.start("pipe")
        asyncio.run(in_time())
