"""A TCP proxy between two daemons, with a verb for each thing that a network does wrong."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

CHUNK = 65536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on loopback and hands all on to one target. Its verbs may be called from any thread."""

    def __init__(self, target: tuple[str, int], host: str = "127.0.0.1") -> None:
        self.dialed: list[float] = []
        """When each connection came in, by the loop's (monotonic) clock."""
        self.port = 0
        self._target = target
        self._host = host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._connections: set[_Connection] = set()
        self.delay_s = 0.0
        """Each piece is held back for so long."""
        self.bytes_per_s = 0
        """0: as fast as it goes."""
        self.hanging = False
        """Nothing passes, nothing is closed: as if the cable were pulled."""
        self.refusing = False
        """New connections are reset."""
        self.overtaken = 0
        """How many connections reached the target after one that came later."""
        self._reordering = False
        self._held_back: asyncio.Event | None = None
        """Set to let that connection through."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(self._listen)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Verbs.

    def cut(self) -> None:
        """Ends all connections in good order (FIN)."""
        self._each(lambda connection: connection.close())

    def reset(self) -> None:
        """Ends all connections at once (RST)."""
        self._each(lambda connection: connection.reset())

    def truncate(self, size: int) -> None:
        """Lets so many more bytes of each connection through, then resets it: in the middle of a frame."""
        self._each(lambda connection: connection.truncate(size))

    def hang(self) -> None:
        self.hanging = True

    def refuse(self) -> None:
        """Resets what is there and what comes."""
        self.refusing = True
        self.reset()

    def reorder(self) -> None:
        """From now on every other connection reaches the target behind the one that comes after it."""
        self._reordering = True

    def heal(self) -> None:
        """All that comes from now on passes untouched. What hung is cut."""
        if self.hanging:
            self.reset()
        self.hanging = self.refusing = self._reordering = False
        self._loop.call_soon_threadsafe(self._let_through)
        self.delay_s, self.bytes_per_s = 0.0, 0

    @property
    def connections(self) -> int:
        return len(self._connections)

    # Inside.

    def _each(self, act: Callable[[_Connection], None]) -> None:
        async def do() -> None:
            for connection in list(self._connections):
                act(connection)

        self._call(do)

    def _call(self, make: Callable[[], object]) -> object:
        future: Future[object] = asyncio.run_coroutine_threadsafe(make(), self._loop)  # type: ignore[arg-type]
        return future.result(10)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, self._host, 0, backlog=1024)

    async def _close(self) -> None:
        self._server.close()
        self._let_through()
        for connection in list(self._connections):
            connection.reset()
        while self._connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def _let_through(self) -> None:
        if self._held_back is not None:
            self._held_back.set()
            self._held_back = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialed.append(self._loop.time())
        connection = _Connection(self)
        self._connections.add(connection)
        try:
            connection.add(writer)
            if self.refusing:
                connection.reset()
                return
            held_back = self._reordering and self._held_back is None
            if held_back:
                self._held_back = asyncio.Event()
                await self._held_back.wait()
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            connection.add(far_writer)
            if not held_back and self._held_back is not None:
                self.overtaken += 1
                self._let_through()
            await connection.run((reader, far_writer), (far_reader, writer))
        except OSError:
            connection.reset()
        finally:
            connection.close()
            self._connections.discard(connection)


class _Connection:
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._writers: list[asyncio.StreamWriter] = []
        self._left: int | None = None
        self._task: asyncio.Future[object] | None = None

    def add(self, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)

    async def run(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self._task = asyncio.gather(*(self._pump(*way) for way in ways))
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._task

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy = self._proxy
        while data := await reader.read(CHUNK if not proxy.bytes_per_s else 4096):
            while proxy.hanging:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            if proxy.delay_s:
                await asyncio.sleep(proxy.delay_s)
            if proxy.bytes_per_s:
                await asyncio.sleep(len(data) / proxy.bytes_per_s)
            if self._left is not None and len(data) >= self._left:
                writer.write(data[: self._left])
                self.reset()
                return
            if self._left is not None:
                self._left -= len(data)
            writer.write(data)
            await writer.drain()
        # One side has closed: so does the other, once all has been handed on.
        self.close()

    def truncate(self, size: int) -> None:
        self._left = size

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        if self._task is not None:
            self._task.cancel()

    def reset(self) -> None:
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()
        if self._task is not None:
            self._task.cancel()
