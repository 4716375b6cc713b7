"""A moment and a CA to test with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from restpipe_ca import commands
from restpipe_ca.authority import Authority
from restpipe_ca.store import Store


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 3, 1, 12, 0, 0, 654321, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path, now: datetime) -> Store:
    store = Store(tmp_path / "ca")
    commands.init(store, "Test CA", now)
    return store


@pytest.fixture
def ca(store: Store) -> Authority:
    return store.unlock(commands.no_passphrase)
