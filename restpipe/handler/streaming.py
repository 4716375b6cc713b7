"""Bodies that are never whole in memory: what a method streams to the caller, and what it reads from one."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, Protocol

from restpipe.handler.faults import ends_task
from restpipe.handler.results import Stream, is_file
from restpipe.handler.threads import ThreadPool

PIECE = 65536
BURST = 4 * PIECE
"""Bytes that a thread takes from a generator or file before it goes back for other work."""
PIECE_COST = 1024
"""What a piece counts for at least: a generator of tiny ones must not fill the memory either."""

_log = logging.getLogger(__name__)


def as_bytes(piece: Any) -> bytes:
    """One item of a stream. TypeError when it is neither str nor bytes."""
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        return piece.encode("utf-8")
    if isinstance(piece, (bytearray, memoryview)):
        return bytes(piece)
    raise TypeError(f"a stream yields str or bytes, not {type(piece).__name__}")


def pieces(stream: Stream, pool: ThreadPool) -> AsyncGenerator[bytes, None]:
    """What is in a stream, read no faster than it is asked for; no piece is empty.

    A source that is async runs in this loop, any other in the pool's threads. The source is closed at its
    end, or when the iterator is (`aclose`).
    """
    if isinstance(stream.source, AsyncIterator):
        return _async_pieces(stream.source)
    return _thread_pieces(stream.source, pool)


async def _async_pieces(source: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
    try:
        async for item in source:
            piece = as_bytes(item)
            if piece:
                yield piece
    finally:
        await _close(source)


async def _close(source: AsyncIterator[Any]) -> None:
    close = getattr(source, "aclose", None)
    try:
        if close is not None:
            await close()
    except BaseException as exc:
        if ends_task(exc):
            raise
        _log.exception("closing %r failed", source)


async def _thread_pieces(source: Any, pool: ThreadPool) -> AsyncGenerator[bytes, None]:
    pump = _Pump(source, asyncio.get_running_loop())
    try:
        while not pump.exhausted:
            burst = asyncio.ensure_future(pool.run(pump.run))
            burst.add_done_callback(pump.wake)
            try:
                while (piece := await pump.next_piece(burst)) is not None:
                    yield piece
            finally:
                burst.cancel()
                burst.add_done_callback(_ignore_failure)
    finally:
        if pump.stop():
            pool.submit(pump.close)


def _ignore_failure(burst: asyncio.Future[None]) -> None:
    """Whoever closed the stream early does not care how its last burst ended."""
    if not burst.cancelled():
        burst.exception()


class _Pump:
    """Takes pieces from a generator or file, in whatever thread, and has them ready in the loop."""

    def __init__(self, source: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.exhausted = False
        self._source = source
        self._iterator = _iterate_file(source) if is_file(source) else source
        self._loop = loop
        self._ready: deque[bytes] = deque()
        self._error: BaseException | None = None
        self._arrived = asyncio.Event()
        self._lock = threading.Lock()
        self._running = False
        self._stopped = False

    # In a thread.

    def run(self) -> None:
        """One burst: until there is enough, or no more."""
        with self._lock:
            if self._stopped:
                return
            self._running = True
        try:
            self._take_some()
        except BaseException as error:
            # Kept for whoever takes the pieces: a task that ended by SystemExit would end the loop.
            self._error = error
        with self._lock:
            self._running = False
            over = self._stopped or self.exhausted
        if over:
            self.close()

    def _take_some(self) -> None:
        taken = 0
        while taken < BURST and not self._stopped:
            try:
                piece = as_bytes(next(self._iterator))
            except StopIteration:
                self.exhausted = True
                return
            taken += max(len(piece), PIECE_COST)
            if piece:
                self._ready.append(piece)
                self._loop.call_soon_threadsafe(self.wake)

    def close(self) -> None:
        """Closes the source. May run the end of a generator, so not in the loop."""
        close = getattr(self._source, "close", None)
        try:
            if close is not None:
                close()
        except BaseException:
            _log.exception("closing %r failed", self._source)

    # In the loop.

    def wake(self, _: object = None) -> None:
        self._arrived.set()

    def stop(self) -> bool:
        """No more is wanted. True when the source is still to be closed, and nobody is at it."""
        with self._lock:
            self._stopped = True
            return not self._running and not self.exhausted

    async def next_piece(self, burst: asyncio.Future[None]) -> bytes | None:
        """What a burst brings, as it comes; then None, or what the source raised."""
        while not self._ready:
            if burst.done():
                self._raise_error()
                burst.result()
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._take()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback leads back here

    def _take(self) -> bytes:
        """All that is ready, as far as it fits one frame."""
        piece = self._ready.popleft()
        if not self._ready or len(piece) + len(self._ready[0]) > PIECE:
            return piece
        gathered = [piece]
        size = len(piece)
        while self._ready and size + len(self._ready[0]) <= PIECE:
            gathered.append(self._ready.popleft())
            size += len(gathered[-1])
        return b"".join(gathered)


def _iterate_file(file: Any) -> Iterator[Any]:
    while piece := file.read(PIECE):
        yield piece


class Readable(Protocol):
    """Where the request's body comes from."""

    async def read(self) -> bytes:
        """The next piece, empty at the end."""


class AsyncBodyReader:
    """The request's body, for an `async def` method marked `streamed`.

    `StreamReset` is raised when the body breaks off.
    """

    def __init__(self, body: Readable) -> None:
        self._body = body
        self._rest = b""

    async def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer at the end of the body; all that is left for a negative size."""
        gathered = bytearray(self._rest)
        self._rest = b""
        while size < 0 or len(gathered) < size:
            piece = await self._body.read()
            if not piece:
                return bytes(gathered)
            gathered += piece
        self._rest = bytes(gathered[size:])
        return bytes(gathered[:size])

    def __aiter__(self) -> AsyncBodyReader:
        return self

    async def __anext__(self) -> bytes:
        """The next piece, of whatever size."""
        piece, self._rest = self._rest, b""
        piece = piece or await self._body.read()
        if not piece:
            raise StopAsyncIteration
        return piece


class BodyReader:
    """The request's body, for a plain method marked `streamed`. Not to be used in the loop's thread.

    `StreamReset` is raised when the body breaks off.
    """

    def __init__(self, body: Readable, loop: asyncio.AbstractEventLoop) -> None:
        self._reader = AsyncBodyReader(body)
        self._loop = loop

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer at the end of the body; all that is left for a negative size."""
        return asyncio.run_coroutine_threadsafe(self._reader.read(size), self._loop).result()

    def __iter__(self) -> BodyReader:
        return self

    def __next__(self) -> bytes:
        """The next piece, of whatever size."""
        piece = asyncio.run_coroutine_threadsafe(_next_or_nothing(self._reader), self._loop).result()
        if not piece:
            raise StopIteration
        return piece


async def _next_or_nothing(reader: AsyncBodyReader) -> bytes:
    return await anext(reader, b"")
