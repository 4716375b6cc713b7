"""A folder, a CA, and a configuration that points at them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from restpipe.host.config import Config, Role, load
from tests.support.certificates import Made, authority

Configure = Callable[..., Config]


@pytest.fixture(scope="session")
def ca() -> Made:
    return authority("Test CA")


@pytest.fixture
def now() -> float:
    return time.time()


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """The configuration of a role whose folders are all below the temporary one."""

    def configured(role: Role = Role.CLIENT, **environ: str) -> Config:
        folders = {
            f"RP_{role.upper()}_CERT_PATH": str(tmp_path / role),
            "RP_RUNTIME_DIR": str(tmp_path / "run"),
            "RP_CONFIG_FILE": str(tmp_path / "empty.toml"),
        }
        (tmp_path / "empty.toml").touch()
        return load(role, folders | environ)

    return configured
