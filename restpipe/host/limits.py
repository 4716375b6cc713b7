"""What the operating system allows this process, and what it allows itself."""

from __future__ import annotations

import contextlib
import logging
import os
import resource

_log = logging.getLogger(__name__)


class Budget:
    """Bytes that many may hold at once, all together. Belongs to one thread."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Whether there is room for so many more; they are held then until they are given back."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give_back(self, size: int) -> None:
        self.left += size


def allow_open_files(needed: int, serving: str = "pipe.max_clients") -> int:
    """Raise the limit of open files as far as this process may, and return it, but no more than `needed`.

    If it is less, a warning says that so many would be needed for `serving`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        wanted = needed if hard == resource.RLIM_INFINITY else hard
        soft = max(soft, wanted) if soft != resource.RLIM_INFINITY else soft
        # The system has a limit of its own beyond which nobody's can be raised.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < needed:
        _log.warning(
            "%d files may be open at once here, %d would be needed to serve %s: "
            "raise the limit (LimitNOFILE=)",
            soft,
            needed,
            serving,
        )
        return soft
    return needed


def fill_standard_descriptors() -> None:
    """Have 0, 1 and 2 lead nowhere where somebody has closed them.

    Otherwise a connection may get one of them, and with it what is printed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
