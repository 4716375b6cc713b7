"""The current folder, which may be deleted under a process: deployments replace folders."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)


def leave_deleted_folder() -> None:
    """Go to what has taken the place of a current folder that is deleted, else to the root folder.

    In a folder that is not there every relative path fails, and so does whatever asks where it is.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        gone = str(Path("/proc/self/cwd").readlink()).removesuffix(" (deleted)")
        for folder in (gone, "/"):
            with contextlib.suppress(OSError):
                os.chdir(folder)
                break
        _log.warning("the current folder, %s, has been deleted: going on in %s", gone, Path.cwd())
