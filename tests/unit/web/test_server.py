"""The web server's processes: sockets, signals, and what the service manager is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from restpipe.errors import ConfigError
from restpipe.host.config import Role, load
from restpipe.web import server
from tests.unit.web.fake_daemon import FakeDaemon, FakeEvent, echo, silence
from tests.unit.web.web_process import PATIENCE_S, WebProcess, receive_all, wait_for

GET = b"GET /client/a/x HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, for the path of a Unix socket is."""
    with tempfile.TemporaryDirectory(prefix="rp-web-") as name:
        yield Path(name)


def test_the_socket_is_for_owner_and_group(directory: Path) -> None:
    with WebProcess(directory, "server") as web:
        mode = (directory / "web.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660
    assert web.process.returncode == 0
    assert not (directory / "web.sock").exists()
    assert "Traceback" not in web.log
    assert " ERROR " not in web.log


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o777])
def test_the_socket_is_for_whom_the_configuration_says(directory: Path, mode: int) -> None:
    with WebProcess(directory, "server", {"SOCKETS_MODE": mode}):
        assert stat.S_IMODE((directory / "web.sock").stat().st_mode) == mode


def test_a_stale_socket_is_replaced(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(directory / "web.sock"))
    with WebProcess(directory, "server") as web:
        assert web.request("GET", "/nowhere").status == 404


def test_a_socket_in_use_is_left_alone(directory: Path) -> None:
    config = load(Role.SERVER, {"RP_RUNTIME_DIR": str(directory)}, file=Path(os.devnull))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(config.sockets.web))
        other.listen()
        with pytest.raises(ConfigError, match="already"):
            server.main(config)
    assert config.sockets.web.exists()


def test_what_is_no_socket_is_left_alone(directory: Path) -> None:
    config = load(Role.SERVER, {"RP_RUNTIME_DIR": str(directory)}, file=Path(os.devnull))
    config.sockets.web.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        server.main(config)
    assert config.sockets.web.read_text() == "precious"


def test_a_client_has_one_peer(directory: Path) -> None:
    with FakeDaemon(directory / "events.sock", echo), WebProcess(directory, "client") as web:
        said = web.request("GET", "/server/cat//hello%20/world").json
        assert (said["to"], said["target"]) == ("", "/cat//hello%20/world")
        refused = web.request("GET", "/client/a/x")
        assert refused.status == 404
        assert "/server/NOUN" in refused.json["detail"]


def test_requests_wait_for_the_daemon(directory: Path) -> None:
    with WebProcess(directory, "server") as web:
        late = web.request("GET", "/client/a/x", headers={"Prefer": "wait=0.2"})
        assert late.status == 503
        assert late.json["delivered"] == "no"
        assert late.json["type"] == "urn:restpipe:problem:unreachable"
        assert "retry-after" in late.headers
        with web.connect() as sock:
            sock.sendall(
                b"POST /client/a/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
            )
            with FakeDaemon(directory / "events.sock", echo):
                assert json.loads(receive_all(sock).partition(b"\r\n\r\n")[2])["body"] == "hi"


def test_the_service_manager_is_told_when_a_worker_serves(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(directory / "notify"))
        manager.settimeout(PATIENCE_S)
        with WebProcess(
            directory, "server", NOTIFY_SOCKET=str(directory / "notify"), WATCHDOG_USEC="100000"
        ) as web:
            said = manager.recv(1000)
            while b"READY=1" not in said:
                assert said == b"WATCHDOG=1"
                said = manager.recv(1000)
            assert web.request("GET", "/nowhere").status == 404
            for _ in range(2):
                assert manager.recv(1000) == b"WATCHDOG=1"
        manager.settimeout(0)
        told = b""
        with pytest.raises(BlockingIOError):
            while True:
                told += manager.recv(1000) + b"\n"
        assert b"STOPPING=1\n" in told
        assert b"READY" not in told


def test_the_watchdog_is_fed_by_the_process_that_watches_over_the_workers(directory: Path) -> None:
    """gunicorn kills a worker that hangs; if gunicorn stands still, only the service manager notices."""
    credentials = struct.Struct("3i")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.bind(str(directory / "notify"))
        manager.settimeout(PATIENCE_S)
        notify = {"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "100000"}
        with WebProcess(directory, "server", **notify) as web:
            fed_by = []
            while len(fed_by) < 3:
                said, ancillary, _, _ = manager.recvmsg(1000, socket.CMSG_SPACE(credentials.size))
                if said == b"WATCHDOG=1":
                    fed_by.append(credentials.unpack(ancillary[0][2])[0])
            assert set(fed_by) == {web.process.pid}


def test_a_stopping_server_finishes_what_it_has(directory: Path) -> None:
    release = threading.Event()

    async def answer(event: FakeEvent) -> None:
        if event.event.target == "/slow":
            await event.until(lambda: release.is_set() or event.reset is not None)
        await echo(event)

    with FakeDaemon(directory / "events.sock", answer) as daemon, WebProcess(directory, "server") as web:
        with web.connect() as slow, web.connect() as fresh:
            slow.sendall(GET.replace(b"/x", b"/slow"))
            wait_for(lambda: bool(daemon.events))
            # The worker has the connection by the time it answers another one.
            web.request("GET", "/nowhere")
            web.process.send_signal(signal.SIGTERM)
            wait_for(lambda: not (directory / "web.sock").exists())
            # A request that arrives over a connection from before.
            fresh.sendall(GET)
            assert receive_all(fresh).startswith(b"HTTP/1.1 200 ")
            assert web.process.poll() is None
            release.set()
            daemon.call(daemon.events[0].changed.set)
            assert receive_all(slow).startswith(b"HTTP/1.1 200 ")
        assert web.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in web.log


def test_a_worker_that_dies_is_replaced(directory: Path) -> None:
    with FakeDaemon(directory / "events.sock", silence) as daemon, WebProcess(directory, "server") as web:
        with web.connect() as sock:
            sock.sendall(GET)
            wait_for(lambda: bool(daemon.events))
            (worker,) = workers(web)
            os.kill(worker, signal.SIGKILL)
            assert receive_all(sock) == b""
        daemon.answer = echo
        assert web.request("GET", "/client/a/x").status == 200


def test_no_worker_outlives_the_server(directory: Path) -> None:
    with WebProcess(directory, "server") as web:
        (worker,) = workers(web)
        web.process.kill()
        web.process.wait(PATIENCE_S)
        # Orphans become children of the test run (tests/conftest.py).
        wait_for(lambda: os.waitpid(worker, os.WNOHANG)[0] == worker)
    with WebProcess(directory, "server") as web:
        assert web.request("GET", "/nowhere").status == 404


def workers(web: WebProcess) -> set[int]:
    children = Path(f"/proc/{web.process.pid}/task/{web.process.pid}/children").read_text()
    return set(map(int, children.split()))


def test_a_reload_loses_no_request(directory: Path) -> None:
    with FakeDaemon(directory / "events.sock", echo), WebProcess(directory, "server") as web:
        statuses: list[int] = []
        stop = threading.Event()

        def load_it() -> None:
            while not stop.is_set():
                statuses.append(web.request("GET", "/client/a/x").status)

        before = workers(web)
        thread = threading.Thread(target=load_it)
        thread.start()
        web.process.send_signal(signal.SIGHUP)
        wait_for(lambda: not workers(web) & before)
        stop.set()
        thread.join()
        assert set(statuses) == {200}


def test_a_reload_in_a_folder_that_is_deleted(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployments replace folders."""
    folder = tmp_path / "release"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with WebProcess(directory, "server") as web:
        folder.rmdir()
        before = workers(web)
        web.process.send_signal(signal.SIGHUP)
        wait_for(lambda: bool(workers(web)) and not workers(web) & before)
        assert web.request("GET", "/nowhere").status == 404
        assert f"{folder}, has been deleted: going on in /" in web.log


def test_a_socket_can_be_handed_over(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        path = directory / "web.sock"
        listener.bind(str(path))
        listener.listen()
        inode = path.stat().st_ino
        # systemd passes it as descriptor 3, to the process whose id it names.
        with WebProcess(directory, "server", listen_fd=listener.fileno()) as web:
            assert web.request("GET", "/nowhere").status == 404
        assert web.process.returncode == 0
        assert path.stat().st_ino == inode
