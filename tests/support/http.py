"""HTTP over a Unix socket: a client for well-formed requests, and one for any bytes."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPMessage
from pathlib import Path
from typing import Any

import httpx


def client(path: Path, **options: Any) -> httpx.Client:
    """An httpx client whose every request goes to the socket at `path`."""
    options.setdefault("timeout", 60.0)
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost", **options)


def async_client(path: Path, **options: Any) -> httpx.AsyncClient:
    """Its asynchronous twin, with as many connections as are wanted."""
    options.setdefault("timeout", 60.0)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    transport = httpx.AsyncHTTPTransport(uds=str(path), limits=limits)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", **options)


def connect(path: Path) -> socket.socket:
    """A raw connection; reads give up after a while."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(30)
    sock.connect(str(path))
    return sock


def raw(path: Path, request: bytes) -> bytes:
    """Sends any bytes, then reads until the other side closes or has been silent for a while."""
    with connect(path) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    """What comes until the other side closes."""
    with sock.makefile("rb") as stream:
        return stream.read()


@dataclass(frozen=True)
class Answer:
    """A response, read whole."""

    status: int
    headers: HTTPMessage
    """Looked up without regard to case; `get_all` for repeated ones."""
    body: bytes

    @property
    def event_code(self) -> int | None:
        """The handler's return code; None when the pipe itself has answered."""
        code = self.headers.get("x-event-return-code")
        return None if code is None else int(code)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """Requests at one socket, each on a connection of its own. OSError while nobody answers there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("GET", target, headers)

    def request(
        self, verb: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """`target` goes out as it stands, dot segments and escapes included, which httpx would change."""
        connection = _UnixConnection(self.path)
        with contextlib.closing(connection):
            try:
                connection.request(verb, target, body=body or None, headers=dict(headers or {}))
                response = connection.getresponse()
                return Answer(response.status, response.headers, response.read())
            except HTTPException as error:
                raise OSError(f"{verb} {target}: {error!r}") from error


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path)
