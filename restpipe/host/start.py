"""How this process was started: another one is to be started no differently, whatever has changed since."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NamedTuple, NoReturn


class Start(NamedTuple):
    """To be taken before code of others is loaded: that may change environment and current folder."""

    command: list[str]
    environ: dict[str, str]
    folder: str | None
    """The current folder; None if it has been deleted."""

    @classmethod
    def of_this_process(cls) -> Start:
        folder = None
        with contextlib.suppress(OSError):
            folder = os.getcwd()  # noqa: PTH109 - as it is
        return cls([sys.executable, *sys.orig_argv[1:]], dict(os.environ), folder)

    @property
    def place(self) -> str | None:
        """The folder to start another one in; None for the current one."""
        return self.folder if self.folder is not None and os.path.isdir(self.folder) else None  # noqa: PTH112

    def again(self) -> NoReturn:
        """Begin anew in this process, under its number."""
        if self.place is not None:
            os.chdir(self.place)
        os.execve(self.command[0], self.command, self.environ)  # noqa: S606 - our own command line
