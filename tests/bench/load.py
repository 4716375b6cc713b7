"""A load generator for a Unix socket: cheap enough that it hardly shows beside what it measures."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import NamedTuple, cast


class Result(NamedTuple):
    requests: int
    seconds: float
    latencies: list[float]
    """Seconds of each request, sorted."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    def percentile_ms(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))] * 1000


class _Caller(asyncio.Protocol):
    """One connection that makes one request after the other."""

    def __init__(self, request: bytes, expected: bytes, latencies: list[float]) -> None:
        self._request = request
        self._expected = expected
        self._latencies = latencies
        self._began = 0.0
        self._received = b""
        self.left = 0
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def begin(self, count: int) -> None:
        self.left = count
        self._next()

    def _next(self) -> None:
        if self.left:
            self.left -= 1
            self._began = time.perf_counter()
            self._transport.write(self._request)
        else:
            self._transport.close()
            self.over.set_result(None)

    def data_received(self, data: bytes) -> None:
        data = self._received + data if self._received else data
        head, found, body = data.partition(b"\r\n\r\n")
        if not found or len(body) < _content_length(head):
            self._received = data
            return
        self._received = b""
        if not head.startswith(self._expected):
            self.over.set_exception(AssertionError(f"an unexpected answer: {data[:500]!r}"))
            return
        self._latencies.append(time.perf_counter() - self._began)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(exc or ConnectionError("closed in the middle"))


def _content_length(head: bytes) -> int:
    at = head.lower().index(b"content-length:") + 15
    return int(head[at:].partition(b"\r\n")[0])


async def load(path: Path, target: str, *, in_flight: int, requests: int, status: int = 200) -> Result:
    """Makes `requests` GETs of `target` at the socket, `in_flight` at any moment; each must have `status`."""
    loop = asyncio.get_running_loop()
    request = f"GET {target} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
    latencies: list[float] = []
    callers: list[_Caller] = []
    for _ in range(in_flight):
        _, caller = await loop.create_unix_connection(
            lambda: _Caller(request, f"HTTP/1.1 {status}".encode(), latencies), str(path)
        )
        callers.append(caller)
    began = time.perf_counter()
    for caller in callers:
        caller.begin(requests // in_flight)
    await asyncio.gather(*(caller.over for caller in callers))
    seconds = time.perf_counter() - began
    return Result(len(latencies), seconds, sorted(latencies))
