"""Fixtures for tests with real processes: a folder, and a CA that they share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.identities import Authority


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a path short enough for Unix sockets in it (107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="rp-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def authority() -> Iterator[Authority]:
    """One CA for all tests that do nothing to it."""
    with tempfile.TemporaryDirectory(prefix="rp-") as name:
        yield Authority(Path(name))
