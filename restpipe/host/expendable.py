"""Who goes first when memory runs out: a process that only tries something, rather than one that serves."""

from __future__ import annotations

import contextlib
from pathlib import Path

FIRST = 500
"""Added to the kernel's score of 0 to 1,000, which is a process's share of the memory that there is."""
_ADJUSTMENT = Path("/proc/self/oom_score_adj")


class Expendable:
    """Makes this process the kernel's first choice until `keep`. Has no effect where that is forbidden."""

    def __init__(self) -> None:
        self._before = ""
        with contextlib.suppress(OSError, ValueError):
            before = _ADJUSTMENT.read_text().strip()
            _ADJUSTMENT.write_text(str(min(1000, int(before) + FIRST)))
            self._before = before

    def keep(self) -> None:
        """It serves now: its score is as before."""
        if self._before:
            with contextlib.suppress(OSError):
                _ADJUSTMENT.write_text(self._before)
