"""Processes that code of others forks from this one: what they must not share with it.

A forked child has all that its parent had: signal handlers that wake the parent's event loop, and connections
that stay open for as long as the child lives. The child is made to have its own signals, and no connections.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator

_signals: set[int] = set()
_connections: list[Callable[[], int]] = []
is_child = False
"""This process is a fork of the one that has signals and connections of its own."""


def own_signal(number: int) -> None:
    """Give a signal its default effect in children: its handler concerns this process alone."""
    _watch()
    _signals.add(number)


@contextlib.contextmanager
def own_connection(fileno: Callable[[], int]) -> Iterator[None]:
    """Keep a connection from children. `fileno` returns its descriptor then, -1 if there is none."""
    _watch()
    _connections.append(fileno)
    try:
        yield
    finally:
        _connections.remove(fileno)


@functools.cache
def _watch() -> None:
    os.register_at_fork(after_in_child=_begin_child)


def _begin_child() -> None:
    global is_child
    is_child = True
    # The descriptor is the parent's loop's: what a child writes there is a signal to the parent.
    signal.set_wakeup_fd(-1)
    for number in _signals:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for fileno in _connections:
        _cut(fileno())


def _cut(descriptor: int) -> None:
    """Have a descriptor lead nowhere. It stays taken, so that whoever closes it closes nothing else."""
    if descriptor < 0:
        return
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)
