"""The bare chain's front: falcon, as RestPipe's web workers have it."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Any

import falcon.asgi
from falcon.asgi import Request, Response

from tests.bench.peers.apps.framing import Framed
from tests.bench.peers.apps.messages import Event, Reply


class Front:
    def __init__(self) -> None:
        self._link: Framed | None = None
        self._numbers = itertools.count()
        self._asked: dict[bytes, asyncio.Future[bytes]] = {}

    async def process_startup(self, scope: Any, event: Any) -> None:
        """As falcon's middleware."""
        loop, path = asyncio.get_running_loop(), os.environ["BENCH_CHAIN_SOCKET"]
        _, self._link = await loop.create_unix_connection(lambda: Framed(self._received), path)

    async def on_get(self, request: Request, response: Response, name: str, noun: str) -> None:
        reply = Reply.FromString(await self._ask(Event(verb="get", noun=noun).SerializeToString()))
        response.data = reply.data
        response.content_type = reply.mime
        response.set_header("X-Event-Return-Code", str(reply.code))

    def _ask(self, payload: bytes) -> asyncio.Future[bytes]:
        assert self._link is not None
        key = next(self._numbers).to_bytes(8, "big")
        self._asked[key] = asyncio.get_running_loop().create_future()
        self._link.send(key, payload)
        return self._asked[key]

    def _received(self, link: Framed, key: bytes, payload: bytes) -> None:
        answer = self._asked.pop(key)
        if not answer.done():
            answer.set_result(payload)


_front = Front()
app = falcon.asgi.App(middleware=[_front])
app.add_route("/client/{name}/{noun}", _front)
