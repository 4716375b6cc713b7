"""No test may leave a process, a socket or a mount behind, whether it passes or fails."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.processes import command_line, descendants

_PR_SET_CHILD_SUBREAPER = 36

# How long one example takes says nothing on a busy machine.
settings.register_profile("restpipe", deadline=None)
settings.load_profile("restpipe")


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fails the run when something outlives the tests that made it."""
    # Orphans of our children become ours instead of init's: none can hide from the look at the end.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    processes, mounts = set(descendants(os.getpid())), _mounts()

    def look() -> None:
        left = _end_new(processes)
        assert not left, f"processes left behind: {left}"
        assert _mounts() <= mounts, f"mounts left behind: {_mounts() - mounts}"
        found = tmp_path_factory.getbasetemp().rglob("*")
        sockets = [path for path in found if stat.S_ISSOCK(path.lstat().st_mode)]
        assert not sockets, f"sockets left behind: {sockets}"

    # What comes behind a `yield` here ran before other fixtures' ends with older pytest. The session's own
    # finalizers run in the reverse of their order, and this is the first.
    request.session.addfinalizer(look)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary folder whose path is short enough for Unix sockets in it (107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="rp-") as folder:
        yield Path(folder)


def _end_new(before: set[int]) -> list[str]:
    """Ends the processes that are new and says which they were."""
    left = {pid: command_line(pid) for pid in descendants(os.getpid()) if pid not in before and _alive(pid)}
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"{pid}: {command}" for pid, command in left.items()]


def _alive(pid: int) -> bool:
    """Not merely an orphan that has ended and that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _mounts() -> set[str]:
    """Mount points in the tests' own temporary folders; other programs mount things too."""
    points = {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}
    return {point for point in points if "/rp-" in point or "/pytest-" in point}
