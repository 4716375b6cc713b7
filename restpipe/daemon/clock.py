"""The time that all of the daemon goes by."""

from __future__ import annotations

import asyncio


def now() -> float:
    """The running loop's monotonic time, in seconds."""
    return asyncio.get_running_loop().time()
