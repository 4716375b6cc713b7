"""Runs a process's event loop: uvloop, few collections, an orderly end on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import uvloop

from restpipe.host import forks

_log = logging.getLogger(__name__)
_GC_THRESHOLD = 100_000
"""Young objects between two collections: at the default of 700, collecting is most of the tail latency."""
_kept: dict[int, Any] = {}
"""What Python calls for a signal of this process's own."""
_stop: Callable[[], None] | None = None
"""Cancels what `run` runs."""


def run(
    main: Coroutine[Any, Any, None],
    *,
    on_stop: Callable[[], object] = lambda: None,
    collect_seldom: bool = True,
) -> None:
    """Run `main` to its end. The first SIGTERM or SIGINT cancels it (once); it then takes what time it needs.

    A `main` that ends by that cancellation has ended well; whatever else it raises is raised here. `on_stop`
    is called by each of these signals at once, whatever the loop is at. `collect_seldom` is not for code of
    others: it may leave large objects in cycles.
    """
    gc.collect()
    gc.freeze()
    if collect_seldom:
        gc.set_threshold(_GC_THRESHOLD, 50, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        forks.own_loop(loop)
        task = loop.create_task(_until_signal(main, on_stop))
        try:
            _run(loop, task)
        finally:
            _kept.clear()


def stop() -> None:
    """Cancel what `run` runs in this thread, as the first signal would, which then has no more to cancel."""
    if _stop is not None:
        _stop()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    while True:
        try:
            loop.run_until_complete(task)
            return
        except (SystemExit, KeyboardInterrupt) as exc:
            if task.done():
                raise
            # Of a task that somebody else's code has started. A worker is stopped by signals.
            _log.error("a task raised %s, which does not end this process", type(exc).__name__, exc_info=exc)
        except RuntimeError:
            if task.done() or loop.is_closed():
                raise
            _log.error("somebody has stopped the loop: it goes on, since this process is ended by signals")


async def _until_signal(main: Coroutine[Any, Any, None], on_stop: Callable[[], object]) -> None:
    task = asyncio.get_running_loop().create_task(main)
    stopping = False

    def stop() -> None:
        # systemd and a terminal may both signal, and people press Ctrl-C again: cancelling twice
        # would cut short the very clean-up that the first one asked for.
        nonlocal stopping
        if not stopping:
            stopping = True
            task.cancel()

    global _stop
    _stop = stop
    for number in (signal.SIGTERM, signal.SIGINT):
        on_signal(number, stop, at_once=on_stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopping:
            raise
    finally:
        _stop = None


def on_signal(
    number: int, callback: Callable[[], object], *, at_once: Callable[[], object] | None = None
) -> None:
    """Have the running loop call `callback` for a signal, and Python `at_once`, whatever the loop is at.

    With `at_once` the callback may be called twice for one signal.

    Neither concerns processes that are forked from this one.
    """
    asyncio.get_running_loop().add_signal_handler(number, callback)
    if at_once is not None:
        of_loop: Any = signal.getsignal(number)
        loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:
            at_once()
            of_loop(number, frame)
            # Somebody may have set another descriptor for Python to wake loops by.
            loop.call_soon_threadsafe(callback)

        signal.signal(number, handle)
    forks.own_signal(number)
    _kept[number] = signal.getsignal(number)


def keep_signals() -> None:
    """Take back the signals that code of others has taken."""
    for number, handler in _kept.items():
        if signal.getsignal(number) is not handler:
            name = signal.Signals(number).name
            _log.warning("%s is RestPipe's: what the handler's code has set for it is not used", name)
            signal.signal(number, handler)
