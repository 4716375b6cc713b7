"""Scenes that every test of faults makes for itself: nothing of one is left for the next."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.scene import Scene
from tests.support.fixtures import authority, folder
from tests.support.identities import Authority

__all__ = ["authority", "folder", "scene"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where all must run, what was left out for want of something is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("SKIP_NOTHING") and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("tests were left out, and SKIP_NOTHING is set", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def scene(folder: Path, authority: Authority) -> Callable[..., Scene]:
    """Makes the test's scene, not entered yet; further arguments as of `Scene`."""

    def make(*arguments: Any, **options: Any) -> Scene:
        return Scene(folder, authority, *arguments, **options)

    return make
