"""More requests than can be answered, from callers who do not take a refusal for an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.callers import Callers


@dataclass(frozen=True)
class Response:
    """Time is told by the handlers' own work: a moment is how many answers they had given by then."""

    asked_at: int
    ended_at: int
    status: int
    retry_after: str
    problem: str
    delivered: str
    closes: bool

    @property
    def answers_meanwhile(self) -> int:
        """How many others were answered while this one waited."""
        return self.ended_at - self.asked_at


class Flood(Callers):
    """`callers` at one socket, each with its own connection; a refused one asks again after `pause_s`.

    With a `body` they POST. Leaving the `with` block hangs up.
    """

    def __init__(
        self,
        path: Path,
        target: str,
        *,
        callers: int,
        wait_s: float,
        pause_s: float = 0.0,
        body: bytes = b"",
    ) -> None:
        super().__init__()
        self.responses: list[Response] = []
        self.asked = 0
        self.answered = 0
        self._path = path
        self._callers = callers
        self._pause_s = pause_s
        verb, length = ("POST", f"Content-Length: {len(body)}\r\n") if body else ("GET", "")
        head = f"{verb} {target} HTTP/1.1\r\nHost: flood\r\nPrefer: wait={wait_s:g}\r\n{length}\r\n"
        self._request = head.encode() + body

    def _calls(self) -> Iterator[Coroutine[Any, Any, None]]:
        return (self._call() for _ in range(self._callers))

    def _stop(self) -> None:
        self._hang_up()

    async def _call(self) -> None:
        while True:
            reader, writer = await asyncio.open_unix_connection(str(self._path))
            try:
                while not await self._ask(reader, writer):
                    """The connection is kept."""
            finally:
                writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection is closed behind the answer: where its body was not wanted any more."""
        writer.write(self._request)
        self.asked += 1
        response = await self._read(reader, self.answered)
        self.responses.append(response)
        if response.status != 200:
            await asyncio.sleep(self._pause_s)
        return response.closes

    async def _read(self, reader: asyncio.StreamReader, asked_at: int) -> Response:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        status = int(status_line.split()[1])
        document = {} if status == 200 else json.loads(body)
        self.answered += status == 200
        return Response(
            asked_at,
            self.answered,
            status,
            headers.get("retry-after", ""),
            document.get("type", "").rpartition(":")[2],
            document.get("delivered", ""),
            headers.get("connection", "") == "close",
        )
