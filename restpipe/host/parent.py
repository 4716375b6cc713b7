"""A child process that does not outlive its parent, however the parent ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM when `parent`, a process id, is gone.

    To be called early in the child: code that runs between fork and exec in the parent would not be safe.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # It may have gone before the call above; then nobody would ever tell.
    if os.getppid() != parent:
        sys.exit(0)
