"""What one short GET costs a web worker, counted: no clock, so no noise. A ceiling, to be lowered."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest

import restpipe
from restpipe.protocol.schema_pb2 import Reply
from tests.unit.web.memory import Caller, MemoryLink, answer, turns, worker

GET = b"GET /client/a/time HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n"
ROUNDS = 20


async def ask(caller: Caller, link: MemoryLink) -> None:
    caller.send(GET)
    await turns()
    assert caller.take().startswith(b"HTTP/1.1 200 OK\r\n")
    link.written()
    link.sent.clear()


def warm_worker() -> tuple[Caller, MemoryLink]:
    reply = Reply(status=200, content_type="application/json", body_length=2)
    link = MemoryLink(answer(reply, b"{}"))
    return Caller(worker(link)), link


@pytest.mark.skipif(
    restpipe.COMPILED, reason="calls of compiled functions are not seen, and cannot be counted"
)
def test_python_calls_of_the_web_worker() -> None:
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and "/restpipe/web/" in frame.f_code.co_filename:
            calls[frame.f_code.co_qualname] += 1

    async def main() -> None:
        caller, link = warm_worker()
        await ask(caller, link)
        sys.setprofile(count)
        try:
            for _ in range(ROUNDS):
                await ask(caller, link)
        finally:
            sys.setprofile(None)

    asyncio.run(main())
    assert calls.total() / ROUNDS <= 33, calls
    # Each of them is entered once more, when the reply is there.
    coroutines = {name for name, number in calls.items() if number == 2 * ROUNDS} - {"ResponseWriter.send"}
    assert coroutines == {"HttpConnection._answer", "Events.answer", "Call.exchange"}


def test_tasks_futures_and_timers_of_a_request() -> None:
    made: Counter[str] = Counter()

    class Loop(asyncio.SelectorEventLoop):
        def create_task(self, *args: Any, **kwargs: Any) -> Any:
            made["task"] += 1
            return super().create_task(*args, **kwargs)

        def create_future(self) -> Any:
            made["future"] += 1
            return super().create_future()

        def call_at(self, *args: Any, **kwargs: Any) -> Any:
            made["timer"] += 1
            return super().call_at(*args, **kwargs)

    async def main() -> None:
        caller, link = warm_worker()
        await ask(caller, link)
        made.clear()
        for _ in range(ROUNDS):
            await ask(caller, link)
        assert made == {"task": ROUNDS, "future": ROUNDS}

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
