"""The limit of open files is raised as far as it goes, and what is missing is told."""

from __future__ import annotations

import resource

import pytest

from restpipe.host.limits import allow_open_files

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
