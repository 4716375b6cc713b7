"""All connections of one process: how many, and how they end."""

from __future__ import annotations

import asyncio
from typing import Any

from restpipe.web.connections import Connections
from restpipe.web.serving import Scope
from tests.unit.web.memory import Caller, MemoryTransport, turns

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


async def wait(scope: Scope, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


def test_an_idle_connection_makes_room_for_a_new_one() -> None:
    async def main() -> None:
        connections = Connections(wait, most=3)
        busy, dripping, idle = (Caller(connections) for _ in range(3))
        busy.send(GET)
        connections.sweep(connections.serving.now + 1)
        dripping.send(b"GET")
        silent = Caller(connections)
        assert [caller.transport.closed for caller in (busy, dripping, idle, silent)] == [
            False,
            False,
            True,
            False,
        ]
        assert len(connections) == 3

    asyncio.run(main())


def test_a_connection_is_refused_where_all_are_busy() -> None:
    async def main() -> None:
        connections = Connections(wait, most=2)
        callers = [Caller(connections) for _ in range(2)]
        for caller in callers:
            caller.send(GET)
        refused = Caller(connections)
        assert refused.take().startswith(b"HTTP/1.1 503 ")
        assert refused.transport.closed
        refused.send(GET)
        refused.hang_up()
        assert len(connections) == 2
        callers[0].hang_up()
        assert not Caller(connections).transport.closed

    asyncio.run(main())


def test_a_drain_waits_for_requests_and_ends_them_when_its_time_is_over() -> None:
    async def main() -> None:
        connections = Connections(wait, most=2)
        caller = Caller(connections)
        caller.send(GET)
        await turns()
        began = connections.serving.loop.time()
        await connections.drain(0.1)
        assert connections.serving.loop.time() - began >= 0.1
        assert caller.transport.aborted

    asyncio.run(main())


def test_a_drain_of_nothing_is_over_at_once() -> None:
    async def main() -> None:
        connections = Connections(wait, most=2)
        Caller(connections).hang_up()
        await connections.drain(60)

    asyncio.run(main())


def test_a_connection_whose_transport_is_not_there_yet_is_left_alone() -> None:
    """A loop makes the protocol in one turn, and gives it its transport in another."""

    async def main() -> None:
        connections = Connections(wait, most=2)
        coming = connections.make()
        connections.sweep(connections.serving.loop.time() + 1000)
        assert len(connections) == 0
        await connections.drain(60)
        transport = MemoryTransport()
        coming.connection_made(transport)  # type: ignore[arg-type]
        assert len(connections) == 1
        connections.abort()
        assert transport.aborted

    asyncio.run(main())


def test_a_connection_that_makes_room_does_not_wait_for_its_caller_to_read() -> None:
    async def main() -> None:
        connections = Connections(wait, most=1)
        silent = Caller(connections)
        silent.transport.buffered = 60_000
        Caller(connections)
        assert silent.transport.aborted

    asyncio.run(main())
