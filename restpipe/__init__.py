"""RestPipe: plain HTTP in, plain Python out, over one durable TLS pipe."""

from __future__ import annotations

import importlib
import importlib.machinery
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restpipe.errors import RestPipeError
    from restpipe.handler.api import (
        ClientEventHandler,
        EventError,
        EventHandler,
        Reply,
        ServerEventHandler,
        streamed,
    )
    from restpipe.handler.client_errors import PipeFailError, PipeProblemError, raise_for_exception
    from restpipe.handler.context import Context
    from restpipe.handler.state_events import (
        ClientStateChangeEvent,
        ConnectionStateEvents,
        ServerStateChangeEvent,
    )

__version__ = "1.0.0"

_frames = importlib.machinery.PathFinder.find_spec("frames", [f"{__path__[0]}/protocol"])
COMPILED = _frames is not None and isinstance(_frames.loader, importlib.machinery.ExtensionFileLoader)
"""Whether the hot path runs as machine code; `setup.py` says which modules that is."""

__all__ = [
    "ClientEventHandler",
    "ClientStateChangeEvent",
    "ConnectionStateEvents",
    "Context",
    "EventError",
    "EventHandler",
    "PipeFailError",
    "PipeProblemError",
    "Reply",
    "RestPipeError",
    "ServerEventHandler",
    "ServerStateChangeEvent",
    "__version__",
    "raise_for_exception",
    "streamed",
]

# Looked up when they are first asked for, so that no process loads another's code.
_HOMES = {
    "ClientEventHandler": "restpipe.handler.api",
    "ClientStateChangeEvent": "restpipe.handler.state_events",
    "ConnectionStateEvents": "restpipe.handler.state_events",
    "Context": "restpipe.handler.context",
    "EventError": "restpipe.handler.api",
    "EventHandler": "restpipe.handler.api",
    "PipeFailError": "restpipe.handler.client_errors",
    "PipeProblemError": "restpipe.handler.client_errors",
    "Reply": "restpipe.handler.api",
    "RestPipeError": "restpipe.errors",
    "ServerEventHandler": "restpipe.handler.api",
    "ServerStateChangeEvent": "restpipe.handler.state_events",
    "raise_for_exception": "restpipe.handler.client_errors",
    "streamed": "restpipe.handler.api",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
