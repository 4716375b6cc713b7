"""Logs: one line a record on stderr. What becomes of them is the host's business."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO

from restpipe.host.options import Log

_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.DEBUG, 7),
)
"""syslog's priorities, which the journal reads from the beginning of a line."""


def configure(config: Log, *, process: str) -> None:
    """Send all records of this process to stderr; `process` (`pipe`, `web`, ...) is named in each line.

    May be called again: it takes the place of what was configured before.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter_for(sys.stderr, process, os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if config.debug else logging.INFO)
    # asyncio's own debug lines are about the loop's mechanics, not ours.
    logging.getLogger("asyncio").setLevel(logging.INFO)


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


class LineFormatter(logging.Formatter):
    """One line a record, whatever it says: line ends and other control characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_ESCAPES)


class JournalFormatter(LineFormatter):
    """The same behind a priority, `<6>`."""

    def format(self, record: logging.LogRecord) -> str:
        return f"<{_priority(record.levelno)}>{super().format(record)}"


_ESCAPES: dict[int, str] = {
    **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))},
    **{ord(text): text.encode("unicode_escape").decode() for text in "\n\r\u2028\u2029"},
    ord("\t"): "\t",
}


def _priority(level: int) -> int:
    return next((priority for floor, priority in _PRIORITIES if level >= floor), 7)


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """$JOURNAL_STREAM is inherited by everything that a unit starts: only the same file counts."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
