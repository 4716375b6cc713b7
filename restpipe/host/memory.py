"""How the C library hands out large blocks."""

from __future__ import annotations

import ctypes

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
