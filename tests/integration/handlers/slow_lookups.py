"""Taken for a configuration module, so that every process has it: looking up statsd's name does not end.

Each process writes down that it has begun to.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

_HOST = "statsd.invalid"
_begun = Path(os.environ["SLOW_LOOKUPS"])
_look_up = socket.getaddrinfo


def _hang(host: Any, *rest: Any, **more: Any) -> Any:
    if host != _HOST:
        return _look_up(host, *rest, **more)
    (_begun / str(os.getpid())).touch()
    return threading.Event().wait()


socket.getaddrinfo = _hang
