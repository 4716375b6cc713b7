"""A server that makes TLS handshakes and nothing else: `bare_tls PORT IDENTITY`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from tests.bench.peers.apps.mutual_tls import server_context


async def main(port: int, identity: Path) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(asyncio.Protocol, "127.0.0.1", port, ssl=server_context(identity))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2])))
