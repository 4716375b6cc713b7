"""HTTP to requests over NATS: `/client/NAME/NOUN` is asked as `client.NAME.get.NOUN`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import falcon.asgi
import nats  # type: ignore[import-not-found, unused-ignore]
from falcon.asgi import Request, Response

from tests.bench.peers.apps.mutual_tls import client_context

TIMEOUT_S = 20.0


async def connected() -> Any:
    """To the server that the environment names."""
    context = client_context(Path(os.environ["BENCH_IDENTITY"]))
    return await nats.connect(f"tls://localhost:{os.environ['BENCH_NATS_PORT']}", tls=context)


class Gateway:
    def __init__(self) -> None:
        self._nats: Any = None

    async def process_startup(self, scope: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        """As falcon's middleware."""
        self._nats = await connected()

    async def on_get(self, request: Request, response: Response, name: str, noun: str) -> None:
        message = await self._nats.request(f"client.{name}.get.{noun}", b"", timeout=TIMEOUT_S)
        response.data = message.data
        response.content_type = "application/json"


_gateway = Gateway()
app = falcon.asgi.App(middleware=[_gateway])
app.add_route("/client/{name}/{noun}", _gateway)
