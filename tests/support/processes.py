"""One process under test: started, watched, hurt and certainly ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.conditions import TIMEOUT_S, wait_for

CHECKOUT = Path(__file__).resolve().parents[2]


def python() -> list[str]:
    """How the tests start Python."""
    return [sys.executable]


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment without what would configure RestPipe, and with the checkout on the path."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RP_", "NOTIFY_", "WATCHDOG_"))
    }
    for name in ("DEBUG", "BIND_IP", "BIND_PORT", "JOURNAL_STREAM"):
        kept.pop(name, None)
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "ca")])
    return kept | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | dict(more or {})


_UNTOUCHED = ("env", "--default-signal=INT")
"""A shell without job control has its background jobs ignore SIGINT, and they hand that on."""
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""The kernel kills it when the thread that started it ends."""


class Process:
    """A command in a process group of its own. It dies with the test run, however that ends."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        """Starts at once. `folder` is its working directory and gets NAME.log, to which a restart appends."""
        self.name = name
        self.log = folder / f"{name}.log"
        self._notices = _Notices()
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self._process = subprocess.Popen(
                [*_UNTOUCHED, *_DIES_WITH_US, *command],
                cwd=folder,
                env=clean_environment({"NOTIFY_SOCKET": self._notices.address} | dict(environ or {})),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal if one ended it."""
        return self._process.poll()

    @property
    def alive(self) -> bool:
        return self.returncode is None

    @property
    def notices(self) -> list[str]:
        """All lines told to the service manager so far: `READY=1`, `STATUS=…`."""
        return list(self._notices.lines)

    def log_text(self) -> str:
        """What this start of it has written."""
        with self.log.open("rb") as log:
            log.seek(self._log_from)
            return log.read().decode("utf-8", "replace")

    def wait_ready(self, timeout_s: float = TIMEOUT_S) -> None:
        self.wait_notice("READY=1", timeout_s)

    def wait_notice(self, line: str, timeout_s: float = TIMEOUT_S) -> None:
        self.wait_until(lambda: line in self._notices.lines, line, timeout_s)

    def wait_log(self, pattern: str, timeout_s: float = TIMEOUT_S) -> re.Match[str]:
        """The first match of a regular expression in the log of this start."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(re.finditer(pattern, self.log_text(), re.MULTILINE))
            return bool(found)

        self.wait_until(look, f"/{pattern}/ in the log", timeout_s)
        return found[0]

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Until `condition` is true; fails, showing the log, if this process ends before."""

        def reached() -> bool:
            if condition():
                return True
            if not self.alive:
                raise AssertionError(
                    f"{self.name} ended ({self.returncode}) before: {what}; its log:\n{self.log_text()}"
                )
            return False

        try:
            wait_for(reached, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{self.name}: {error}; its log:\n{self.log_text()}") from None

    def wait_end(self, timeout_s: float = TIMEOUT_S) -> int:
        """The status it ends with by itself."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end; its log:\n{self.log_text()}") from None

    def send(self, number: signal.Signals) -> None:
        """One signal to the process itself (not to its children)."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Have it stand still (SIGSTOP), with all its children."""
        self._send_tree(signal.SIGSTOP)

    def cont(self) -> None:
        self._send_tree(signal.SIGCONT)

    def kill(self) -> None:
        """Without warning (SIGKILL), with all its children."""
        self._send_tree(signal.SIGKILL)
        self._process.wait()
        self._notices.close()

    def terminate(self, timeout_s: float = TIMEOUT_S) -> int:
        """In good order (SIGTERM), and nothing is left of it afterwards; its status."""
        if self.alive:
            self._process.terminate()
        try:
            return self.wait_end(timeout_s)
        finally:
            self.kill()

    def pids(self) -> list[int]:
        """It and all its descendants, parents first."""
        return [self.pid, *descendants(self.pid)]

    def _send_tree(self, number: signal.Signals) -> None:
        for pid in self.pids() if self.alive else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number is signal.SIGKILL:
            # Those whose parent was gone before them.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


class _Notices:
    """What stands in for systemd's notification socket. Always read, so that nobody waits on it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("")  # the kernel chooses a free abstract address
        self.address = "@" + self._socket.getsockname()[1:].decode("ascii")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while text := self._socket.recv(4096):
            self.lines.extend(text.decode("utf-8", "replace").splitlines())


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, as /proc shows them now."""
    found = list(children(pid))
    return found + [pid for child in found for pid in descendants(child)]


def children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                yield from map(int, (task / "children").read_text().split())


def runs(pid: int) -> bool:
    """Neither gone, nor ended and not yet waited for by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "XZ"
    except (FileNotFoundError, ProcessLookupError):
        return False


def rss_bytes(pid: int) -> int:
    """Resident memory now; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def is_steady(pids: Sequence[int], within: int = 1 << 20, looks: int = 20) -> Callable[[], bool]:
    """A condition: their memory together has changed by less than that in the latest looks at it."""
    seen: list[int] = []

    def steady() -> bool:
        seen.append(sum(map(rss_bytes, pids)))
        time.sleep(0.05)
        last = seen[-looks:]
        return len(last) == looks and max(last) - min(last) < within

    return steady


def command_line(pid: int) -> str:
    """For messages; empty for a process that is gone."""
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        )
    return ""
