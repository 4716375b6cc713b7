"""No test may leave a process, a socket or a mount behind, whether it passes or fails."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def descendants() -> set[str]:
    """Command lines of all processes that come from this one, zombies left out."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            commands[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:
            continue
        if status[0] != "Z":
            parents[int(entry.name)] = int(status[1])
    found: set[str] = set()
    for pid in parents:
        above = parents.get(pid)
        while above and above != os.getpid():
            above = parents.get(above)
        if above:
            found.add(f"{pid}: {commands[pid]}")
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails the run when a process or a mount outlives the tests that made it."""
    processes, mounts = descendants(), Path("/proc/self/mounts").read_text()
    yield
    left = descendants() - processes
    assert not left, f"processes left behind: {sorted(left)}"
    assert Path("/proc/self/mounts").read_text() == mounts, "mounts left behind"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary folder whose path is short enough for Unix sockets in it (108 bytes)."""
    with tempfile.TemporaryDirectory(prefix="rp-") as folder:
        yield Path(folder)
