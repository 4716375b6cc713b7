"""Bodies of a GiB by curl, thrown away as they come."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.failures import BenchError

BIG = 1 << 30
MOST_S = 300.0
"""How long one may take."""


class Transfer:
    """Leaving the `with` block ends it, wherever it is."""

    def __init__(self, command: Sequence[str], what: str) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._what = what

    @property
    def under_way(self) -> bool:
        return self._process.poll() is None

    def seconds(self) -> float:
        """How long it took, once it is over. BenchError unless all of it has come through."""
        report, _ = self._process.communicate()
        status, down, up, seconds = report.split()
        size = max(int(down), int(up))
        if status != "200" or size != BIG:
            raise BenchError(f"{self._what}: status {status}, {size} bytes of {BIG}")
        return float(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


def download(path: Path, target: str) -> Transfer:
    return _curl(path, target)


def upload(path: Path, target: str, body: Path) -> Transfer:
    return _curl(path, target, "-X", "POST", "-T", str(body), "-H", "Expect:")


def make_body(path: Path) -> Path:
    """A file of that size that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(BIG)
    return path


def _curl(path: Path, target: str, *more: str) -> Transfer:
    shown = "%{http_code} %{size_download} %{size_upload} %{time_total}"
    command = ["curl", "-q", "-s", "-m", f"{MOST_S:g}", "-o", "/dev/null", "-w", shown, *more]
    command += ["-H", "Content-Type: application/octet-stream", "--unix-socket", str(path)]
    return Transfer([*command, f"http://localhost{target}"], target)
