"""`restpipe web`: gunicorn in this process, its workers on one Unix socket, each with its own link."""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import stat
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.config import Chdir  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from restpipe.errors import ConfigError
from restpipe.files import make_folder
from restpipe.host import logs
from restpipe.host.config import Config, renewed
from restpipe.host.notify import Notifier
from restpipe.web.service import WebService

HANG_TIMEOUT_S = 30
"""A worker whose loop stands still for so long is killed."""
BACKLOG = 2048
MEMORY = "/dev/shm"  # noqa: S108 - nothing is opened there by name
"""A folder that is on no disk."""

_log = logging.getLogger(__name__)


def main(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    logs.configure(config.log, process="web")
    notifier = Notifier()
    # gunicorn would say READY before any worker serves.
    os.environ.pop("NOTIFY_SOCKET", None)
    path = config.sockets.web
    if "LISTEN_FDS" not in os.environ:
        _make_way(path)
    try:
        Server(config, notifier).run()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1
    return 0


def _make_way(path: Path) -> None:
    """Refuse a path that is in use: gunicorn replaces a stale socket, but one that is in use as well."""
    try:
        make_folder(path.parent, 0o750)
        taken = path.exists()
        mode = path.stat().st_mode if taken else 0
    except OSError as error:
        raise ConfigError(f"sockets.directory: cannot listen at {path}: {error.strerror}") from error
    if not taken:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is in the way: it is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT):
            raise ConfigError(f"another process serves on {path} already")


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured by the restpipe configuration alone."""

    def __init__(self, config: Config, notifier: Notifier) -> None:
        self._config = config
        self._notifier = notifier
        super().__init__()

    def run(self) -> None:
        Watchman(self, self._notifier).run()

    def reload(self) -> None:
        """Read the configuration again on SIGHUP, before new workers take the place of the old."""
        try:
            self._config, _ = renewed(self._config)
        except ConfigError as error:
            _log.error("not reloaded, going on with the configuration as it was: %s", error)
        else:
            logs.set_level(self._config.log)
        super().reload()

    def load_default_config(self) -> None:
        # gunicorn's default is the folder that it was imported in. That may be deleted since.
        Chdir.default = str(Path.cwd())
        super().load_default_config()

    def load_config(self) -> None:
        for name, value in self._settings().items():
            # Versions differ in what can be set.
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def _settings(self) -> dict[str, Any]:
        config = self._config
        return {
            "bind": f"unix:{config.sockets.web}",
            # gunicorn takes all the mode of its socket from it, and uses it for nothing else that is shared.
            "umask": 0o777 & ~config.sockets.mode,
            "workers": config.web.workers,
            # By name, for gunicorn imports it itself.
            "worker_class": "restpipe.web.worker.Worker",
            "timeout": HANG_TIMEOUT_S,
            "graceful_timeout": math.ceil(config.pipe.drain_timeout_s) + 1,
            "backlog": BACKLOG,
            # Heartbeats are written there: a disk that stands still must not have the workers killed.
            "worker_tmp_dir": MEMORY if os.access(MEMORY, os.W_OK) else None,
            "preload_app": False,
            "loglevel": "debug" if config.log.debug else "info",
            "logger_class": RootLogger,
            "proc_name": f"restpipe-web-{config.role.value}",
            "forwarded_allow_ips": "",
            # A socket at one path a user, where two roles would meet.
            "control_socket_disable": True,
            "on_exit": self._on_exit,
        }

    def _on_exit(self, _arbiter: object) -> None:
        self._notifier.stopping()

    def load(self) -> WebService:
        """Return what a worker serves. Called in each of them, after the fork."""
        return WebService(self._config, self._notifier)


class Watchman(Arbiter):  # type: ignore[misc]
    """gunicorn's own process. It watches over its workers, and the service manager watches over it."""

    def __init__(self, server: Server, notifier: Notifier) -> None:
        self._notifier = notifier
        super().__init__(server)

    def murder_workers(self) -> None:
        """Called every second."""
        if self._notifier.watchdog_interval is not None:
            self._notifier.trigger_watchdog()
        super().murder_workers()


class RootLogger(Logger):  # type: ignore[misc]
    """Leaves gunicorn's lines to the process's own log."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log.propagate = True
        self.error_log.handlers = []
        self.error_log.setLevel(logging.DEBUG if cfg.loglevel == "debug" else logging.INFO)
        self.access_log.propagate = False
        self.access_log.handlers = []
