"""The limit of open files is raised as far as it goes, what is missing is told, and bytes are counted."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from restpipe.host.limits import Budget, allow_open_files

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "needed", "expected", "told"),
    [
        (1024, 20_000, 12_000, 20_000, False),
        (1024, 4096, 12_000, 4096, True),
        (20_000, 20_000, 12_000, 20_000, False),
        (4096, 4096, 12_000, 4096, True),
        (1024, UNLIMITED, 12_000, 12_000, False),
        (50_000, UNLIMITED, 12_000, 50_000, False),
        (UNLIMITED, UNLIMITED, 12_000, UNLIMITED, False),
    ],
)
def test_limits(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    soft: int,
    hard: int,
    needed: int,
    expected: int,
    told: bool,
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.append(both))
    allow_open_files(needed)
    assert limits[-1] == (expected, hard)
    assert ("files may be open at once" in caplog.text) is told


def test_a_budget_is_never_overdrawn() -> None:
    budget = Budget(10)
    assert budget.take(6)
    assert not budget.take(5)
    assert budget.take(4)
    assert budget.take(0)
    budget.give_back(6)
    assert budget.left == 6
    assert budget.take(5)


FILLING = """
import os
from restpipe.host.limits import fill_standard_descriptors

fill_standard_descriptors()
os.close(0)
os.close(1)
fill_standard_descriptors()
kept = os.open("/dev/zero", os.O_RDONLY)
assert kept > 2
os.write(1, b"nowhere")
assert os.read(0, 10) == b""
os.write(2, b"here")
"""


def test_nothing_gets_a_standard_descriptor_that_was_closed() -> None:
    done = subprocess.run([sys.executable, "-c", FILLING], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "here")
