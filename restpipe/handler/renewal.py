"""New code on SIGHUP: without a gap where the service manager can follow, else in place.

Under systemd a second process loads the new code, and takes this one's place once it serves: the old one goes
on answering until the new one is linked to the daemon, then finishes what it has under way. Whoever else
started this process would take that for its end: for them it tries in a second process whether the new code
can be loaded, finishes what it has under way, and begins anew under its own number (`begin_anew`).

Code that cannot be loaded, or not in time, changes nothing but the log. A reload that comes while code is
being loaded is made up for after that: by the old process, or by whoever has taken its place.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from typing import NoReturn

PREDECESSOR = "RESTPIPE_PREDECESSOR"
"""Environment variable of the new process: whose place it takes."""
FINISH_S = 600.0
"""How long events under way may take in the old process; nobody waits for it."""
_POLL_S = 0.1
_SUCCEEDED = signal.SIGUSR2

_log = logging.getLogger(__name__)


def take_over() -> bool:
    """In the new process, once it serves: sends the old one off, if there is one."""
    predecessor = os.environ.pop(PREDECESSOR, "")
    # It may have ended meanwhile, and its number be another process'.
    if predecessor != str(os.getppid()):
        return False
    os.kill(os.getppid(), _SUCCEEDED)
    return True


def is_successor() -> bool:
    """Whether this process is to take the place of another."""
    return os.environ.get(PREDECESSOR) == str(os.getppid())


def begin_anew() -> NoReturn:
    """The same command under the same process number, with the code as it is now."""
    os.execv(sys.executable, _command())  # noqa: S606 - our own command line


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


class Renewal:
    """The old process' side. `listen` in the loop, once; `close` when it is to end."""

    def __init__(self, load_timeout_s: float, *, in_place: bool = False) -> None:
        """`in_place`: whoever started this process does not follow to another."""
        self.succeeded = False
        """Another process serves in this one's place."""
        self.anew = False
        """This process is to end in order to `begin_anew`."""
        self._in_place = in_place
        self._load_timeout_s = load_timeout_s
        self._asked = False
        """For newer code than the successor has been started with."""
        self._successor: subprocess.Popen[bytes] | None = None
        self._trying: asyncio.Task[None] | None = None
        self._closed = False

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._begin)
        loop.add_signal_handler(_SUCCEEDED, self._end)

    def close(self) -> None:
        """Nobody takes this process' place any more, unless somebody has."""
        self._closed = True
        if self._trying is not None and not self.succeeded:
            self._trying.cancel()
            self._kill()

    def _begin(self) -> None:
        if self.succeeded:
            self._pass_on()
        elif not self._closed:
            self._asked = True
            if self._trying is None:
                self._trying = asyncio.get_running_loop().create_task(self._try())
            else:
                _log.info("new code is being loaded already; then it is loaded once more")

    async def _try(self) -> None:
        while self._asked:
            self._asked = False
            reason = await self._fail()
            if reason:
                _log.error("the new code is not used, the old goes on: %s", reason)
            elif not self._asked:
                self.anew = True
                os.kill(os.getpid(), signal.SIGTERM)
        self._trying = None

    async def _fail(self) -> str:
        """Starts a successor; why it has failed. Cancelled when it has not; empty if it was only to try."""
        environ = os.environ | ({} if self._in_place else {PREDECESSOR: str(os.getpid())})
        environ.pop("WATCHDOG_PID", None)
        trial = ["--check"] if self._in_place else []
        # Not asyncio's subprocess: that one would be killed with this loop's end.
        self._successor = subprocess.Popen([*_command(), *trial], env=environ)  # noqa: ASYNC220, S603
        try:
            async with asyncio.timeout(self._load_timeout_s):
                while self._successor.poll() is None:  # noqa: ASYNC110 - no child watcher, as above
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            self._kill()
            return f"it was not ready within {self._load_timeout_s:g} s"
        status = self._successor.returncode
        return "" if self._in_place and not status else f"it ended with status {status}"

    def _kill(self) -> None:
        if self._successor is not None:
            self._successor.kill()
            self._successor.wait()

    def _pass_on(self) -> None:
        """The code has changed since the successor was started."""
        if self._successor is not None:
            self._successor.send_signal(signal.SIGHUP)

    def _end(self) -> None:
        # None tries: it was given up in the very moment when it was ready.
        if self._trying is None or self._closed:
            return
        self.succeeded = True
        self._trying.cancel()
        if self._asked:
            self._pass_on()
        # From here on as if the service manager had asked.
        os.kill(os.getpid(), signal.SIGTERM)
