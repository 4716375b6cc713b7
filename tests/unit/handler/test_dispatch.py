"""How many events are handled at once, what holds a place, and what an event costs."""

from __future__ import annotations

import asyncio
import collections
import inspect
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest

import restpipe
from restpipe import Context, EventHandler, streamed
from restpipe.errors import Code, Delivered
from restpipe.handler import dispatch, handling
from restpipe.handler.dispatch import OVERLOAD_FACTOR, REPLIES_FACTOR
from restpipe.protocol.messages import MAX_REPLIES
from tests.support.events import Ends

Run = Callable[[Awaitable[object]], object]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]
PostData = tuple[str, Any]
LARGE = 5 * 65536 + 7


class Plain(EventHandler):
    """Plain methods alone."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.waiting = threading.Event()

    def get_short(self, ctx: Context, post_data: PostData) -> Any:
        return {"done": True}

    post_short = get_short

    def get_large(self, ctx: Context, post_data: PostData) -> bytes:
        return b"x" * LARGE

    def get_generator(self, ctx: Context, post_data: PostData) -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 65536

    def get_block(self, ctx: Context, post_data: PostData) -> None:
        self.waiting.set()
        self.gate.wait(10)

    @streamed
    def post_streamed(self, ctx: Context, post_data: PostData) -> Any:
        self.waiting.set()
        return {"size": sum(map(len, post_data[1]))}


class Async(EventHandler):
    """Async methods alone."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.gate = asyncio.Event()

    async def get_short(self, ctx: Context, post_data: PostData) -> Any:
        return {"done": True}

    post_short = get_short

    async def get_large(self, ctx: Context, post_data: PostData) -> bytes:
        return b"x" * LARGE

    async def get_generator(self, ctx: Context, post_data: PostData) -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 65536

    async def get_count(self, ctx: Context, post_data: PostData) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1

    async def get_block(self, ctx: Context, post_data: PostData) -> None:
        await self.gate.wait()

    @streamed
    async def post_streamed(self, ctx: Context, post_data: PostData) -> Any:
        return {"size": sum([len(piece) async for piece in post_data[1]])}


class Mixed(Async):
    def get_plain(self, ctx: Context, post_data: PostData) -> None: ...


# Capacity.


def test_async_methods_are_bounded(run: Run) -> None:
    async def main() -> None:
        handler = Async()
        ends = Ends(handler, threads=1, concurrency=3)
        assert ends.dispatcher.capacity == 3
        exchanges = [ends.send("/count") for _ in range(12)]
        await ends.dispatcher.wait_idle()
        assert handler.most == 3
        assert ends.dispatcher.handled == 12
        assert all(exchange.result().code == 0 for exchange in exchanges)
        assert ends.capacities == []
        await ends.dispatcher.close()

    run(main())


def test_what_a_plain_method_returned_to_be_awaited_takes_an_async_place(run: Run) -> None:
    class Handler(Async):
        def get_indirect(self, ctx: Context, post_data: PostData) -> Awaitable[None]:
            return self.get_count(ctx, post_data)

    async def main() -> None:
        handler = Handler()
        ends = Ends(handler, threads=4, concurrency=3)
        for _ in range(12):
            ends.send("/indirect")
        await ends.dispatcher.wait_idle()
        assert handler.most == 3
        await ends.dispatcher.close()

    run(main())


def test_a_handler_of_both_kinds_offers_its_threads_besides_what_runs_in_the_loop(run: Run) -> None:
    async def main() -> None:
        handler = Mixed()
        ends = Ends(handler, threads=2, concurrency=4)
        assert ends.dispatcher.capacity == 2
        for _ in range(3):
            ends.send("/block")
        assert ends.capacities == [3, 4, 5]
        handler.gate.set()
        await ends.dispatcher.wait_idle()
        assert ends.capacities == [3, 4, 5, 4, 3, 2]
        await ends.dispatcher.close()

    run(main())


def test_a_daemon_that_does_not_heed_the_capacity_is_refused(run: Run) -> None:
    async def main() -> None:
        ends = Ends(Async(), threads=1, concurrency=1)
        exchanges = [ends.send("/block") for _ in range(OVERLOAD_FACTOR * 2 + 3)]
        refused = [exchange.failure for exchange in exchanges if exchange.failure]
        assert [(reset.code, reset.delivered) for reset in refused] == [(Code.OVERLOADED, Delivered.NO)] * 3
        await asyncio.sleep(0)
        await ends.dispatcher.close()
        assert all(exchange.failure for exchange in exchanges)

    run(main())


def test_closing_tells_which_events_never_reached_a_method(run: Run, eventually: Eventually) -> None:
    async def main(handler: Plain | Async) -> None:
        ends = Ends(handler, threads=1, concurrency=1)
        called, waiting = ends.send("/block"), ends.send("/block")
        if isinstance(handler, Plain):
            await eventually(handler.waiting.is_set)
        await asyncio.sleep(0)
        await ends.dispatcher.close()
        handler.gate.set()
        assert ends.dispatcher.in_flight == 0
        for exchange, delivered in ((called, Delivered.UNKNOWN), (waiting, Delivered.NO)):
            assert exchange.failure is not None
            assert (exchange.failure.code, exchange.failure.delivered) == (Code.OUTCOME_UNKNOWN, delivered)

    run(main(Plain()))
    run(main(Async()))


# A place is held by work.


@pytest.mark.parametrize("handler", [Plain, Async])
@pytest.mark.parametrize("target", ["/large", "/generator"])
def test_a_reply_that_waits_for_its_reader_holds_no_place(
    run: Run, eventually: Eventually, handler: Callable[[], EventHandler], target: str
) -> None:
    async def main() -> None:
        ends = Ends(handler(), threads=1, concurrency=1)
        slow = ends.send(target, paused=True)
        await eventually(lambda: ends.dispatcher.replies.taken)
        short = ends.send("/short")
        await eventually(lambda: short.closed)
        assert short.result().json() == {"done": True}
        assert (slow.closed, ends.dispatcher.in_flight) == (False, 1)
        slow.resume()
        await ends.dispatcher.wait_idle()
        assert len(slow.result().data) == (LARGE if target == "/large" else 20 * 65536)
        assert ends.dispatcher.replies.taken == 0
        await ends.dispatcher.close()

    run(main())


def test_replies_that_wait_are_no_work_to_the_capacity(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        ends = Ends(Mixed(), threads=2, concurrency=4)
        slow = ends.send("/generator", paused=True)
        await eventually(lambda: ends.dispatcher.replies.taken)
        assert ends.capacities == [3, 2]
        slow.hang_up()
        await ends.dispatcher.wait_idle()
        await ends.dispatcher.close()

    run(main())


@pytest.mark.parametrize("handler", [Plain, Async])
def test_an_event_whose_body_is_still_coming_holds_no_place(
    run: Run, eventually: Eventually, handler: Callable[[], EventHandler]
) -> None:
    async def main() -> None:
        ends = Ends(handler(), threads=1, concurrency=1)
        slow = [ends.send("/short", verb="POST", body=b"x" * LARGE, paused=True) for _ in range(3)]
        short = ends.send("/short")
        await eventually(lambda: short.closed)
        assert ends.dispatcher.in_flight == 3
        for exchange in slow:
            exchange.resume()
        await ends.dispatcher.wait_idle()
        assert [exchange.result().code for exchange in slow] == [0, 0, 0]
        await ends.dispatcher.close()

    run(main())


@pytest.mark.parametrize("handler", [Plain, Async])
def test_a_streamed_method_is_called_at_once_and_holds_its_place(
    run: Run, eventually: Eventually, handler: Callable[[], EventHandler]
) -> None:
    async def main() -> None:
        ends = Ends(handler(), threads=1, concurrency=1)
        slow = ends.send("/streamed", verb="POST", body=b"x" * LARGE, paused=True)
        short = ends.send("/short")
        await asyncio.sleep(0.05)
        assert not short.closed
        slow.resume()
        await ends.dispatcher.wait_idle()
        assert slow.result().json() == {"size": LARGE}
        assert short.result().code == 0
        await ends.dispatcher.close()

    run(main())


def test_replies_are_bounded_and_no_peer_can_have_all(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        ends = Ends(Plain(), threads=1, concurrency=1)
        replies = ends.dispatcher.replies
        # The daemon's own bound comes first.
        assert replies.size == REPLIES_FACTOR * (2 + MAX_REPLIES)
        bound = replies.size = 4
        for count in range(1, bound // 2 + 1):
            ends.send("/large", paused=True, peer="slow")
            await eventually(lambda count=count: replies.taken == count)  # type: ignore[misc]
        refused = ends.send("/short", peer="slow")
        assert refused.failure is not None
        assert (refused.failure.code, refused.failure.delivered) == (Code.OVERLOADED, Delivered.NO)
        assert refused.failure.detail == "2 replies wait for their readers"
        for peer in ("b", "c"):
            short = ends.send("/short", peer=peer)
            await eventually(lambda short=short: short.closed)  # type: ignore[misc]
            assert short.result().code == 0
        await ends.dispatcher.close()
        assert replies.taken == 0

    run(main())


def test_threads_that_work_for_nobody_are_no_peers_alone(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        handler = Plain()
        ends = Ends(handler, threads=4, concurrency=1)
        held = ends.dispatcher.pool.bursts.held
        first = ends.send("/short", peer="good")
        await eventually(lambda: first.closed)
        for count in (1, 2, 3):
            exchange = ends.send("/block", peer="hostile")
            await eventually(handler.waiting.is_set)
            handler.waiting.clear()
            exchange.hang_up()
            await eventually(lambda count=count: len(held) == count)  # type: ignore[misc]
        refused = ends.send("/short", peer="hostile")
        assert refused.failure is not None
        assert (refused.failure.code, refused.failure.delivered) == (Code.OVERLOADED, Delivered.NO)
        assert (
            refused.failure.detail
            == "the threads that are left are for others: this peer's events hold too many"
        )
        short = ends.send("/short", peer="good")
        await eventually(lambda: short.closed)
        assert short.result().code == 0
        handler.gate.set()
        await eventually(lambda: not held)
        again = ends.send("/short", peer="hostile")
        await eventually(lambda: again.closed)
        assert again.result().code == 0
        await ends.dispatcher.close()

    run(main())


# Methods that go on.


class Stubborn(EventHandler):
    """Heeds no cancellation until it is let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.calls = 0

    async def get_stubborn(self, ctx: Context, post_data: PostData) -> None:
        self.calls += 1
        while not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                continue

    async def get_short(self, ctx: Context, post_data: PostData) -> int:
        return 1


def test_async_methods_that_ignore_their_cancellation_hold_no_places(
    run: Run, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not restpipe.COMPILED:
        monkeypatch.setattr(handling, "HEED_S", 0.001)

    async def main() -> None:
        handler = Stubborn()
        ends = Ends(handler, concurrency=2)
        for count in (1, 2):
            exchange = ends.send("/stubborn")
            await eventually(lambda count=count: handler.calls == count)  # type: ignore[misc]
            exchange.hang_up()
        await eventually(lambda: "get_stubborn (2 times)" in caplog.text)
        short = ends.send("/short")
        await eventually(lambda: short.closed)
        assert short.result().json() == 1
        assert ends.capacities == []
        # As many as run at once, and no more: these keep their places.
        for count in (3, 4):
            exchange = ends.send("/stubborn")
            await eventually(lambda count=count: handler.calls == count)  # type: ignore[misc]
            exchange.hang_up()
            await eventually(lambda count=count: len(ends.capacities) == count - 2)  # type: ignore[misc]
        assert ends.capacities == [1, 0]
        handler.gate.set()
        await eventually(lambda: ends.capacities == [1, 0, 1, 2])
        assert ends.dispatcher.in_flight == 0
        await ends.dispatcher.close()

    run(main())
    assert "left behind" not in caplog.text


def test_what_is_left_behind_is_named(
    run: Run, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "CLOSE_S", 0.001)

    class Handler(Plain, Stubborn):
        def __init__(self) -> None:
            Stubborn.__init__(self)
            self.free, self.waiting = threading.Event(), threading.Event()

        def get_block(self, ctx: Context, post_data: PostData) -> None:
            self.waiting.set()
            self.free.wait(10)

    async def main() -> None:
        handler = Handler()
        ends = Ends(handler)
        for target in ("/stubborn", "/stubborn", "/block"):
            ends.send(target)
        await eventually(lambda: handler.calls == 2 and handler.waiting.is_set())
        await ends.dispatcher.close()
        assert caplog.messages[-1] == "still running, and left behind: get_stubborn (2 times), get_block"
        handler.gate.set()
        handler.free.set()
        await ends.dispatcher.wait_idle()

    run(main())


def test_a_thread_that_reads_a_slow_stream_is_no_capacity(run: Run, eventually: Eventually) -> None:
    class Slow(Plain):
        def get_slow(self, ctx: Context, post_data: PostData) -> Iterator[bytes]:
            yield b"first"
            self.gate.wait(10)
            yield b"last"

    async def main() -> None:
        handler = Slow()
        ends = Ends(handler, threads=4, concurrency=1)
        exchange = ends.send("/slow")
        await eventually(lambda: ends.capacities == [3])
        handler.gate.set()
        await eventually(lambda: ends.capacities == [3, 4])
        assert exchange.result().data == b"firstlast"
        await ends.dispatcher.close()

    run(main())


def test_a_peer_that_is_alone_has_all_threads(run: Run, eventually: Eventually) -> None:
    async def main() -> None:
        handler = Plain()
        ends = Ends(handler, threads=2, concurrency=1)
        exchange = ends.send("/block", peer="server")
        await eventually(handler.waiting.is_set)
        exchange.hang_up()
        await eventually(lambda: len(ends.dispatcher.pool.bursts.held) == 1)
        short = ends.send("/short", peer="server")
        await eventually(lambda: short.closed)
        assert short.result().code == 0
        handler.gate.set()
        await ends.dispatcher.close()

    run(main())


# What an event costs.

HERE = str(Path(restpipe.__file__).parent) + os.sep
HANDLER = HERE + "handler" + os.sep
CEILING = {"plain": 19, "async": 19, "mixed": 21}
"""Python calls an event in the handler's own modules."""
EVENTS = 50


class Counts:
    """Counts what RestPipe makes and calls while it is entered."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.made: collections.Counter[str] = collections.Counter()
        self.calls = 0
        self.coroutines = 0
        self._loop = loop

    def __enter__(self) -> Counts:
        for name in ("create_task", "create_future", "call_at", "call_later"):
            setattr(self._loop, name, self._counted(name, getattr(self._loop, name)))
        sys.setprofile(self._profile)
        threading.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)
        for name in ("create_task", "create_future", "call_at", "call_later"):
            delattr(self._loop, name)

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.made[name] += 1
            return real(*arguments, **options)

        return counted

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(HERE):
            self.calls += code.co_filename.startswith(HANDLER)
            self.coroutines += bool(code.co_flags & inspect.CO_COROUTINE)


def count(run: Run, handler: Callable[[], EventHandler], target: str) -> Counts:
    """Send short events one after the other, and count."""
    counted: list[Counts] = []

    async def main() -> None:
        ends = Ends(handler(), threads=4, concurrency=4)
        counts = Counts(asyncio.get_running_loop())
        # The pool's thread is profiled from its start. What comes once comes with the first event.
        with counts:
            for number in range(EVENTS + 1):
                exchange = ends.send(target)
                while not exchange.closed or ends.dispatcher.handlings:
                    # Nothing that would count is made; but a loop that never waits would keep the pool's
                    # thread from the interpreter's lock, for seconds where the machine is busy.
                    time.sleep(0.0002)  # noqa: ASYNC251
                    await asyncio.sleep(0)
                if number == 0:
                    counts.made.clear()
                    counts.calls = counts.coroutines = 0
        counted.append(counts)
        await ends.dispatcher.close()

    run(main())
    return counted[0]


def test_a_plain_method_costs_no_task_no_future_no_timer_and_no_coroutine(run: Run) -> None:
    counts = count(run, Plain, "/short")
    assert counts.made == {}
    assert counts.coroutines == 0
    assert counts.calls // EVENTS <= CEILING["plain"]


@pytest.mark.parametrize("handler", [Async, Mixed])
def test_an_async_method_costs_one_task_and_one_coroutine_besides_its_own(
    run: Run, handler: Callable[[], EventHandler]
) -> None:
    counts = count(run, handler, "/short")
    assert counts.made == {"create_task": EVENTS}
    if restpipe.COMPILED:
        pytest.skip("calls of compiled functions are not seen, and cannot be counted")
    assert counts.coroutines == EVENTS
    assert counts.calls // EVENTS <= CEILING["async" if handler is Async else "mixed"]


# Whatever becomes of events, all that they held is given back.


class Anything(Mixed):
    """Methods of all kinds, which take a moment."""

    def post_plain(self, ctx: Context, post_data: PostData) -> Any:
        threading.Event().wait(0.001)
        return len(post_data[1])

    def post_stream(self, ctx: Context, post_data: PostData) -> Iterator[bytes]:
        for _ in range(8):
            yield b"x" * 40_000

    def post_indirect(self, ctx: Context, post_data: PostData) -> Any:
        return self.post_slow(ctx, post_data)

    async def post_slow(self, ctx: Context, post_data: PostData) -> Any:
        await asyncio.sleep(0.002)
        return b"x" * 100_000

    async def post_agenerator(self, ctx: Context, post_data: PostData) -> AsyncIterator[bytes]:
        for _ in range(8):
            await asyncio.sleep(0)
            yield b"x" * 40_000

    def post_broken(self, ctx: Context, post_data: PostData) -> Iterator[bytes]:
        yield b"x" * 100_000
        raise ValueError("oh")


@pytest.mark.parametrize("seed", range(4))
def test_all_that_events_held_is_given_back(run: Run, eventually: Eventually, seed: int) -> None:
    random = Random(seed)
    targets = ("/plain", "/stream", "/indirect", "/slow", "/agenerator", "/broken", "/streamed", "/nothing")

    async def main() -> None:
        ends = Ends(Anything(), threads=3, concurrency=3)
        dispatcher = ends.dispatcher
        room = dispatcher.bodies.room.left
        exchanges = []
        for _ in range(300):
            body = b"x" * random.choice((0, 10, 65536, 200_000))
            timeout_ms = random.choice((1, 5, 30_000, 0))
            paused = random.random() < 0.3
            exchange = ends.send(
                random.choice(targets),
                timeout_ms,
                verb="POST",
                body=body,
                peer=random.choice("abc"),
                paused=paused,
            )
            exchanges.append(exchange)
            if random.random() < 0.3:
                await asyncio.sleep(random.choice((0, 0, 0.001, 0.003)))
            chosen = random.choice(exchanges)
            random.choice((chosen.hang_up, chosen.resume, chosen.resume))()
        for exchange in exchanges:
            exchange.resume()
        await dispatcher.wait_idle()
        await eventually(lambda: not dispatcher.pool.stuck)
        assert all(exchange.closed for exchange in exchanges)
        assert (dispatcher.in_flight, dispatcher.replies.taken) == (0, 0)
        assert dispatcher.bodies.room.left == room
        # On a busy machine a stream may have been read for long, which is seen a moment later.
        await eventually(lambda: not dispatcher.pool.bursts.held and dispatcher.capacity == 3)
        # Three at once can be called again in the loop, and three in threads.
        again = [ends.send(target, verb="POST") for target in ("/slow", "/plain") for _ in range(3)]
        await dispatcher.wait_idle()
        assert [exchange.result().code for exchange in again] == [0] * 6
        assert {exchange.failure.code for exchange in exchanges if exchange.failure} <= {
            Code.CANCELLED,
            Code.DEADLINE,
            Code.OVERLOADED,
            Code.REPLY_BROKEN,
        }
        await dispatcher.close()

    run(main())
