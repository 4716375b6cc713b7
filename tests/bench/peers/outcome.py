"""What a section comes to: tables, and the ratios that matter."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.bench.markdown import table


class Ratio(NamedTuple):
    what: str
    value: str


class Outcome(NamedTuple):
    tables: Sequence[str]
    ratios: Sequence[Ratio]


def times(values: Iterable[float]) -> str:
    """The median of one ratio a round, and how far they lie apart."""
    found = sorted(values)
    apart = f" ({found[0]:.2f} to {found[-1]:.2f})" if len(found) > 1 else ""
    return f"{statistics.median(found):.2f}{apart}"


def ratios_table(ratios: Iterable[Ratio]) -> str:
    return table(("RestPipe", "ratio"), ratios)
