"""Scenes that every test of faults makes for itself: nothing of one is left for the next."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.scene import Scene
from tests.support.identities import Authority


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a path short enough for Unix sockets in it (107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="rp-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def authority() -> Iterator[Authority]:
    with tempfile.TemporaryDirectory(prefix="rp-") as name:
        yield Authority(Path(name))


@pytest.fixture
def scene(folder: Path, authority: Authority) -> Callable[..., Scene]:
    """Makes the test's scene, not entered yet; further arguments as of `Scene`."""

    def make(*arguments: Any, **options: Any) -> Scene:
        return Scene(folder, authority, *arguments, **options)

    return make
