"""Steady load of numbered events, each written down by its caller."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.faults.content import content, digest
from tests.faults.ledger import Outcome
from tests.support.callers import Callers
from tests.support.http import async_client
from tests.support.nodes import Node

GRACE_S = 10.0
"""How much later than its deadline an answer may come on a busy machine. A late one is lost."""
CHUNK = 30_000


@dataclass(frozen=True)
class Kind:
    """A way to ask."""

    verb: str
    noun: str = "item"
    request_size: int = 0
    reply_size: int = 100
    seconds: float = 0.0
    has_key: bool = False
    chunked: bool = False


GET = Kind("GET")
SLOW_GET = Kind("GET", seconds=0.3)
LARGE_GET = Kind("GET", reply_size=200_000)
PUT = Kind("PUT", request_size=10_000)
POST = Kind("POST", request_size=500)
SLOW_POST = Kind("POST", request_size=500, seconds=0.3)
KEYED_POST = Kind("POST", request_size=500, seconds=0.1, has_key=True)
STREAMED_POST = Kind("POST", noun="stream", request_size=400_000, chunked=True)
STREAMED_GET = Kind("GET", noun="stream", reply_size=400_000, seconds=0.01)
MIXED = (
    GET,
    GET,
    GET,
    SLOW_GET,
    LARGE_GET,
    PUT,
    POST,
    POST,
    SLOW_POST,
    KEYED_POST,
    STREAMED_POST,
    STREAMED_GET,
)


@dataclass(frozen=True)
class Way:
    """From which node, and how the other is addressed there."""

    node: Node
    prefix: str


class Workload(Callers):
    """Leaving the `with` block waits for what is under way."""

    def __init__(
        self,
        ways: Sequence[Way],
        kinds: Sequence[Kind],
        *,
        callers: int = 8,
        pause_s: float = 0.02,
        wait_s: float = 30.0,
        seed: int = 0,
    ) -> None:
        """`callers` for each way, each pausing about `pause_s` between an answer and its next request.

        Every other one keeps its connection, as proxies do; the others have one a request, as curl does.
        """
        super().__init__()
        self.outcomes: list[Outcome] = []
        self._ways = ways
        self._kinds = kinds
        self._callers = callers
        self._pause_s = pause_s
        self._wait_s = wait_s
        self._random = random.Random(seed)
        # Several loads of one scene share its ledger.
        self._mark = os.urandom(3).hex()
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()

    def ended(self) -> int:
        """How many requests have come to an end, in whatever way."""
        return sum(outcome.ended > 0 for outcome in list(self.outcomes))

    def answered(self, role: str = "") -> int:
        """By handlers; `role` is whose socket was asked, if not either."""
        return sum(outcome.answered for outcome in list(self.outcomes) if role in ("", outcome.role))

    def more(self, count: int, role: str = "") -> Callable[[], bool]:
        """A condition: so many more have been answered than by now, of the requests at that role's socket."""
        enough = self.answered(role) + count
        return lambda: self.answered(role) >= enough

    def _calls(self) -> Iterator[Coroutine[Any, Any, None]]:
        return (self._call_on(way, number % 2 > 0) for way in self._ways for number in range(self._callers))

    def _stop(self) -> None:
        self._stopping.set()

    async def _call_on(self, way: Way, keeps: bool) -> None:
        headers = {} if keeps else {"Connection": "close"}
        async with async_client(way.node.sockets / "web.sock", timeout=None, headers=headers) as http:
            while not self._stopping.is_set():
                await self.one(http, way, self._random.choice(self._kinds))
                await asyncio.sleep(self._pause_s * self._random.uniform(0.5, 1.5))

    async def one(self, http: httpx.AsyncClient, way: Way, kind: Kind) -> None:
        number = f"{way.node.role}-{self._mark}-{next(self._numbers)}"
        body = content(f"request {number}", kind.request_size)
        outcome = Outcome(number, way.node.role, kind.verb, kind.has_key, digest(body), time.monotonic())
        self.outcomes.append(outcome)
        try:
            async with asyncio.timeout(self._wait_s + GRACE_S):
                response = await self._ask(http, way, kind, body, outcome)
            _read_outcome(outcome, response, _expected(kind, number, body))
        except TimeoutError:
            outcome.overdue = True
        except httpx.ConnectError:
            outcome.never_sent = True
            await asyncio.sleep(0.05)
        except httpx.TransportError as error:
            outcome.problem = type(error).__name__
        outcome.ended = time.monotonic()

    async def _ask(
        self, http: httpx.AsyncClient, way: Way, kind: Kind, body: bytes, outcome: Outcome
    ) -> httpx.Response:
        number = outcome.number
        headers = {"Prefer": f"wait={self._wait_s:g}", "Content-Type": "application/octet-stream"}
        if kind.has_key:
            headers["Idempotency-Key"] = f'"{number}"'
        async with http.stream(
            kind.verb,
            f"{way.prefix}/{kind.noun}//{_arguments(kind, number)}",
            headers=headers,
            content=_chunks(body) if kind.chunked else body,
        ) as response:
            outcome.begun = time.monotonic()
            await response.aread()
            return response


def _arguments(kind: Kind, number: str) -> str:
    if kind.noun == "stream" and kind.verb == "POST":
        return number
    return f"{number}/{kind.reply_size}/{kind.seconds:g}"


def _expected(kind: Kind, number: str, body: bytes) -> bytes:
    if kind.noun == "stream" and kind.verb == "POST":
        return digest(body).encode()
    return content(number, kind.reply_size)


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), CHUNK):
        yield body[at : at + CHUNK]
        await asyncio.sleep(0)


def _read_outcome(outcome: Outcome, response: httpx.Response, expected: bytes) -> None:
    outcome.status = response.status_code
    if "x-event-return-code" in response.headers:
        outcome.answered = True
        outcome.right = response.status_code == 200 and response.content == expected
        return
    document = response.json()
    outcome.problem = document["type"].rpartition(":")[2]
    outcome.delivered = document["delivered"]
