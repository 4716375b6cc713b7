"""New code without a gap: on SIGHUP a second process loads it, and takes this one's place once it serves.

The old process goes on answering until the new one is linked to the daemon, then finishes what it has under
way. Code that cannot be loaded changes nothing but the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys

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


class Renewal:
    """The old process' side. `listen` in the loop, once."""

    def __init__(self) -> None:
        self.succeeded = False
        """Another process serves in this one's place."""
        self._trying: asyncio.Task[None] | None = None

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._begin)
        loop.add_signal_handler(_SUCCEEDED, self._end)

    def _begin(self) -> None:
        if self._trying is None and not self.succeeded:
            self._trying = asyncio.get_running_loop().create_task(self._try())

    async def _try(self) -> None:
        environ = os.environ | {PREDECESSOR: str(os.getpid())}
        environ.pop("WATCHDOG_PID", None)
        # Not asyncio's subprocess: that one would be killed with this loop's end.
        successor = subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=environ)  # noqa: ASYNC220, S603
        while successor.poll() is None:  # noqa: ASYNC110 - no child watcher, as above
            await asyncio.sleep(_POLL_S)
        self._trying = None
        _log.error("the new code is not used, the old goes on: it ended with status %d", successor.returncode)

    def _end(self) -> None:
        self.succeeded = True
        if self._trying is not None:
            self._trying.cancel()
        # From here on as if the service manager had asked.
        os.kill(os.getpid(), signal.SIGTERM)
