from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.web.fake_daemon import FakeDaemon, echo
from tests.unit.web.web_process import WebProcess


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """Short, for the path of a Unix socket is."""
    with tempfile.TemporaryDirectory(prefix="rp-web-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def shared_daemon(run_directory: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(run_directory / "events.sock", echo) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def shared_web(run_directory: Path, shared_daemon: FakeDaemon) -> Iterator[WebProcess]:
    limits = {"WEB_MAX_BODY_BYTES": 3_000_000, "WEB_MAX_IN_FLIGHT": 20, "WEB_KEEP_BODY_BYTES": 1_000_000}
    with WebProcess(run_directory, "server", limits) as web:
        yield web


@pytest.fixture
def daemon(shared_daemon: FakeDaemon) -> Iterator[FakeDaemon]:
    """The daemon of `web`: set its `answer`; it echoes unless told otherwise."""
    shared_daemon.answer = echo
    shared_daemon.events.clear()
    yield shared_daemon
    shared_daemon.answer = echo


@pytest.fixture
def web(shared_web: WebProcess, daemon: FakeDaemon) -> WebProcess:
    """A real web server of the server's role, in processes of its own, linked to `daemon`."""
    return shared_web
