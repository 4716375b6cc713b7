"""Runs a process's event loop: uvloop, few collections, an orderly end on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Coroutine
from typing import Any

import uvloop

_log = logging.getLogger(__name__)
_GC_THRESHOLD = 100_000
"""Young objects between two collections: at the default of 700, collecting is most of the tail latency."""


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` to its end. The first SIGTERM or SIGINT cancels it (once); it then takes what time it needs.

    A `main` that ends by that cancellation has ended well; whatever else it raises is raised here.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 50, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_until_signal(main))
        except (SystemExit, KeyboardInterrupt):
            # Of a task that somebody else's code has started: nothing here stops a process so.
            _log.exception("a task ends the process")
            raise


async def _until_signal(main: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(main)
    stopping = False

    def stop() -> None:
        # systemd and a terminal may both signal, and people press Ctrl-C again: cancelling twice
        # would cut short the very clean-up that the first one asked for.
        nonlocal stopping
        if not stopping:
            stopping = True
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopping:
            raise
