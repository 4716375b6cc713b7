"""A worker process under gunicorn: its signals, its heartbeat, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from restpipe.web import worker
from restpipe.web.server import MEMORY
from restpipe.web.worker import Worker
from tests.unit.web.fake_daemon import FakeDaemon, echo, silence
from tests.unit.web.memory import MemoryLink
from tests.unit.web.memory import worker as connections_of
from tests.unit.web.web_process import PATIENCE_S, WebProcess, receive_all, wait_for

GET = b"GET /client/a/x HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, for the path of a Unix socket is."""
    with tempfile.TemporaryDirectory(prefix="rp-web-") as name:
        yield Path(name)


def worker_of(web: WebProcess) -> int:
    children = Path(f"/proc/{web.process.pid}/task/{web.process.pid}/children").read_text()
    (worker,) = map(int, children.split())
    return worker


@pytest.mark.skipif(not os.access(MEMORY, os.W_OK), reason="there is no such folder here")
def test_heartbeats_are_written_to_no_disk(directory: Path) -> None:
    with FakeDaemon(directory / "events.sock", echo), WebProcess(directory, "server", TMPDIR="/x") as web:
        beats: set[str] = set()
        for open_file in Path(f"/proc/{worker_of(web)}/fd").iterdir():
            # What is closed meanwhile is no such file: that stays open.
            with contextlib.suppress(FileNotFoundError):
                file = open_file.readlink()
                if file.name.startswith("wgunicorn-"):
                    beats.add(str(file.parent))
        assert beats == {MEMORY}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_waits_for_no_request(directory: Path, number: int) -> None:
    with FakeDaemon(directory / "events.sock", silence) as daemon, WebProcess(directory, "server") as web:
        with web.connect() as sock:
            sock.sendall(GET)
            wait_for(lambda: bool(daemon.events))
            began = time.monotonic()
            web.process.send_signal(number)
            assert receive_all(sock) == b""
        assert web.process.wait(PATIENCE_S) == 0
        assert time.monotonic() - began < 5
        wait_for(lambda: daemon.events[0].reset is not None)
        assert "Traceback" not in web.log


def test_a_quick_stop_cuts_a_slow_one_short(directory: Path) -> None:
    with FakeDaemon(directory / "events.sock", silence) as daemon, WebProcess(directory, "server") as web:
        with web.connect() as sock:
            sock.sendall(GET)
            wait_for(lambda: bool(daemon.events))
            pid = worker_of(web)
            began = time.monotonic()
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.5)
            assert daemon.events[0].reset is None
            os.kill(pid, signal.SIGQUIT)
            assert receive_all(sock) == b""
        assert time.monotonic() - began < 5


def test_a_stop_waits_for_requests_no_longer_than_the_drain_time(directory: Path) -> None:
    limits = {"PIPE_DRAIN_TIMEOUT_S": 0.5}
    with FakeDaemon(directory / "events.sock", silence) as daemon:
        with WebProcess(directory, "server", limits) as web, web.connect() as sock:
            sock.sendall(GET)
            wait_for(lambda: bool(daemon.events))
            began = time.monotonic()
            web.process.send_signal(signal.SIGTERM)
            assert receive_all(sock) == b""
            assert 0.4 < time.monotonic() - began < 1.4
            assert web.process.wait(PATIENCE_S) == 0
        wait_for(lambda: daemon.events[0].reset is not None)
        assert "Traceback" not in web.log


def test_opening_the_logs_again_disturbs_nothing(directory: Path) -> None:
    with FakeDaemon(directory / "events.sock", echo), WebProcess(directory, "server") as web:
        pid = worker_of(web)
        os.kill(pid, signal.SIGUSR1)
        assert web.request("GET", "/client/a/x").status == 200
        assert worker_of(web) == pid


def test_a_worker_that_the_arbiter_aborts_ends(directory: Path) -> None:
    with WebProcess(directory, "server") as web:
        pid = worker_of(web)
        os.kill(pid, signal.SIGABRT)
        wait_for(lambda: not Path(f"/proc/{pid}").exists())
        wait_for(lambda: web.request("GET", "/nowhere").status == 404)


def test_many_connections_may_come_at_once(directory: Path) -> None:
    with WebProcess(directory, "server") as web, contextlib.ExitStack() as stack:
        pid = worker_of(web)
        os.kill(pid, signal.SIGSTOP)
        try:
            # None is taken, all wait in the socket's backlog.
            socks = [stack.enter_context(web.connect()) for _ in range(1000)]
        finally:
            os.kill(pid, signal.SIGCONT)
        for sock in socks:
            sock.sendall(GET.replace(b"/client/a/x", b"/nowhere"))
        assert all(sock.recv(1000).startswith(b"HTTP/1.1 404 ") for sock in socks)


def test_each_tick_is_a_heartbeat_and_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TICK_S", 0.01)
    beats: list[float] = []

    async def main() -> None:
        connections = connections_of(MemoryLink())
        process = Worker.__new__(Worker)
        process.notify = lambda: beats.append(connections.serving.now)
        process._tick(connections)
        first = connections.serving.now
        await asyncio.sleep(0.1)
        assert connections.serving.now > first

    asyncio.run(main())
    assert len(beats) > 2


@pytest.mark.parametrize(("limit", "room"), [(1024, 1024 - 64), (1_000_000, 4096)])
def test_there_are_no_more_connections_than_files(
    limit: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (min(limit, 1024), limit))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    assert worker.room_for_connections() == room
