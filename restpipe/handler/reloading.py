"""What became of a reload, for the command that asked for it: deployments go by its exit status.

The command (`restpipe handlers ROLE --reload PID`) has a datagram socket beside the worker's temporary files,
and sends SIGHUP. The worker says there whether the new code serves.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from restpipe.errors import RestPipeError

SERVES = "the new code serves"
BEYOND_S = 10.0
"""Seconds that the worker may take to say so, beyond its own limit for the code."""
_LONGEST = 4096


class NotReloaded(RestPipeError):
    """The old code goes on."""


def reload(pid: int, load_timeout_s: float) -> None:
    """Have a worker take up new code, and wait until that serves. Raises `NotReloaded` if it does not."""
    try:
        with _listening(_address(pid)) as outcome:
            said = _ask(pid, outcome, load_timeout_s + BEYOND_S)
    except OSError as error:
        raise NotReloaded(f"worker {pid} cannot be asked to reload: {error}") from None
    if said != SERVES:
        raise NotReloaded(f"the new code is not used, the old goes on: {said}")


def tell(outcome: str) -> None:
    """In the worker: answer whoever waits for the outcome of a reload."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(outcome.encode("utf-8", "replace")[:_LONGEST], _address(os.getpid()))


def _ask(pid: int, outcome: socket.socket, timeout_s: float) -> str:
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGHUP)
        ready, _, _ = select.select([outcome.fileno(), process], [], [], timeout_s)
    finally:
        os.close(process)
    if outcome.fileno() in ready:
        return outcome.recv(_LONGEST).decode("utf-8", "replace")
    return (
        "the worker has ended"
        if ready
        else f"the worker has not said what became of it within {timeout_s:g} s"
    )


@contextlib.contextmanager
def _listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        try:
            yield sock
        finally:
            Path(address).unlink(missing_ok=True)


def _address(pid: int) -> str:
    return str(Path(tempfile.gettempdir()) / f"restpipe-reload-{pid}")
