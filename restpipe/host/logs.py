"""Logs: one line a record on stderr. What becomes of them is the host's business.

RestPipe's own loggers, `restpipe` and below, have their own handler, and keep it: code of others may
configure `logging` as it likes, close stderr or put another in its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from restpipe.host.options import Log

_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.DEBUG, 7),
)
"""syslog's priorities, which the journal reads from the beginning of a line."""


JOURNAL = "/run/systemd/journal/socket"
MAX_MESSAGE = 16384
"""Characters of a record that the journal gets: a traceback fits."""
BURST = 10
WINDOW_S = 60.0
LONGEST_WINDOW_S = 3600.0
WIDENED = 4
"""A flood that goes on is summed up ever more rarely."""
MAX_WINDOWS = 10_000
ROOT = "restpipe"
"""Name of the logger that all of RestPipe's are below."""
_GUARDED = ("restpipe.daemon", "restpipe.transport", "restpipe.handler")
USERS = "restpipe.handler.event"
"""Name of the logger that methods write to."""


_stderr: TextIO | None = None


def configure(config: Log, *, process: str) -> None:
    """Send all records of this process to stderr; `process` (`pipe`, `web`, ...) is named in each line.

    May be called again: it takes the place of what was configured before.
    """
    own = logging.getLogger(ROOT)
    own.handlers[:] = [_handler(_own_stderr(), process)]
    # What others do with the root's handlers concerns their own records alone.
    own.propagate = False
    logging.getLogger().handlers[:] = [_handler(sys.stderr, process)]
    set_level(config)
    protect()
    # asyncio's own debug lines are about the loop's mechanics, not ours.
    logging.getLogger("asyncio").setLevel(logging.INFO)


def set_level(config: Log) -> None:
    """Once configured, to be told more or less."""
    for name in (ROOT, ""):
        logging.getLogger(name).setLevel(logging.DEBUG if config.debug else logging.INFO)


def protect() -> None:
    """Have no code of others silence RestPipe's loggers, as far as they have been made."""
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if type(logger) is logging.Logger and (name == ROOT or name.startswith(f"{ROOT}.")):
            logger.__class__ = OwnLogger


class OwnLogger(logging.Logger):
    """Written to whatever `logging.disable` or a configuration says of loggers that it does not know."""

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, _: bool) -> None:
        pass

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        # As in the base class, which empties it when a level changes.
        cache: dict[int, bool] = self._cache  # type: ignore[attr-defined]
        enabled = cache.get(level)
        if enabled is None:
            enabled = cache[level] = level >= self.getEffectiveLevel()
        return enabled

    def makeRecord(  # noqa: N802 - logging's name
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Mapping[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        """Make a plain record, whatever factory others have set."""
        record = logging.LogRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)
        for key, value in (extra or {}).items():
            if key in vars(record) or key in ("message", "asctime"):
                raise KeyError(f"{key!r} is the record's own")
            setattr(record, key, value)
        return record


def _handler(stream: TextIO, process: str) -> logging.Handler:
    handler: logging.StreamHandler[TextIO]
    if _is_journal(stream, os.environ):
        handler = JournalHandler(stream, process)
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter_for(stream, process, os.environ))
    handler.addFilter(FloodGuard(time.monotonic))
    return handler


def _own_stderr() -> TextIO:
    """Another descriptor of the same file, so that nobody can close it."""
    global _stderr
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.dup(sys.stderr.fileno())
        if _stderr is not None:
            _stderr.close()
        _stderr = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")
        return _stderr
    return sys.stderr


def formatter_for(stream: TextIO, process: str, environ: Mapping[str, str]) -> logging.Formatter:
    """The journal adds time and process itself and wants a priority; everybody else wants time and level."""
    if _is_journal(stream, environ):
        return JournalFormatter("%(name)s: %(message)s")
    return LineFormatter(
        f"%(asctime)s.%(msecs)03d %(levelname)-7s {process}: %(name)s: %(message)s", "%H:%M:%S"
    )


def priority(level: int) -> str:
    """What a line on stderr begins with for the journal to know how important it is; else nothing."""
    return f"<{_priority(level)}>" if _is_journal(sys.stderr, os.environ) else ""


class JournalHandler(logging.StreamHandler[TextIO]):
    """Gives the journal its fields: MESSAGE, PRIORITY, LOGGER, and PEER where a record is about one.

    Whatever cannot be told there is told on the stream.
    """

    def __init__(self, stream: TextIO, process: str, address: str = JOURNAL) -> None:
        super().__init__(stream)
        self.setFormatter(JournalFormatter("%(name)s: %(message)s"))
        self._text = MessageFormatter("%(message)s")
        self._identifier = f"restpipe-{process}"
        self._address = address
        self._socket = _datagrams()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._tell(record)
        except OSError:
            super().emit(record)
        except Exception:
            # A message and arguments that do not fit: the caller's mistake, which must not end it.
            self.handleError(record)

    def _tell(self, record: logging.LogRecord) -> None:
        fields = {
            "MESSAGE": self._text.format(record)[:MAX_MESSAGE],
            "PRIORITY": str(_priority(record.levelno)),
            "SYSLOG_IDENTIFIER": self._identifier,
            "LOGGER": record.name,
            "PEER": str(getattr(record, "peer", "")).replace("\n", " "),
        }
        if self._socket.fileno() < 0:
            # Whoever configures `logging` closes all handlers that there are.
            self._socket = _datagrams()
        self._socket.sendto(journal_entry(fields), self._address)

    def close(self) -> None:
        self._socket.close()
        super().close()


def _datagrams() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


def journal_entry(fields: Mapping[str, str]) -> bytes:
    """As systemd's native protocol has it; empty fields are left out."""
    return b"".join(_field(name, value.encode("utf-8", "replace")) for name, value in fields.items() if value)


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return b"%b=%b\n" % (name.encode(), value)
    # Its length comes first, so that no line of it can be taken for another field.
    return b"%b\n%b%b\n" % (name.encode(), len(value).to_bytes(8, "little"), value)


class FloodGuard(logging.Filter):
    """Lets a few records through that say the same of the same peer, then only counts them.

    What a record says is its message before arguments are put in, or its attribute `about`.

    For as long as it goes on there is one line a window that says how many they were; the first such window
    lasts a minute, later ones up to an hour. Once one has passed in silence, all begins anew.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[tuple[str, str, str], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        # What the user's code logs is the user's business, and whoever debugs wants all.
        if not record.name.startswith(_GUARDED) or record.name == USERS or record.levelno <= logging.DEBUG:
            return True
        about = getattr(record, "about", "") or str(record.msg)
        key = (record.name, about, getattr(record, "peer", ""))
        now = self._clock()
        window = self._windows.get(key)
        if window is None or now >= window.end:
            if window is None and len(self._windows) >= MAX_WINDOWS:
                self._windows.clear()
            self._windows[key] = _Window.after(window, now)
            if window is not None and window.left_out > 0:
                record.msg = f"{record.msg} ({window.left_out} more like it were left out)"
            return True
        window.count += 1
        return window.count <= window.burst


@dataclasses.dataclass
class _Window:
    end: float
    length_s: float
    burst: int
    count: int = 1

    @classmethod
    def after(cls, before: _Window | None, now: float) -> _Window:
        if before is None or not before.left_out or now >= before.end + before.length_s:
            return cls(now + WINDOW_S, WINDOW_S, BURST)
        # The first summary comes after a minute, and stands for what is to come.
        length_s = WINDOW_S * WIDENED if before.burst > 1 else before.length_s * WIDENED
        length_s = min(length_s, LONGEST_WINDOW_S)
        return cls(now + length_s, length_s, 1)

    @property
    def left_out(self) -> int:
        return max(0, self.count - self.burst)


class LineFormatter(logging.Formatter):
    """One line a record, whatever it says: line ends and other control characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_ESCAPES)


class MessageFormatter(logging.Formatter):
    """The message in one line, and below it a traceback with the line ends that it has."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return super().formatMessage(record).translate(_ESCAPES)

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_ESCAPES_IN_LINES)


class JournalFormatter(LineFormatter):
    """The same behind a priority, `<6>`."""

    def format(self, record: logging.LogRecord) -> str:
        return f"<{_priority(record.levelno)}>{super().format(record)}"


_ESCAPES: dict[int, str] = {
    **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))},
    **{ord(text): text.encode("unicode_escape").decode() for text in "\n\r\u2028\u2029"},
    ord("\t"): "\t",
}
_ESCAPES_IN_LINES = {code: text for code, text in _ESCAPES.items() if code != ord("\n")}


def _priority(level: int) -> int:
    return next((priority for floor, priority in _PRIORITIES if level >= floor), 7)


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """$JOURNAL_STREAM is inherited by everything that a unit starts: only the same file counts."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
