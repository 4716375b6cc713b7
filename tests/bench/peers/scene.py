"""Everything that one section starts, in a folder of its own, and its certain end."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.bench.failures import BenchError, cause, short
from tests.support.conditions import wait_for
from tests.support.http import Http, connect
from tests.support.identities import Authority
from tests.support.nodes import Options, Pair
from tests.support.processes import Process

APPS = "tests.bench.peers.apps"
HANDLERS: Options = {
    "handlers": {"path": str(Path(__file__).parents[1] / "handlers"), "event_class": "timing.Timing"}
}


class Settings(NamedTuple):
    rounds: int
    seconds: float
    """How long each load takes."""
    peers: Path
    """The virtual environment of the peers."""


class Web(NamedTuple):
    """What listens on a Unix socket under gunicorn."""

    socket: Path
    pid: int


class Scene:
    """Leaving the `with` block ends all that it has started, at once, and removes its folder."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stack = contextlib.ExitStack()
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="rp-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @cached_property
    def authority(self) -> Authority:
        return Authority(self.folder)

    def finally_do(self, action: Callable[[], object]) -> None:
        """At the end, after what is started from here on has ended."""
        self._stack.callback(action)

    def start(
        self,
        name: str,
        *command: str | Path,
        ready: Callable[[], bool] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Process:
        """A process that is there as soon as `ready()`."""
        process = Process(name, list(map(str, command)), self.folder, environ)
        self._stack.callback(process.kill)
        self._processes.append(process)
        if ready is not None:
            self._wait(ready, f"{name} is not ready in time")
        return process

    def app(
        self,
        name: str,
        module: str,
        *arguments: str | Path,
        ready: Callable[[], bool] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Process:
        """One of our programs, in the virtual environment of the peers."""
        python = self.settings.peers / "bin" / "python"
        return self.start(name, python, "-m", f"{APPS}.{module}", *arguments, ready=ready, environ=environ)

    def gunicorn(self, name: str, module: str, environ: Mapping[str, str] | None = None) -> Web:
        path = self.folder / f"{name}.sock"
        program = self.settings.peers / "bin" / "gunicorn"
        options = ["--config", f"python:{APPS}.gunicorn_settings", "--bind", f"unix:{path}"]
        process = self.start(
            name, program, *options, f"{APPS}.{module}:app", ready=lambda: listens(path), environ=environ
        )
        return Web(path, process.pid)

    def wait_answer(self, path: Path, target: str) -> None:
        """Until all on the way there is up."""
        self._wait(lambda: answers(path, target), f"no answer to {target} in time")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        """BenchError with `what`, or at once when anything that was started here has ended."""

        def reached() -> bool:
            for process in self._processes:
                if not process.alive:
                    why = cause(process.log_text())
                    raise BenchError(f"{process.name} ended with status {process.returncode}: {why}")
            return condition()

        try:
            wait_for(reached, what)
        except AssertionError:
            raise BenchError(what) from None

    def restpipe(self) -> Pair:
        """A server and its client, up and connected."""
        folder = self.folder / "restpipe"
        folder.mkdir()
        try:
            pair = Pair(folder, self.authority, HANDLERS, HANDLERS)
            self._stack.callback(pair.kill)
            return pair.start()
        except AssertionError as error:
            raise BenchError(f"RestPipe did not start: {short(error)}") from None


def listens(path: Path) -> bool:
    with contextlib.suppress(OSError), connect(path):
        return True
    return False


def accepts(port: int) -> bool:
    """A listener answers, on loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def answers(path: Path, target: str) -> bool:
    with contextlib.suppress(OSError):
        return Http(path).get(target).status == 200
    return False
