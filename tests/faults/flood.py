"""More requests than can be answered, from callers who do not take a refusal for an answer."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Response:
    status: int
    seconds: float
    retry_after: str
    problem: str


class Flood:
    """`callers` at one socket, each with its own connection; a refused one asks again after `pause_s`."""

    def __init__(self, path: Path, target: str, *, callers: int, wait_s: float, pause_s: float = 0.0) -> None:
        self.responses: list[Response] = []
        self._path = path
        self._callers = callers
        self._pause_s = pause_s
        head = f"GET {target} HTTP/1.1\r\nHost: flood\r\nPrefer: wait={wait_s:g}\r\n\r\n"
        self._request = head.encode()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Hangs up."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(self._loop)])
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def count(self, status: int) -> int:
        return sum(response.status == status for response in list(self.responses))

    def _run(self) -> None:
        async def all_callers() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._callers):
                    group.create_task(self._call())

        try:
            self._loop.run_until_complete(all_callers())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._failure = error
        finally:
            self._loop.close()

    async def _call(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        try:
            while True:
                began = time.monotonic()
                writer.write(self._request)
                response = await _read(reader, began)
                self.responses.append(response)
                if response.status != 200:
                    await asyncio.sleep(self._pause_s)
        finally:
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader, began: float) -> Response:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    status = int(status_line.split()[1])
    problem = "" if status == 200 else json.loads(body)["type"].rpartition(":")[2]
    return Response(status, time.monotonic() - began, headers.get("retry-after", ""), problem)
