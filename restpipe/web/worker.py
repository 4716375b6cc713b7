"""A gunicorn worker: uvicorn's, with a strict HTTP connection."""

from __future__ import annotations

import gc
import logging
from typing import Any

from restpipe.host.parent import die_with
from restpipe.web.strict import StrictProtocol

try:
    from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]
except ImportError:  # Debian's uvicorn still has it.
    from uvicorn.workers import UvicornWorker

GC_THRESHOLD = 100_000
"""Young objects between two collections; at the default, collecting is most of the tail latency."""


class Worker(UvicornWorker):  # type: ignore[misc]
    """One process that serves HTTP."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012  (declared so by its parent)
        "http": StrictProtocol,
        "loop": "uvloop",
        "lifespan": "on",
        "ws": "none",
        "interface": "asgi3",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "headers": [("server", "restpipe")],
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The parent takes over gunicorn's handlers; here everything goes to the root's.
        log = logging.getLogger("uvicorn.error")
        log.handlers = []
        log.propagate = True
        log.setLevel(logging.NOTSET if self.cfg.settings["loglevel"].value == "debug" else "WARNING")
        # uvicorn composes a line for every request as long as this one leads anywhere.
        access_log = logging.getLogger("uvicorn.access")
        access_log.handlers = []
        access_log.propagate = False

    def init_process(self) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 50, 50)
        super().init_process()

    def init_signals(self) -> None:
        super().init_signals()
        # Not before: the arbiter's own handlers, which a fork inherits, would swallow the signal.
        die_with(self.ppid)
