"""CPU time of processes, as the scheduler counts it: in nanoseconds, where `times` counts in ticks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from tests.support.processes import descendants


class Meter:
    """CPU time of named processes, their children included, since it was made."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._before = self._read()

    def spent_us(self) -> dict[str, float]:
        now = self._read()
        return {name: now[name] - self._before[name] for name in now}

    def _read(self) -> dict[str, float]:
        return {name: sum(map(_process_us, [pid, *descendants(pid)])) for name, pid in self._pids.items()}


def _process_us(pid: int) -> float:
    """Of all its threads; nothing for a process that is gone."""
    spent_ns = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            spent_ns += int(path.read_text().split()[0])
    return spent_ns / 1000
