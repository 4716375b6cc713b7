"""Scenes that every test of faults makes for itself: nothing of one is left for the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.scene import Scene
from tests.support.fixtures import authority, folder
from tests.support.identities import Authority

__all__ = ["authority", "folder", "scene"]


@pytest.fixture
def scene(folder: Path, authority: Authority) -> Callable[..., Scene]:
    """Makes the test's scene, not entered yet; further arguments as of `Scene`."""

    def make(*arguments: Any, **options: Any) -> Scene:
        return Scene(folder, authority, *arguments, **options)

    return make
