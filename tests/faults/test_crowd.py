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


def _spread(folder: Path, break_links: Callable[[Crowd, Node], Awaitable[None]]) -> None:
    identities = Identities(folder / "ca")
    node = Node("server", folder / "server", identities.server())
    port = free_port()
    node.configure({"pipe": {"bind": "127.0.0.1", "port": port, "drain_timeout_s": 2.0}})

    async def main() -> None:
        crowd = Crowd(identities, CLIENTS, port)
        async with asyncio.timeout(PATIENCE_S):
            await crowd.join(per_s=100)
            # The last ones have been told their turn, and all links have proved to stand.
            await asyncio.sleep(1.5)
            broken_at = asyncio.get_running_loop().time()
            await break_links(crowd, node)
            while crowd.connected == CLIENTS:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await crowd.wait_back()
            most = crowd.most_in_a_second(broken_at)
            await crowd.leave()
        assert most <= CLIENTS / 4, f"{most} of {CLIENTS} dialed in one second"

    with node:
        node.start("pipe")
        asyncio.run(main())
