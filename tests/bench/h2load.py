"""Load on a Unix socket by h2load, which takes so little CPU that it hardly shows beside what it measures."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.bench.failures import BenchError, cause

GRACE_S = 30.0
"""How much longer than it was told h2load may take before it is ended."""


class Load(NamedTuple):
    done: int
    failed: int
    """Answered with another status than 2xx, or not at all."""


def load(path: Path, target: str, in_flight: int, seconds: float) -> Load:
    """Keeps `in_flight` requests under way, each on a connection of its own, from one thread."""
    command = ["h2load", "--h1", "-t", "1", "-c", str(in_flight), "-D", f"{max(1, round(seconds * 1000))}ms"]
    command += ["--base-uri", f"unix:{path}", f"http://localhost{target}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE_S)
    except subprocess.TimeoutExpired:
        raise BenchError(f"h2load did not end in time with {target}") from None
    except FileNotFoundError:
        raise BenchError("h2load is not installed (nghttp2-client)") from None
    return parsed(done.stdout, f"{target}: {cause(done.stderr or done.stdout)}")


def parsed(report: str, what: str) -> Load:
    """The counts in h2load's report. BenchError with `what` where nothing has been answered."""
    requests = re.search(
        r"^requests: .* (\d+) done, \d+ succeeded, (\d+) failed, \d+ errored", report, re.MULTILINE
    )
    statuses = re.search(r"^status codes: (\d+) 2xx", report, re.MULTILINE)
    if requests is None or statuses is None or requests[1] == "0":
        raise BenchError(f"h2load got no answer: {what}")
    done, failed = int(requests[1]), int(requests[2])
    return Load(done, max(failed, done - int(statuses[1])))
