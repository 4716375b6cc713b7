"""New code on SIGHUP: without a gap where the service manager can follow, else in place.

Under systemd a second process loads the new code, and takes this one's place once it serves: the old one goes
on answering until the new one is linked to the daemon, then finishes what it has under way. The new one is no
child of the old: a main process that is not systemd's own is not waited for at a stop, but killed. Whoever
else started this process would take that for its end: for them it tries in a second process whether the new
code can be loaded, finishes what it has under way, and begins anew under its own number (`Start.again`).

Code that cannot be loaded, or not in time, changes nothing but the log. A reload that comes while code is
being loaded is made up for after that: by the old process, or by whoever has taken its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Callable

from restpipe.handler.reloading import LOADS, SERVES, tell, tell_to_ask
from restpipe.host.loop import on_signal
from restpipe.host.orphan import Orphan
from restpipe.host.start import Start

PREDECESSOR = "RESTPIPE_PREDECESSOR"
"""Environment variable of the new process: whose place it takes."""
FINISH_S = 600.0
"""How long events under way may take in the old process; nobody waits for it."""
ENDED = (
    "it ended before it served: see its own lines, or the kernel's if it was killed (what only one process "
    "can hold, a port or a lock, needs a restart in place of a reload)"
)
_POLL_S = 0.1
_SUCCEEDED = signal.SIGUSR2

_log = logging.getLogger(__name__)


def take_over() -> None:
    """In the new process (see `is_successor`), once it serves: sends the old one off."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(os.environ.pop(PREDECESSOR)), _SUCCEEDED)


def is_successor() -> bool:
    """Whether this process is to take the place of another."""
    return PREDECESSOR in os.environ


class Renewal:
    """The old process' side. `listen` in the loop, once; `close` when it is to end."""

    def __init__(
        self, load_timeout_s: float, start: Start, end: Callable[[], object], *, in_place: bool = False
    ) -> None:
        """`end` begins the end of this process. `in_place`: its supervisor does not follow to another."""
        self.succeeded = False
        """Another process serves in this one's place."""
        self.anew = False
        """This process is to end in order to begin anew."""
        self._start = start
        self._end_process = end
        self._in_place = in_place
        self._load_timeout_s = load_timeout_s
        self._asked = False
        """For newer code than the successor has been started with."""
        self._successor: Orphan | None = None
        self._trying: asyncio.Task[None] | None = None
        self._closed = False

    def listen(self) -> None:
        on_signal(signal.SIGHUP, self._begin)
        on_signal(_SUCCEEDED, self._end)

    def refuse(self) -> None:
        """Begin nothing anew: this process is asked to stop. For a signal handler, too."""
        self._closed = True
        self.anew = False

    def close(self) -> None:
        """Nobody takes this process' place any more, unless somebody has."""
        self._closed = True
        if self._trying is not None and not self.succeeded:
            self._trying.cancel()

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
            if self._asked:
                continue
            if reason:
                tell(reason)
            elif not self._closed:
                tell(LOADS)
                self.anew = True
                self._end_process()
        self._trying = None

    async def _fail(self) -> str:
        """Why the new code is not used; empty if it could be, and this process is to begin anew with it."""
        try:
            async with asyncio.timeout(self._load_timeout_s):
                return await (self._check() if self._in_place else self._await_successor())
        except TimeoutError:
            return f"it was not ready within {self._load_timeout_s:g} s"
        except OSError as error:
            return f"it was not loaded: {error}"

    async def _check(self) -> str:
        """Loads it in a child, which does nothing else."""
        # Not asyncio's subprocess: that one needs a child watcher.
        child = subprocess.Popen(  # noqa: ASYNC220, S603
            [*self._start.command, "--check"], env=self._environ(), cwd=self._start.place
        )
        try:
            while child.poll() is None:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)
        finally:
            child.kill()
            child.wait()
        return f"it ended with status {child.returncode}" if child.returncode else ""

    async def _await_successor(self) -> str:
        """Cancelled when it serves."""
        successor = self._successor = Orphan(
            self._start.command,
            self._environ() | {PREDECESSOR: str(os.getpid())},
            self._start.place,
        )
        try:
            while not successor.ended:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)
        finally:
            if not self.succeeded:
                successor.send_signal(signal.SIGKILL)
        return ENDED

    def _environ(self) -> dict[str, str]:
        """For another process of this service, which is not its main one."""
        return {name: value for name, value in self._start.environ.items() if name != "WATCHDOG_PID"}

    def _pass_on(self) -> None:
        """The code has changed since the successor was started: it is the one to be asked."""
        successor = self._successor
        if successor is not None and not tell_to_ask(successor.pid):
            successor.send_signal(signal.SIGHUP)

    def _end(self) -> None:
        # None tries: it was given up in the very moment when it was ready.
        if self._trying is None or self._closed:
            return
        self.succeeded = True
        self._trying.cancel()
        if self._asked:
            self._pass_on()
        else:
            tell(SERVES)
        self._end_process()
