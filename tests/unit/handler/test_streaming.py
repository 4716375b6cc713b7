"""Bodies that are streamed, in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from restpipe import EventHandler, Reply
from restpipe.handler.streaming import BURST, PIECE, AsyncBodyReader, BodyReader, pieces
from restpipe.handler.threads import ThreadPool
from tests.support.events import Ends

Run = Callable[[Awaitable[object]], object]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]


class Body:
    """A request's body that comes in pieces."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts)

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return self.parts.pop(0) if self.parts else b""


async def collect(source: Any, pool: ThreadPool) -> list[bytes]:
    return [piece async for piece in pieces(source, pool)]


def with_pool(run: Run, work: Callable[[ThreadPool], Awaitable[None]], size: int = 2) -> None:
    async def main() -> None:
        pool = ThreadPool(size, asyncio.get_running_loop())
        await work(pool)
        pool.close()

    run(main())


def test_a_generator_runs_in_threads_to_its_end(run: Run) -> None:
    threads = set()

    def generate() -> Iterator[Any]:
        for item in ("a", b"b", "", bytearray(b"c"), "\u00e9"):
            threads.add(threading.get_ident())
            yield item

    async def work(pool: ThreadPool) -> None:
        assert b"".join(await collect(generate(), pool)) == b"abc\xc3\xa9"
        assert threading.get_ident() not in threads

    with_pool(run, work)


def test_a_slow_generator_is_passed_on_piece_by_piece(run: Run) -> None:
    gate = threading.Event()

    def generate() -> Iterator[bytes]:
        yield b"first"
        assert gate.wait(10)
        yield b"second"

    async def work(pool: ThreadPool) -> None:
        source = pieces(generate(), pool)
        assert await anext(source) == b"first"
        gate.set()
        assert [piece async for piece in source] == [b"second"]

    with_pool(run, work)


def test_a_generator_is_not_read_ahead_without_bound(run: Run) -> None:
    taken = 0

    def generate() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * PIECE

    async def work(pool: ThreadPool) -> None:
        source = pieces(generate(), pool)
        for _ in range(100):
            await anext(source)
        await pool.run(lambda: None)
        await source.aclose()
        assert taken * PIECE <= 100 * PIECE + 2 * BURST

    with_pool(run, work)


def test_tiny_pieces_leave_together_but_not_without_bound(run: Run) -> None:
    async def work(pool: ThreadPool) -> None:
        got = await collect(itertools.repeat(b"x", 10_000), pool)
        assert b"".join(got) == b"x" * 10_000
        assert max(map(len, got)) <= PIECE
        assert len(got) < 10_000

    with_pool(run, work)


def test_a_generator_of_nothing_ends(run: Run) -> None:
    async def work(pool: ThreadPool) -> None:
        assert await collect(iter([b""] * 1000), pool) == []

    with_pool(run, work)


def test_a_file_is_read_and_closed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytes(range(256)) * 4096
    path.write_bytes(content)

    async def work(pool: ThreadPool) -> None:
        file = path.open("rb")
        assert b"".join(await collect(file, pool)) == content
        assert file.closed

    with_pool(run, work)


def test_closing_early_closes_the_source(run: Run, eventually: Eventually) -> None:
    closed: list[str] = []

    def generate() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * PIECE
        finally:
            closed.append("generator")

    async def async_generate() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.append("async generator")

    async def work(pool: ThreadPool) -> None:
        file = io.BytesIO(b"x" * PIECE * 10)
        for source in (generate(), async_generate(), file):
            stream = pieces(source, pool)
            assert await anext(stream)
            await stream.aclose()
        await eventually(lambda: file.closed and sorted(closed) == ["async generator", "generator"])

    with_pool(run, work)


def test_closing_while_a_generator_runs_leaves_it_to_itself(run: Run, eventually: Eventually) -> None:
    gate, waiting, closed = threading.Event(), threading.Event(), threading.Event()

    def generate() -> Iterator[bytes]:
        try:
            yield b"first"
            waiting.set()
            gate.wait(10)
            yield b"second"
        finally:
            closed.set()

    async def work(pool: ThreadPool) -> None:
        stream = pieces(generate(), pool)
        await anext(stream)
        await eventually(waiting.is_set)
        await stream.aclose()
        await eventually(lambda: len(pool.stuck) == 1)
        assert not closed.is_set()
        gate.set()
        await eventually(lambda: closed.is_set() and len(pool.stuck) == 0)

    with_pool(run, work)


def test_what_a_generator_raises_comes_after_what_it_yielded(run: Run) -> None:
    def generate() -> Iterator[Any]:
        yield b"a"
        yield 5

    async def work(pool: ThreadPool) -> None:
        got = []
        with pytest.raises(TypeError, match="int"):
            async for piece in pieces(generate(), pool):
                got.append(piece)
        assert got == [b"a"]

    with_pool(run, work)


def test_async_reader(run: Run) -> None:
    async def main() -> None:
        reads = 0

        def read() -> None:
            nonlocal reads
            reads += 1

        reader = AsyncBodyReader(Body(b"hello ", b"wor", b"ld"), read)
        assert await reader.read(3) == b"hel"
        assert await reader.read(0) == b""
        assert await anext(reader) == b"lo "
        assert await reader.read(4) == b"worl"
        assert await reader.read() == b"d"
        assert await reader.read() == b""
        assert [piece async for piece in reader] == []
        assert reads >= 3
        assert [piece async for piece in AsyncBodyReader(Body(b"a", b"b"), read)] == [b"a", b"b"]

    run(main())


def test_reader_for_threads(run: Run) -> None:
    async def work(pool: ThreadPool) -> None:
        loop = asyncio.get_running_loop()
        reader = BodyReader(Body(b"hello ", b"wor", b"ld"), lambda: None, loop)
        assert await pool.run(lambda: reader.read(8)) == b"hello wo"
        assert await pool.run(lambda: list(reader)) == [b"r", b"ld"]
        assert await pool.run(reader.read) == b""

    with_pool(run, work)


def test_little_is_read_ahead_for_a_reader_that_does_not_read(run: Run, eventually: Eventually) -> None:
    taken = 0

    def generate() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1024

    async def work(pool: ThreadPool) -> None:
        source = pieces(generate(), pool)
        await anext(source)
        await eventually(lambda: taken * 1024 >= PIECE)
        await asyncio.sleep(0.05)
        assert taken * 1024 == PIECE
        await source.aclose()

    with_pool(run, work)


def test_a_source_is_closed_once(run: Run, eventually: Eventually) -> None:
    class Counting:
        def __init__(self, size: int) -> None:
            self.left = size
            self.closed = 0

        def read(self, size: int) -> bytes:
            self.left -= 1
            return b"x" * size if self.left >= 0 else b""

        def close(self) -> None:
            self.closed += 1

    async def work(pool: ThreadPool) -> None:
        for pieces_read in range(8):
            file = Counting(5)
            source = pieces(file, pool)
            for _ in range(pieces_read):
                await anext(source, b"")
            await source.aclose()
            await source.aclose()
            await eventually(lambda file=file: file.closed)  # type: ignore[misc]
            await pool.run(lambda: None)
            assert file.closed == 1

    with_pool(run, work)


class Cursor:
    """As of a database: of use in one thread alone."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(40):
            self._check()
            yield b"x" * PIECE

    def close(self) -> None:
        self._check()
        self.closed = True

    def _check(self) -> None:
        assert threading.get_ident() == self.thread


class Database(EventHandler):
    def __init__(self) -> None:
        self.cursors: list[Cursor] = []

    def cursor(self) -> Cursor:
        self.cursors.append(Cursor())
        return self.cursors[-1]

    def get_generator(self, ctx: Any, post_data: Any) -> Iterator[bytes]:
        with contextlib.closing(self.cursor()) as cursor:
            yield from cursor

    def get_made(self, ctx: Any, post_data: Any) -> Iterator[bytes]:
        cursor = self.cursor()

        def rows() -> Iterator[bytes]:
            with contextlib.closing(cursor):
                yield from cursor

        return rows()

    def get_reply(self, ctx: Any, post_data: Any) -> Reply:
        return Reply(self.get_made(ctx, post_data), content_type="text/plain")

    def get_short(self, ctx: Any, post_data: Any) -> int:
        return 1


@pytest.mark.parametrize("target", ["/generator", "/made", "/reply"])
@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_generator_has_one_thread_beside_others(
    run: Run, eventually: Eventually, target: str, hangs_up: bool
) -> None:
    async def main() -> None:
        handler = Database()
        ends = Ends(handler, threads=4)
        stream = ends.send(target, paused=hangs_up)
        while not stream.closed:
            short = ends.send("/short")
            await eventually(lambda short=short: short.closed)  # type: ignore[misc]
            if hangs_up and ends.dispatcher.replies.taken:
                stream.hang_up()
        await eventually(lambda: handler.cursors[0].closed)
        if not hangs_up:
            assert len(stream.result().data) == 40 * PIECE
        await ends.dispatcher.close()

    run(main())
