"""Calls that go on beside a test, in a thread and a loop of their own."""

from __future__ import annotations

import abc
import asyncio
import threading
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, Self


class Callers(abc.ABC):
    """Entering starts them. Leaving has them stop, waits for them and raises what failed in them."""

    def __init__(self) -> None:
        self._failure: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @abc.abstractmethod
    def _calls(self) -> Iterable[Coroutine[Any, Any, None]]:
        """What each of them does, until told to stop."""

    @abc.abstractmethod
    def _stop(self) -> None:
        """Tells them, from the test's thread; `_hang_up` does it without another word."""

    def _hang_up(self) -> None:
        self._loop.call_soon_threadsafe(self._all.cancel)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._stop()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._call_all())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._failure = error

    async def _call_all(self) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._all = task
        async with asyncio.TaskGroup() as group:
            for call in self._calls():
                group.create_task(call)
            self._started.set()
