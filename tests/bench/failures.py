"""The one way in which a benchmark says that it cannot go on."""

from __future__ import annotations

import re


class BenchError(Exception):
    """Told to the user as one line."""


_NAMES_AN_ERROR = re.compile(r"[\w.]*(Error|Exception)\b")


def cause(text: str) -> str:
    """Why a process has ended, of all that it has said: its last error of Python's, or its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if _NAMES_AN_ERROR.match(line)]
    return (errors or lines or ["it said nothing"])[-1]


def short(error: AssertionError) -> str:
    """What failed, and the cause in the log that the tests' messages have after it."""
    what, _, log = str(error).partition("\n")
    return f"{what} {cause(log)}" if log else what
