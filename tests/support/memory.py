"""How much memory processes take, as the kernel counts it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def resident(pids: Iterable[int]) -> dict[int, int]:
    """Bytes each process has in memory now; from here on its peak is counted anew."""
    now = {}
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM to VmRSS
        now[pid] = _field(pid, "VmRSS")
    return now


def peaks(pids: Iterable[int]) -> dict[int, int]:
    """The most bytes each process had in memory since `resident`."""
    return {pid: _field(pid, "VmHWM") for pid in pids}


def _field(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise LookupError(f"process {pid} has no {name}: it has ended")
