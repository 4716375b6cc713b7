"""What the unit of a handler worker forbids, and the settings to widen: a hint in the line of an error.

As shipped, the unit gives the user's code little. The errors that come of it are the system's, and name no
setting.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import socket
import subprocess
import traceback
from collections.abc import Iterator
from pathlib import Path

from restpipe.errors import message_of

WIDER = "/usr/share/doc/restpipe/examples/wider.conf"
"""Has each setting with its error."""
_CGROUP = Path("/proc/self/cgroup")
_UNIT = re.compile(r"/restpipe-(?:server|client)-handlers@[^/]*\.service")
_NETWORK = "RestrictAddressFamilies=, PrivateNetwork=, IPAddressDeny="
_BY_NUMBER = {
    errno.EAFNOSUPPORT: _NETWORK,
    errno.ENETUNREACH: _NETWORK,
    errno.EROFS: "StateDirectory=, ReadWritePaths=",
}
_PLACES = (
    (("/proc/",), "ProcSubset=, ProtectProc="),
    (("/home/", "/root/", "/run/user/"), "ProtectHome="),
    (("/dev/",), "PrivateDevices=, DevicePolicy="),
)


def hint(error: BaseException) -> str:
    """Name the settings that an exception may come of, in brackets. Empty where none is known, or no unit."""
    if not is_unit():
        return ""
    settings = next(filter(None, map(_settings, _causes(error))), "")
    return f" (the unit may forbid it: {settings}, see {WIDER})" if settings else ""


@functools.cache
def is_unit() -> bool:
    """Tell whether this process runs in a unit for handler workers, as packaged."""
    try:
        return _UNIT.search(_CGROUP.read_text()) is not None
    except OSError:
        return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        # `raise ... from None` says that it does not come of what was handled.
        context = None if cause.__suppress_context__ else cause.__context__
        cause = context if cause.__cause__ is None else cause.__cause__


def _settings(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return _NETWORK
    if isinstance(error, ImportError):
        return "ExecPaths=" if "failed to map segment" in message_of(error) else ""
    if isinstance(error, RuntimeError):
        return "TasksMax=" if "can't start new thread" in message_of(error) else ""
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    return _BY_NUMBER.get(error.errno) or _of_call(error)


def _of_call(error: OSError) -> str:
    """Go by what is not there, or not allowed."""
    if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM):
        return ""
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    for places, settings in _PLACES:
        if name.startswith(places):
            return settings
    if error.errno == errno.ENOENT:
        return ""
    called = traceback.extract_tb(error.__traceback__)[-1:]
    if called and called[0].filename == subprocess.__file__:
        return "ExecPaths="
    return "" if name else "IPAddressDeny=, SystemCallFilter=, MemoryDenyWriteExecute="
