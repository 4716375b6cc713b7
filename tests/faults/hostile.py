"""One who floods, as a process of its own: `python -m tests.faults.hostile KIND WHERE [IDENTITY]`.

As a peer it sends frames over a link of its own (WHERE is the server's port), as a caller requests over a web
socket. It does so as fast as it can, for as long as it lives, and says `flooding` once it has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from restpipe.protocol import frames
from restpipe.protocol.schema_pb2 import Event
from restpipe.protocol.streams import INITIAL_CREDIT, MAX_CREDIT
from restpipe.transport.link import Link
from tests.faults.peer import SilentPeer, event
from tests.support.identities import Identity

AT_ONCE = 500
"""Frames in one write."""
IN_PARTS = 40
"""Parts of one body, a byte each."""
PENDING = 65536
"""Bytes that stand at a peer's transport before it waits."""
STREAMS = 800
CALLERS = 50
SILENT = 2000

Numbers = Iterator[int]


def _pings(_: Numbers) -> bytes:
    return b"".join(frames.encode_count(frames.PING, 0) for _ in range(AT_ONCE))


def _empty_data(_: Numbers) -> bytes:
    return frames.encode(frames.DATA, 2) * AT_ONCE


def _windows(_: Numbers) -> bytes:
    return frames.encode_credit(frames.WINDOW, 2, 1) * AT_ONCE


def _resets(numbers: Numbers) -> bytes:
    return b"".join(frames.encode(frames.RESET, number) for number in itertools.islice(numbers, AT_ONCE))


def _opened_and_reset(numbers: Numbers) -> bytes:
    return b"".join(
        event(number, "/work//20") + frames.encode(frames.RESET, number)
        for number in itertools.islice(numbers, AT_ONCE // 2)
    )


def _refused(numbers: Numbers) -> bytes:
    return b"".join(event(number, "/nothing") for number in itertools.islice(numbers, AT_ONCE))


def _body_in_bytes(numbers: Numbers) -> bytes:
    number = next(numbers)
    pieces = frames.encode(frames.DATA, number, body=b"x") * IN_PARTS
    end = frames.encode(frames.DATA, number, flags=frames.END)
    return event(number, "/work//0", end=False) + pieces + end


def _charsets(numbers: Numbers) -> bytes:
    return b"".join(
        _event(number, content_type=f"text/plain; charset=x{number}{'y' * 3000}")
        for number in itertools.islice(numbers, AT_ONCE // 10)
    )


def _header_names(numbers: Numbers) -> bytes:
    return b"".join(
        _event(number, headers={f"x-{number}-{index}": "y" for index in range(200)})
        for number in itertools.islice(numbers, AT_ONCE // 25)
    )


def _failing(numbers: Numbers) -> bytes:
    return b"".join(event(number, "/fail") for number in itertools.islice(numbers, AT_ONCE // 10))


def _slow_streams(numbers: Numbers) -> bytes:
    """Many replies whose generators take their time, and then nothing more."""
    number = next(numbers)
    if number > STREAMS:
        time.sleep(0.1)
        return frames.encode_count(frames.PING, 0)
    return event(number, "/ticks") + frames.encode_credit(frames.WINDOW, number, MAX_CREDIT - INITIAL_CREDIT)


def _event(number: int, *, content_type: str = "", headers: dict[str, str] | None = None) -> bytes:
    head = Event(
        id=number.to_bytes(16, "big"), verb="POST", target="/nothing", timeout_ms=60_000, body_length=1
    )
    if content_type:
        head.content_type = content_type
    for name, value in (headers or {}).items():
        head.headers.add(name=name, value=value)
    return frames.encode(frames.EVENT, number, head.SerializeToString(), b"x", flags=frames.END)


FRAMES: dict[str, Callable[[Numbers], bytes]] = {
    "pings": _pings,
    "empty-data": _empty_data,
    "windows": _windows,
    "resets": _resets,
    "opened-and-reset": _opened_and_reset,
    "refused": _refused,
    "body-in-bytes": _body_in_bytes,
    "charsets": _charsets,
    "header-names": _header_names,
    "failing": _failing,
    "slow-streams": _slow_streams,
}
"""What a peer can send. Each makes what goes out in one write."""
REQUESTS = {
    "unknown-names": "GET /client/n{}.example/x HTTP/1.1\r\nHost: x\r\nPrefer: wait=1\r\n\r\n",
    "waiting": "GET /client/client-2/x{} HTTP/1.1\r\nHost: x\r\nPrefer: wait=3600\r\n\r\n",
    "malformed": "GET / HTTP/{}\r\n\r\n",
}
"""What a caller can ask for again and again."""
IDLE = {"silent": b"", "half-heads": b"GET /server/work//0 HTTP/1.1\r\n"}
"""What a caller can leave it at, on each of many connections."""


class Flooder(SilentPeer):
    """Sends frames as fast as the server takes them."""

    def __init__(self, identity: Identity, port: int, batch: Callable[[Numbers], bytes]) -> None:
        super().__init__(identity, port)
        self._batch = batch
        self.over = threading.Event()

    async def _stay(self, link: Link) -> None:
        transport = link.transport
        assert transport is not None
        while self.session is None and not link.closing:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        print("flooding", flush=True)
        numbers = itertools.count(1, 2)
        while not link.closing:
            transport.write(self._batch(numbers))
            while not link.closing and transport.get_write_buffer_size() > PENDING:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)

    async def _live(self) -> None:
        try:
            await super()._live()
        finally:
            self.over.set()


def flood_as_peer(identity: Identity, port: int, batch: Callable[[Numbers], bytes]) -> None:
    """Whenever the server has had enough of it, it comes back."""
    while True:
        with Flooder(identity, port, batch) as flooder:
            flooder.over.wait()


async def flood_as_caller(path: Path, request: str) -> None:
    numbers = itertools.count()

    async def ask() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(path)
                with contextlib.closing(writer):
                    asked = asyncio.ensure_future(read_on(reader))
                    while not asked.done():
                        writer.write(request.format(next(numbers)).encode())
                        await writer.drain()
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(ask())
        print("flooding", flush=True)


async def read_on(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass


async def hold_connections(path: Path, start: bytes) -> None:
    """Many connections, each replaced as soon as it is closed."""

    async def hold() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(path)
                with contextlib.closing(writer):
                    writer.write(start)
                    await read_on(reader)
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(SILENT):
            group.create_task(hold())
        await asyncio.sleep(1)
        print("flooding", flush=True)


def main(kind: str, where: str, identity: str = "") -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if kind in FRAMES:
        folder = Path(identity)
        flood_as_peer(Identity(folder.name, folder), int(where), FRAMES[kind])
    elif kind in REQUESTS:
        asyncio.run(flood_as_caller(Path(where), REQUESTS[kind]))
    else:
        asyncio.run(hold_connections(Path(where), IDLE[kind]))


if __name__ == "__main__":
    main(*sys.argv[1:])
