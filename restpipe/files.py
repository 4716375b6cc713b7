"""Files read whole: within a bound, and without waiting for anyone."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_file(path: Path | str, limit: int, *, at: int | None = None) -> bytes:
    """Return what a file holds, at most `limit` bytes. A relative `path` starts from the folder `at`.

    Raises OSError, whose `strerror` is fit for the user, if it cannot be read, is larger, or is something
    that a process may wait for without end: a pipe, a socket. A device is read as far as it gives at once.
    """
    # NONBLOCK: to open a pipe waits for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=at)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        pieces = bytearray()
        # A file may grow while it is read, or give less than was asked for.
        while len(pieces) <= limit and (piece := file.read(limit + 1 - len(pieces))):
            pieces += piece
    if len(pieces) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
    return bytes(pieces)
