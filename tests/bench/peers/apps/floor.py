"""The answers themselves with no tunnel before them: `/time`, and `/big` either way."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import falcon.asgi
from falcon.asgi import Request, Response

PIECE = bytes(65536)
PIECES = 16384


class Time:
    async def on_get(self, request: Request, response: Response) -> None:
        response.media = {"time": time.time()}


class Big:
    async def on_get(self, request: Request, response: Response) -> None:
        response.content_type = "application/octet-stream"
        response.stream = self._pieces()

    async def on_post(self, request: Request, response: Response) -> None:
        size = 0
        async for piece in request.stream:
            size += len(piece)
        response.media = {"size": size}

    async def _pieces(self) -> AsyncIterator[bytes]:
        for _ in range(PIECES):
            yield PIECE


app = falcon.asgi.App()
app.add_route("/time", Time())
app.add_route("/big", Big())
