"""One caller in a closed loop: the next request goes out when the answer before it is there."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.failures import BenchError

SILENCE_S = 30.0


class Latencies(NamedTuple):
    seconds: list[float]
    """Of each request that was answered by 200, sorted."""
    failed: int

    def percentile_ms(self, share: float) -> float:
        return self.seconds[min(len(self.seconds) - 1, int(len(self.seconds) * share))] * 1000


def for_seconds(seconds: float) -> Callable[[], bool]:
    """A condition that is true until so much time has gone by."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def call(path: Path, target: str, go_on: Callable[[], bool]) -> Latencies:
    """GETs of `target` at the socket, at least one, as long as `go_on()`."""
    taken: list[float] = []
    failed = 0
    with _connected(path, target) as sock:
        while not (taken or failed) or go_on():
            began = time.perf_counter()
            answer = _ask(sock, target)
            if answer.startswith(b"HTTP/1.1 200 "):
                taken.append(time.perf_counter() - began)
            else:
                failed += 1
    if not taken:
        raise BenchError(f"{target}: {_shown(answer)}")
    return Latencies(sorted(taken), failed)


@contextlib.contextmanager
def _connected(path: Path, target: str) -> Iterator[socket.socket]:
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(SILENCE_S)
            sock.connect(str(path))
            yield sock
    except OSError as error:
        raise BenchError(f"no answer to {target}: {error}") from None


def _ask(sock: socket.socket, target: str) -> bytes:
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    received = b""
    while not _whole(received):
        piece = sock.recv(65536)
        if not piece:
            raise BenchError(f"{target}: the connection was closed in the middle")
        received += piece
    return received


def _whole(received: bytes) -> bool:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    _, named, after = head.lower().partition(b"content-length:")
    if named:
        return len(body) >= int(after.partition(b"\r\n")[0])
    return body.endswith(b"0\r\n\r\n")


def _shown(answer: bytes) -> str:
    """Its status and its body, which of a problem says what is wrong."""
    head, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
    return f"{head.partition(chr(13))[0]} {' '.join(body.split())}"
