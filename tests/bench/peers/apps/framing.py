"""Frames of the bare chain: `u32 length | 8 bytes that say which request | payload`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

HEAD = 12


class Framed(asyncio.Protocol):
    """A link. What is sent in one turn of the loop goes out in one write."""

    def __init__(self, received: Callable[[Framed, bytes, bytes], None]) -> None:
        """`received(link, key, payload)` for each frame."""
        self._received = received
        self._rest = b""
        self._waiting: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while end - at >= HEAD:
            size = int.from_bytes(data[at : at + 4], "big")
            if end - at < size:
                break
            self._received(self, data[at + 4 : at + HEAD], data[at + HEAD : at + size])
            at += size
        self._rest = data[at:]

    def send(self, key: bytes, payload: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting += ((HEAD + len(payload)).to_bytes(4, "big"), key, payload)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._waiting))
        self._waiting.clear()
