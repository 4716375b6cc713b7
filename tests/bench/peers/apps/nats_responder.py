"""What answers requests over NATS."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import uvloop

from tests.bench.peers.apps.nats_gateway import connected


async def answer(message: Any) -> None:
    await message.respond(json.dumps({"time": time.time()}).encode())


async def main() -> None:
    connection = await connected()
    await connection.subscribe("client.client-1.>", cb=answer)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
