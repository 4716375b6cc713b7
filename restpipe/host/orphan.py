"""A process that is started here, and belongs to the service manager."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

_STARTER = """
import os, sys
told = int(sys.argv[1])
os.set_inheritable(told, False)
os.write(told, b"%d" % os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ))
"""


class Orphan:
    """One process with a parent that is none of ours: systemd waits for the end of its own children only."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], folder: str | None = None) -> None:
        """Starts `command`, whose first word is an absolute path. `OSError` when that cannot be done."""
        reading, writing = os.pipe()
        # By a process that ends at once, and leaves its child to whoever takes in orphans.
        starter = [sys.executable, "-I", "-S", "-c", _STARTER, str(writing)]
        with os.fdopen(reading, "rb") as told:
            try:
                subprocess.run(  # noqa: S603
                    [*starter, *command], env=environ, cwd=folder, pass_fds=[writing], check=False
                )
            finally:
                os.close(writing)
            pid = told.read()
        if not pid:
            raise OSError("no process could be started")
        self.pid = int(pid)
        self._process = os.pidfd_open(self.pid)

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            os.close(self._process)

    @property
    def ended(self) -> bool:
        """It is gone, or about to be; nobody here is told with which status."""
        return bool(select.select([self._process], [], [], 0)[0])

    def send_signal(self, number: signal.Signals) -> None:
        """Without effect on a process that is gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, number)
