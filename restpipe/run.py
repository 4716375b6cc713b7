"""`restpipe run ROLE`: pipe, web and handlers under one foreground parent, for development.

In production systemd does all of this, and better.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import restpipe
from restpipe.errors import ConfigError
from restpipe.files import make_folder
from restpipe.host import logs, loop
from restpipe.host.config import Config, Role, join_address
from restpipe.host.notify import Notifier
from restpipe.transport.listener import listening_socket
from restpipe.transport.unix import is_served

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
FIRST_ALONE_S = 3.0
"""The others are given a daemon that is there already, unless it takes too long."""
SETTLED_S = 10.0
"""A child that lived this long did not fail because it was started."""
KILL_AFTER_S = 5.0
"""Beyond the time for draining."""


@dataclass(frozen=True)
class Job:
    """One child to keep alive."""

    name: str
    command: Sequence[str]
    essential: bool = True
    """Nothing works without it: if it refuses its configuration at the start, all ends."""


def main(config: Config, passthrough: Sequence[str] = ()) -> int:
    """Run the three processes until SIGTERM or Ctrl-C; 0, or the status of the child that made it end.

    `passthrough` are options that the children are to be given too.
    """
    logs.configure(config.log, process="run")
    _make_folder(config.sockets.directory)
    _check_alone(config)
    notifier = Notifier()

    def up() -> None:
        logger.info("%s is up, and %s: %s", config.role, _what_next(config), example(config))
        notifier.ready(f"{config.role} is up")

    tree = ProcessTree(jobs(config, passthrough), config.pipe.drain_timeout_s + KILL_AFTER_S, up)
    loop.run(tree.run())
    return tree.status


def jobs(config: Config, passthrough: Sequence[str] = ()) -> list[Job]:
    """What `restpipe run` starts, each by the command that systemd would use."""
    # A folder that happens to hold an ssl.py must not get into the process that holds the keys: the current
    # folder is searched only where restpipe itself is found by it.
    installed = Path(restpipe.__file__).parent.parent != Path.cwd()
    python = [sys.executable, *(["-P"] if installed else []), "-m", "restpipe"]
    common = [str(config.role), *passthrough, "--parent", str(os.getpid())]
    many = config.handlers.workers
    return [
        Job("pipe", [*python, "pipe", *common]),
        Job("web", [*python, "web", *common]),
        *(
            # Code that cannot be loaded is being written, perhaps: the pipe stays up meanwhile.
            Job(f"handlers {n}" if many > 1 else "handlers", [*python, "handlers", *common], essential=False)
            for n in range(1, many + 1)
        ),
    ]


def example(config: Config) -> str:
    """A command line that shows that it works."""
    path = "client/localhost/time" if config.role is Role.SERVER else "server/time"
    return f"curl --unix-socket {config.sockets.web} http://localhost/{path}"


def _what_next(config: Config) -> str:
    """Being up is not being connected: the other side may not be there yet."""
    if config.role is Role.SERVER:
        address = join_address(config.pipe.bind, config.pipe.port)
        return f"listens at {address}; with a client on this host, try"
    return f"dials {', '.join(config.pipe.servers)}; when it is connected, try"


def _make_folder(path: Path) -> None:
    try:
        make_folder(path, 0o750)
    except OSError as exc:
        denied = isinstance(exc, PermissionError)
        advice = "; XDG_RUNTIME_DIR or RP_SOCKETS_DIRECTORY names another place" if denied else ""
        raise ConfigError(f"sockets.directory: {path}: cannot be made: {exc.strerror}{advice}") from exc


def _check_alone(config: Config) -> None:
    """Before any child starts: a handler worker would join the daemon that is there, and answer for it."""
    sockets = config.sockets
    for path in (sockets.events, sockets.handlers, sockets.web):
        try:
            served = is_served(path)
        except OSError as exc:
            raise ConfigError(f"sockets.directory: {path}: {exc.strerror or exc}") from exc
        if served:
            raise ConfigError(
                f"a {config.role} runs here already, another process serves {path}: end it first, "
                "or set RP_SOCKETS_DIRECTORY to another folder"
            )
    if config.role is Role.SERVER:
        _check_port(config.pipe.bind, config.pipe.port)


def _check_port(bind: str, port: int) -> None:
    """The daemon would be started again for ever: under systemd a port may become free by itself."""
    try:
        listening_socket(bind, port).close()
    except OSError as exc:
        address = join_address(bind, port)
        raise ConfigError(f"pipe.bind, pipe.port: cannot listen at {address}: {exc.strerror}") from exc


class ProcessTree:
    """Children that are started again when they end, and that all end when this does."""

    def __init__(self, jobs: Sequence[Job], patience_s: float, on_up: Callable[[], None]) -> None:
        """The first of the `jobs` is what the others need.

        `patience_s`: between SIGTERM and SIGKILL. `on_up` is called once, when all have said READY.
        """
        self._patience_s = patience_s
        self._on_up = on_up
        self._jobs = list(jobs)
        self._not_ready = {job.name for job in jobs}
        self._first_ready = asyncio.Event()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.status = 0
        """Set by a child without which nothing works."""

    async def run(self) -> None:
        """Until cancelled, or until an essential child refuses its configuration. No child is left then."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        try:
            async with asyncio.TaskGroup() as group:
                first, *others = self._jobs
                group.create_task(self._keep(first))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FIRST_ALONE_S):
                        await self._first_ready.wait()
                for job in others:
                    group.create_task(self._keep(job))
        except* _Refused:
            pass

    def _reload(self) -> None:
        for name, process in self._running.items():
            # One that has not come so far reads everything anew in any case, and might die of it.
            if name not in self._not_ready:
                process.send_signal(signal.SIGHUP)

    async def _keep(self, job: Job) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            status = await self._once(job)
            if status == os.EX_CONFIG and job.essential and job.name in self._not_ready:
                logger.error("%s cannot be run with this configuration: all ends", job.name)
                self.status = status
                raise _Refused
            failures = 1 if time.monotonic() - started > SETTLED_S else failures + 1
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16))
            logger.warning("%s ended (%s); starting it again in %.1f s", job.name, _in_words(status), pause_s)
            await asyncio.sleep(pause_s)

    async def _once(self, job: Job) -> int:
        """Run it to its end; stop it if cancelled. Whatever it started itself is gone afterwards."""
        with _ready_socket(lambda: self._ready(job)) as address:
            try:
                process = _start(job, address)
            except OSError as exc:
                logger.error("%s cannot be started: %s", job.name, exc)
                return os.EX_OSERR
            self._running[job.name] = process
            try:
                await _ended(process)
            except asyncio.CancelledError:
                await self._stop(job, process)
                raise
            finally:
                del self._running[job.name]
                status = _clear_away(process)
            return status

    async def _stop(self, job: Job, process: subprocess.Popen[bytes]) -> None:
        os.kill(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(self._patience_s):
                await _ended(process)
        except TimeoutError:
            logger.warning("%s did not end within %g s and is killed", job.name, self._patience_s)

    def _ready(self, job: Job) -> None:
        if job.name in self._not_ready:
            self._not_ready.remove(job.name)
            if job is self._jobs[0]:
                self._first_ready.set()
            if not self._not_ready:
                self._on_up()


class _Refused(Exception):
    """An essential child refused its configuration before it was ever ready."""


def _start(job: Job, notify_address: str) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WATCHDOG_")}
    # In a session of its own Ctrl-C does not reach it: the parent alone does, and ends all in good order.
    return subprocess.Popen(  # noqa: S603 - our own command line
        job.command,
        stdin=subprocess.DEVNULL,
        env=environ | {"NOTIFY_SOCKET": notify_address},
        start_new_session=True,
    )


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Waits for its end, and leaves it a zombie: its number is nobody else's until it is cleared away."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _clear_away(process: subprocess.Popen[bytes]) -> int:
    """Kill it if it still runs, and whatever it left behind; its status."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


@contextlib.contextmanager
def _ready_socket(on_ready: Callable[[], None]) -> Iterator[str]:
    """What a child takes for systemd's notification socket: it says READY there. Yields the address."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.setblocking(False)
        listener.bind("")  # the kernel chooses a free abstract address: no file to leave behind

        def read() -> None:
            with contextlib.suppress(BlockingIOError):
                if b"READY=1" in listener.recv(4096).splitlines():
                    on_ready()

        loop.add_reader(listener.fileno(), read)
        try:
            yield "@" + listener.getsockname()[1:].decode("ascii")
        finally:
            loop.remove_reader(listener.fileno())


def _in_words(status: int) -> str:
    return f"status {status}" if status >= 0 else f"signal {-status}, {signal.strsignal(-status)}"
