"""Tells the user's hooks what became of the pipe: one after another, in order, never on the loop if plain."""

from __future__ import annotations

import asyncio
import datetime
import functools
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from restpipe.handler.faults import ends_task
from restpipe.host.sandbox import hint
from restpipe.protocol.schema_pb2 import Notice

MAX_WAITING = 1000
"""Notices that wait for slow hooks; past it the oldest is dropped."""

Run = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a plain function in a thread and gives its result."""

_log = logging.getLogger(__name__)


class HookCall(NamedTuple):
    """A hook's names, newest first, and what it is called with."""

    names: tuple[str, ...]
    arguments: tuple[Any, ...]


def hook_call(notice: Notice, now: float) -> HookCall | None:
    """Make the call that a notice asks for; None for kinds that are not known here. `now` is Unix time."""
    since = datetime.datetime.fromtimestamp(notice.since) if notice.since else None
    match notice.kind:
        case Notice.CONNECTION_SUCCESS:
            return HookCall(("connection_success", "connect_success"), (notice.attempts, since))
        case Notice.CONNECTION_FAIL:
            return HookCall(("connection_fail", "connect_fail"), (notice.attempts, since))
        case Notice.CONNECTION_ADDED:
            return HookCall(("connection_added",), (notice.peer_address, notice.connected))
        case Notice.CONNECTION_REMOVED:
            return HookCall(("connection_removed",), (notice.peer_address, notice.connected))
        case Notice.IDLE:
            began = notice.since or now
            moment = datetime.datetime.fromtimestamp(began)
            return HookCall(("idle",), (moment, max(0.0, now - began)))
    return None


async def call_hook(hook: Callable[..., Any], arguments: Sequence[Any], run: Run) -> None:
    """Call a hook that is plain or async, and raise what it raises."""
    if inspect.iscoroutinefunction(hook):
        await hook(*arguments)
        return
    # Under the hook's own name: a thread that it holds up is told by that.
    result = await run(functools.update_wrapper(functools.partial(hook, *arguments), hook))
    if inspect.isawaitable(result):
        await result


class StateHooks:
    """Calls the hooks that some objects have, for each notice."""

    def __init__(self, listeners: Sequence[object], run: Run) -> None:
        self._listeners = listeners
        self._run = run
        self._waiting: deque[Notice] = deque(maxlen=MAX_WAITING)
        self._came = asyncio.Event()

    def take(self, notice: Notice) -> None:
        """Have the hooks called for a notice that came in."""
        if len(self._waiting) == MAX_WAITING:
            _log.warning(
                "the hooks for connections are too slow: the oldest of %d notices is lost", MAX_WAITING
            )
        self._waiting.append(notice)
        self._came.set()

    async def run(self) -> None:
        """Call hooks until cancelled; those that fail are logged."""
        while True:
            await self._came.wait()
            self._came.clear()
            while self._waiting:
                await self._tell(self._waiting.popleft())

    async def _tell(self, notice: Notice) -> None:
        call = hook_call(notice, time.time())
        if call is None:
            return
        for listener in self._listeners:
            hook = next((found for name in call.names if (found := getattr(listener, name, None))), None)
            if hook is None:
                continue
            try:
                await call_hook(hook, call.arguments, self._run)
            except BaseException as exc:
                if ends_task(exc):
                    raise
                _log.exception("%s of %s failed%s", call.names[0], type(listener).__name__, hint(exc))
