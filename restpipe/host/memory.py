"""Memory of this process: how the C library hands out large blocks, and that none of it is dumped."""

from __future__ import annotations

import contextlib
import ctypes
import resource

_PR_SET_DUMPABLE = 4
_NO_DUMP = 1
"""Bytes of a core dump. Of 0, the kernel would still pipe it to a program (`do_coredump`, core(5))."""
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

READ_BUFFER = 256 * 1024
"""What uvloop asks for with each read of a TLS connection, whatever comes."""
KEPT = 16 * READ_BUFFER
"""Bytes at the end of the heap that are not given back to the system at once."""


def keep_read_buffers() -> bool:
    """Has the buffer of each TLS read taken from the heap, and stay there for the next one.

    By default glibc maps a block of that size for each read and unmaps it after: three system calls, and new
    pages that the kernel must clear. False where there is no glibc, and nothing has changed (mallopt(3)).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 2 * READ_BUFFER) and mallopt(_M_TRIM_THRESHOLD, KEPT))


def forbid_dumps() -> None:
    """Have the system keep no core dump of this process, which holds a private key.

    By the limit alone if that may be set, for a process that is not dumpable (prctl(2)) hides its files in
    /proc from its own user as well.
    """
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (_NO_DUMP, _NO_DUMP))
        return
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
