"""What became of a reload, for the command that asked for it: deployments go by its exit status.

The command (`restpipe handlers ROLE --reload PID`) listens at an address that is named after the worker, and
sends SIGHUP. The worker says there what became of the new code. The address is an abstract one: it needs no
folder, and is gone with the command, however that ends. Both look who is at the other end.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import socket
import time
from typing import Final

from restpipe.errors import RestPipeError
from restpipe.host.credentials import of_peer

SERVES: Final = "the new code serves"
LOADS: Final = "the new code can be loaded: the worker begins anew with it once it has finished its events"
BEYOND_S: Final = 10.0
"""Seconds that the worker may take to say so, beyond its own limit for the code."""
_LONGEST: Final = 4096
_ELSEWHERE: Final = re.compile(r"ask process (\d{1,10})")
_ROOT: Final = 0


class NotReloaded(RestPipeError):
    """The old code goes on."""


def reload(pid: int, load_timeout_s: float) -> str:
    """Have a worker take up new code, wait for the outcome, and return it: `SERVES` or `LOADS`.

    Raises `NotReloaded` for any other.
    """
    timeout_s = load_timeout_s + BEYOND_S
    deadline = time.monotonic() + timeout_s
    try:
        said = _ask(pid, deadline)
        while successor := _ELSEWHERE.fullmatch(said):
            pid = int(successor[1])
            said = _ask(pid, deadline)
    except TimeoutError:
        said = f"the worker has not said what became of it within {timeout_s:g} s"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise NotReloaded(f"worker {pid} is not asked to reload: another reload is under way") from None
        raise NotReloaded(f"worker {pid} cannot be asked to reload: {error}") from None
    if said not in (SERVES, LOADS):
        raise NotReloaded(f"the new code is not used, the old goes on: {said}")
    return said


def tell(outcome: str) -> bool:
    """In the worker: answer the command that waits for the outcome of a reload. False if none does."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            link.setblocking(False)
            link.connect(_address(os.getpid()))
            if of_peer(link).uid not in (_ROOT, os.geteuid()):
                return False
            link.send(outcome.encode("utf-8", "replace")[:_LONGEST])
            return True
    except OSError:
        return False


def tell_to_ask(successor: int) -> bool:
    """In the worker: have that command ask another process. False if none waits."""
    return tell(f"ask process {successor}")


def _ask(pid: int, deadline: float) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(_address(pid))
        listener.listen()
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGHUP)
            return _hear(listener, process, pid, deadline)
        finally:
            os.close(process)


def _hear(listener: socket.socket, process: int, pid: int, deadline: float) -> str:
    while (left_s := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([listener.fileno(), process], [], [], left_s)
        if listener.fileno() in ready:
            said = _accept(listener, pid, left_s)
            if said:
                return said
        elif ready:
            return "the worker has ended"
    raise TimeoutError


def _accept(listener: socket.socket, pid: int, timeout_s: float) -> str:
    """What the worker says; empty if it is another process that has connected."""
    link, _ = listener.accept()
    with link:
        other = of_peer(link)
        if other.pid != pid:
            return ""
        link.settimeout(timeout_s)
        said = link.recv(_LONGEST).decode("utf-8", "replace")
    if _ELSEWHERE.fullmatch(said) and other.uid != os.geteuid():
        # As root, it could signal whatever the worker's code names.
        return f"the worker says: {said}"
    return said


def _address(pid: int) -> str:
    return f"\0restpipe-reload-{pid}"
