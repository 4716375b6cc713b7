"""What the user's code raises, whatever it is, ends no more than what it was called for."""

from __future__ import annotations

import asyncio


def ends_task(exc: BaseException) -> bool:
    """Tell whether the running task is to end by `exc`. Anything else is the result of the user's code.

    A worker is stopped by signals to its loop: SystemExit and KeyboardInterrupt come from the user's code
    alone. So may a cancellation, of something that it awaited: only the task knows whether it was meant.
    """
    if isinstance(exc, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(exc, GeneratorExit)
