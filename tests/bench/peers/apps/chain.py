"""The bare chain's daemons and handler: RestPipe's way with no sessions, limits, deadlines or cancellation.

chain near SOCKET PORT IDENTITY   fronts come to the socket, the far daemon to the port
chain far SOCKET PORT IDENTITY    goes to the port; the handler comes to the socket
chain handler SOCKET
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

import uvloop

from tests.bench.peers.apps.framing import Framed
from tests.bench.peers.apps.messages import Event, Reply
from tests.bench.peers.apps.mutual_tls import client_context, server_context


class Near:
    """Numbers requests again, for those of several fronts share one link."""

    def __init__(self) -> None:
        self._far: Framed | None = None
        self._numbers = itertools.count()
        self._asked: dict[bytes, tuple[Framed, bytes]] = {}

    def far(self) -> Framed:
        self._far = Framed(self._from_far)
        return self._far

    def front(self) -> Framed:
        return Framed(self._from_front)

    def _from_front(self, front: Framed, key: bytes, payload: bytes) -> None:
        assert self._far is not None
        number = next(self._numbers).to_bytes(8, "big")
        self._asked[number] = (front, key)
        self._far.send(number, payload)

    def _from_far(self, far: Framed, number: bytes, payload: bytes) -> None:
        front, key = self._asked.pop(number)
        front.send(key, payload)


class Far:
    """Hands on what comes, either way."""

    def __init__(self) -> None:
        self.near = Framed(self._from_near)
        self._handler: Framed | None = None

    def handler(self) -> Framed:
        self._handler = Framed(self._from_handler)
        return self._handler

    def _from_near(self, near: Framed, key: bytes, payload: bytes) -> None:
        assert self._handler is not None
        self._handler.send(key, payload)

    def _from_handler(self, handler: Framed, key: bytes, payload: bytes) -> None:
        self.near.send(key, payload)


async def near(socket: str, port: str, identity: str) -> None:
    loop, daemon = asyncio.get_running_loop(), Near()
    await loop.create_server(daemon.far, "127.0.0.1", int(port), ssl=server_context(Path(identity)))
    await loop.create_unix_server(daemon.front, socket)
    await asyncio.Event().wait()


async def far(socket: str, port: str, identity: str) -> None:
    loop, daemon = asyncio.get_running_loop(), Far()
    context = client_context(Path(identity))
    await loop.create_connection(
        lambda: daemon.near, "127.0.0.1", int(port), ssl=context, server_hostname="localhost"
    )
    await loop.create_unix_server(daemon.handler, socket)
    await asyncio.Event().wait()


async def handler(socket: str) -> None:
    def answer(link: Framed, key: bytes, payload: bytes) -> None:
        link.send(key, answered(payload))

    await asyncio.get_running_loop().create_unix_connection(lambda: Framed(answer), socket)
    await asyncio.Event().wait()


def answered(payload: bytes) -> bytes:
    event = Event.FromString(payload)
    if (event.verb, event.noun) != ("get", "time"):
        return bytes(Reply(code=255).SerializeToString())
    data = json.dumps({"time": time.time()}).encode()
    return bytes(Reply(mime="application/json", data=data).SerializeToString())


PARTS: Mapping[str, Callable[..., Coroutine[None, None, None]]] = {
    "near": near,
    "far": far,
    "handler": handler,
}

if __name__ == "__main__":
    uvloop.run(PARTS[sys.argv[1]](*sys.argv[2:]))
