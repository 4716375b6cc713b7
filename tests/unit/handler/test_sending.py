"""Answers on their way out."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from restpipe import Reply
from restpipe.errors import Code, Delivered
from restpipe.handler.results import answer_of
from restpipe.handler.sending import send_long, send_short
from restpipe.handler.streaming import PIECE
from restpipe.handler.threads import ThreadPool
from restpipe.protocol.schema_pb2 import Event, Origin
from restpipe.testing import MemoryExchange

Run = Callable[[Awaitable[object]], object]


def opened(verb: str = "GET", *, paused: bool = False) -> MemoryExchange:
    return MemoryExchange(Event(id=b"0" * 16, verb=verb, target="/x"), Origin(), b"", paused=paused)


@pytest.mark.parametrize(
    ("verb", "result", "sent"),
    [
        ("GET", {"a": 1}, b'{"a": 1}'),
        ("GET", None, b""),
        ("GET", b"x" * PIECE, b"x" * PIECE),
        ("GET", b"x" * (PIECE + 1), None),
        ("HEAD", b"x" * (PIECE + 1), b""),
        ("GET", iter([b"x"]), None),
        ("HEAD", iter([b"x"]), None),
    ],
)
def test_what_is_sent_at_once(run: Run, verb: str, result: Any, sent: bytes | None) -> None:
    async def main() -> None:
        exchange = opened(verb)
        assert send_short(exchange, answer_of(result)) == (sent is not None)
        assert exchange.closed == (sent is not None)
        assert exchange.data == (sent or b"")

    run(main())


def numbers() -> Iterator[bytes]:
    yield b"0" * PIECE
    yield b"1" * (PIECE + 1)


def broken_at_once() -> Iterator[bytes]:
    raise ValueError("x" * 2 * PIECE)
    yield b""


@pytest.mark.parametrize(
    ("verb", "result", "sent"),
    [
        ("GET", b"x" * 3 * PIECE, b"x" * 3 * PIECE),
        ("GET", numbers(), b"0" * PIECE + b"1" * (PIECE + 1)),
        ("GET", iter(["x" * 3 * PIECE]), b"x" * 3 * PIECE),
        ("GET", iter([]), b""),
        ("HEAD", numbers(), b""),
    ],
)
def test_what_waits_for_credit(run: Run, verb: str, result: Any, sent: bytes) -> None:
    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        exchange, began = opened(verb), []
        await send_long(exchange, answer_of(result), pool, lambda: began.append(exchange.reply))
        assert exchange.data == sent
        assert exchange.closed
        assert exchange.failure is None
        # A stream of nothing is no long reply.
        assert len(began) == (sent != b"")
        pool.close()

    run(main())


def test_a_stream_of_nothing_says_so(run: Run) -> None:
    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        exchange = opened()
        await send_long(exchange, answer_of(iter([])), pool, lambda: None)
        assert exchange.result().headers["content-length"] == "0"
        pool.close()

    run(main())


class Misjudged(io.FileIO):
    """A file that is shorter than its size, as those in /sys are."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(5 - self.tell())


@pytest.mark.parametrize(("size", "content"), [(5, b"01234"), (0, b"")])
def test_a_file_that_does_not_know_its_length(run: Run, tmp_path: Path, size: int, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789"[: 2 * size])

    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        exchange = opened()
        await send_long(exchange, answer_of(Misjudged(path)), pool, lambda: None)
        assert (exchange.data, exchange.failure) == (content, None)
        assert exchange.closed
        pool.close()

    run(main())


def test_a_file_of_the_kernel_is_sent_whole(run: Run) -> None:
    file = Path("/proc/self/status").open("rb")  # noqa: SIM115 - it is closed once it is sent

    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        exchange = opened()
        await send_long(exchange, answer_of(file), pool, lambda: None)
        assert exchange.data.startswith(b"Name:")
        assert file.closed
        pool.close()

    run(main())


def test_a_failure_that_is_long_itself_is_answered_all_the_same(run: Run) -> None:
    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        exchange = opened()
        await send_long(exchange, answer_of(broken_at_once()), pool, lambda: None)
        result = exchange.result()
        assert (result.status, result.code) == (500, 251)
        assert result.json()["exception"]["message"] == "x" * 2 * PIECE
        pool.close()

    run(main())


def test_a_reply_that_breaks_off_says_so(run: Run) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * PIECE
        raise ValueError("oh")

    async def main() -> None:
        pool = ThreadPool(1, asyncio.get_running_loop())
        exchange = opened()
        await send_long(exchange, answer_of(Reply(broken())), pool, lambda: None)
        assert exchange.failure == (Code.REPLY_BROKEN, "ValueError: oh", Delivered.YES, ())
        pool.close()

    run(main())
