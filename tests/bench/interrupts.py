"""How a benchmark ends: by itself, by a signal, or with one line that says why it cannot go on."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from tests.bench.failures import BenchError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """The exit status, once the block is over."""

    status = 0


@contextlib.contextmanager
def ending_in_good_order(name: str) -> Iterator[Ending]:
    """All `with` blocks inside are left in each case, and so end what they have started."""
    ending = Ending()
    before = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    try:
        yield ending
    except BenchError as error:
        print(f"{name}: {error}", file=sys.stderr)
        ending.status = 1
    except KeyboardInterrupt:
        ending.status = 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
