"""Bodies that are never whole in memory: what a method streams to the caller, and what it reads from one."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from restpipe.handler.faults import ends_task
from restpipe.handler.results import is_file
from restpipe.handler.threads import Job, ThreadPool
from restpipe.transport.exchange import Exchange

PIECE = 65536
BURST = 4 * PIECE
"""Bytes that a thread takes at most from a generator or file before it goes back for other work."""
BURST_S = 0.02
"""Seconds after which it goes back in any case: a source that is slow must not keep it from other work."""
PIECE_COST = 1024
"""What a piece counts for at least: a generator of tiny ones must not fill the memory either."""

_log = logging.getLogger(__name__)


def as_bytes(piece: Any) -> bytes:
    """Return one item of a stream as bytes. Raises TypeError if it is neither str nor bytes."""
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        return piece.encode("utf-8")
    if isinstance(piece, (bytearray, memoryview)):
        return bytes(piece)
    raise TypeError(f"a stream yields str or bytes, not {type(piece).__name__}")


def pieces(
    source: Any,
    pool: ThreadPool,
    made_by: Job | None = None,
    *,
    peer: str = "",
    variables: contextvars.Context | None = None,
) -> Pieces:
    """Read a stream for `peer`, no faster than its pieces are asked for.

    A source that is async runs in this loop, any other in the pool's threads, always in one context
    (`variables`, or a copy of the present one), and in the thread of the job that made it, if it can be.
    """
    if isinstance(source, AsyncIterator):
        return _AsyncPieces(source)
    pump = _Pump(source, pool, peer, variables or contextvars.copy_context())
    if made_by is not None:
        pool.pass_on(made_by, pump)
    return pump


def keeps_thread(source: Any) -> bool:
    """Tell whether a stream may depend on the thread that it was made in: a cursor of a database does."""
    return not isinstance(source, AsyncIterator) and not is_file(source)


class Pieces(Protocol):
    """What is in a stream: bytes, none of them empty. The source is closed at its end, or by `aclose`."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def __anext__(self) -> bytes: ...
    async def aclose(self) -> None: ...


class _AsyncPieces:
    __slots__ = ("_iterator", "_open", "_source")

    def __init__(self, source: AsyncIterator[Any]) -> None:
        self._source = source
        self._iterator: AsyncIterator[Any] | None = None
        self._open = True

    def __aiter__(self) -> _AsyncPieces:
        return self

    async def __anext__(self) -> bytes:
        if self._iterator is None:
            self._iterator = aiter(self._source)
        try:
            while not (piece := as_bytes(await anext(self._iterator))):
                pass
        except StopAsyncIteration:
            await self.aclose()
            raise
        return piece

    async def aclose(self) -> None:
        close = getattr(self._source, "aclose", None) if self._open else None
        self._open = False
        try:
            if close is not None:
                await close()
        except BaseException as exc:
            if ends_task(exc):
                raise
            _log.exception("closing %r failed", self._source)


class _Pump:
    """Takes pieces from a generator or file in threads, a burst at a time, and has them ready in the loop.

    A job of the pool: `work` is one burst. The bursts double up to BURST, so that a stream whose reader does
    not read costs little memory.
    """

    __slots__ = (
        "_arrived",
        "_busy",
        "_error",
        "_exhausted",
        "_iterator",
        "_keeps_thread",
        "_lock",
        "_loop",
        "_peer",
        "_pool",
        "_ready",
        "_size",
        "_source",
        "_stopped",
        "_submitted",
        "_told",
        "_variables",
        "_waiting",
        "abandoned",
        "running",
    )

    def __init__(self, source: Any, pool: ThreadPool, peer: str, variables: contextvars.Context) -> None:
        self.running = False
        self.abandoned = False
        self._source = source
        self._keeps_thread = keeps_thread(source)
        self._iterator = source if self._keeps_thread else _iterate_file(source)
        self._pool = pool
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._variables = variables
        """Those of the method, as it left them; each burst sees what the one before has set."""
        self._ready: deque[bytes] = deque()
        self._size = PIECE
        """Of the next burst, in bytes."""
        self._error: BaseException | None = None
        self._exhausted = False
        self._arrived = asyncio.Event()
        self._told = False
        """The loop will look whether something has arrived."""
        self._submitted = False
        """A burst has been asked for, and `done` has not been called for it."""
        self._lock = threading.Lock()
        self._waiting = False
        """A burst has been asked for and has not begun."""
        self._busy = False
        """A thread is at it."""
        self._stopped = False

    # In a thread.

    @property
    def name(self) -> str:
        return getattr(self._source, "__qualname__", type(self._source).__name__)

    def work(self) -> bool:
        """Take one burst: until there is enough, or no more. Once stopped, close the source."""
        with self._lock:
            self._waiting = False
            self._busy = not self._stopped
        if self._busy:
            try:
                self._variables.run(self._take_some)
            except BaseException as error:
                # Kept for the loop: a task that ended by SystemExit would end the loop.
                self._error = None if self._stopped else error
        with self._lock:
            self._busy = False
            over = self._stopped or self._exhausted
        if over:
            self._variables.run(self._close)
        return self._keeps_thread and not over

    def _take_some(self) -> None:
        left = self._size
        self._size = min(2 * left, BURST)
        until = time.monotonic() + BURST_S
        while left > 0 and not self._stopped and time.monotonic() < until:
            try:
                piece = as_bytes(next(self._iterator))
            except StopIteration:
                self._exhausted = True
                return
            left -= max(len(piece), PIECE_COST)
            if piece:
                self._ready.append(piece)
                if not self._told:
                    self._told = True
                    self._loop.call_soon_threadsafe(self._wake)

    def _close(self) -> None:
        """Close the source. May run the end of a generator, so not in the loop."""
        close = getattr(self._source, "close", None)
        try:
            if close is not None:
                close()
        except BaseException:
            _log.exception("closing %r failed", self._source)

    # In the loop.

    def done(self) -> None:
        self._submitted = False
        self._pool.bursts.end(self, self._loop.time())
        self._arrived.set()

    def _wake(self) -> None:
        self._told = False
        self._arrived.set()

    def __aiter__(self) -> _Pump:
        return self

    async def __anext__(self) -> bytes:
        """Return what comes next, as it comes. Raises what the source raised."""
        while not self._ready:
            if not self._submitted:
                if self._error is not None:
                    self._raise_error()
                if self._exhausted:
                    raise StopAsyncIteration
                self._submit()
            self._arrived.clear()
            await self._arrived.wait()
        return self._take()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback leads to this frame

    def _submit(self) -> None:
        self._submitted = self._waiting = True
        self._pool.bursts.ask(self, self._peer, self._loop.time())

    async def aclose(self) -> None:
        """No more is wanted: have the source closed in a thread, unless that was done at its end."""
        if self._stopped:
            return
        with self._lock:
            self._stopped = True
            busy, waiting = self._busy, self._waiting
        if busy:
            self._pool.abandon(self)
        elif self._pool.bursts.withdraw(self, self._peer) or not (waiting or self._exhausted):
            # Closing waits for nobody's turn: what is given up must not pile up.
            self._submitted = self._waiting = True
            self._pool.bursts.hold(self, self._peer, self._loop.time())
            self._pool.submit(self)

    def _take(self) -> bytes:
        """Take what is ready, as far as it fits one frame."""
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


class AsyncBodyReader:
    """The request's body, for an `async def` method marked `streamed`.

    Raises `StreamReset` if the body breaks off.
    """

    def __init__(self, body: Exchange, on_read: Callable[[], None]) -> None:
        """`on_read` is called after each piece that has come."""
        self._body = body
        self._on_read = on_read
        self._rest = b""

    async def read(self, size: int = -1) -> bytes:
        """Read so many bytes, fewer at the end of the body; all that is left for a negative size."""
        gathered = bytearray(self._rest)
        self._rest = b""
        while size < 0 or len(gathered) < size:
            piece = await self._next()
            if not piece:
                return bytes(gathered)
            gathered += piece
        self._rest = bytes(gathered[size:])
        return bytes(gathered[:size])

    def __aiter__(self) -> AsyncBodyReader:
        return self

    async def __anext__(self) -> bytes:
        """Read the next piece, of any size."""
        piece, self._rest = self._rest, b""
        piece = piece or await self._next()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def _next(self) -> bytes:
        piece = await self._body.read()
        self._on_read()
        return piece


class BodyReader:
    """The request's body, for a plain method marked `streamed`. Not to be used in the loop's thread.

    Raises `StreamReset` if the body breaks off.
    """

    def __init__(self, body: Exchange, on_read: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self._reader = AsyncBodyReader(body, on_read)
        self._loop = loop

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes, fewer at the end of the body; all that is left for a negative size."""
        return asyncio.run_coroutine_threadsafe(self._reader.read(size), self._loop).result()

    def __iter__(self) -> BodyReader:
        return self

    def __next__(self) -> bytes:
        """Read the next piece, of any size."""
        piece = asyncio.run_coroutine_threadsafe(_next_or_nothing(self._reader), self._loop).result()
        if not piece:
            raise StopIteration
        return piece


async def _next_or_nothing(reader: AsyncBodyReader) -> bytes:
    return await anext(reader, b"")
