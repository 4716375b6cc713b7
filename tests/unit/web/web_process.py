"""The real `restpipe web` in processes of its own, and ways to talk to it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.processes import clean_environment

PATIENCE_S = 20.0

_MAIN = """
import os, sys
if int(sys.argv[3]) >= 0:
    os.dup2(int(sys.argv[3]), 3)
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
from pathlib import Path
from restpipe.host.config import Role, load
from restpipe.web.server import main
sys.exit(main(load(Role(sys.argv[1]), file=Path(sys.argv[2]))))
"""


class WebProcess:
    """Runs while entered. `options` are named like WEB_WAIT_S."""

    def __init__(
        self,
        directory: Path,
        role: str,
        options: Mapping[str, int | float] = {},
        *,
        listen_fd: int = -1,
        **environ: str,
    ) -> None:
        self.directory = directory
        self.socket_path = str(directory / "web.sock")
        self.log_path = directory / "web.log"
        self._role = role
        self._environ = environ
        self._listen_fd = listen_fd
        tables: dict[str, list[str]] = {}
        for name, value in options.items():
            part, _, key = name.lower().partition("_")
            tables.setdefault(part, []).append(f"{key} = {value}")
        self._toml = "\n".join(f"[{part}]\n" + "\n".join(lines) for part, lines in tables.items())

    def __enter__(self) -> WebProcess:
        file = self.directory / "config.toml"
        file.write_text(self._toml)
        environ = clean_environment(
            {"RP_RUNTIME_DIR": str(self.directory), "RP_STATSD_HOST": "", "RP_STATSD_PORT": ""}
        )
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, self._role, str(file), str(self._listen_fd)],
                env=environ | self._environ,
                stderr=log,
                pass_fds=[self._listen_fd] if self._listen_fd >= 0 else [],
            )
        self.wait_until_serving()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_until_serving(self) -> None:
        ends = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.request("GET", "/nowhere")
            except OSError:
                assert self.process.poll() is None, self.log
                assert time.monotonic() < ends, self.log
                time.sleep(0.02)
            else:
                return

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(self.socket_path)
        return sock

    def connection(self) -> UnixConnection:
        return UnixConnection(self.socket_path)

    def request(self, verb: str, target: str, body: Any = None, headers: Any = None) -> Response:
        connection = self.connection()
        try:
            connection.request(verb, target, body, headers or {})
            return Response(connection.getresponse())
        finally:
            connection.close()

    def exchange(self, *pieces: bytes) -> bytes:
        """Sends raw bytes; everything that comes back until the server closes."""
        with self.connect() as sock:
            for piece in pieces:
                sock.sendall(piece)
            return receive_all(sock)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self._path)


class Response:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def receive_all(sock: socket.socket) -> bytes:
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "it did not come true"
        time.sleep(0.01)
