"""Processes that code of others forks from this one: what they must not share with it.

A forked child has all that its parent had: signal handlers that wake the parent's event loop, and connections
that stay open for as long as the child lives. The child is made to have its own signals, and no connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator

_loop: tuple[asyncio.AbstractEventLoop, int] | None = None
_signals: set[int] = set()
_connections: list[Callable[[], int]] = []
_forking = threading.local()
"""Of a thread that forks: the signals that it holds back anyway."""
is_child = False
"""This process is a fork of the one that has signals and connections of its own."""


def own_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Have a child end that is forked in this thread and comes back to its loop: the loop is the parent's."""
    global _loop
    _watch()
    _loop = (loop, threading.get_ident())


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
    os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals, after_in_child=_begin_child)


def _hold_signals() -> None:
    """A signal that a child gets before it has its own effect would be one to the parent."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _signals)


def _let_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _begin_child() -> None:
    global is_child
    is_child = True
    # The descriptor is the parent's loop's: what a child writes there is a signal to the parent.
    signal.set_wakeup_fd(-1)
    for number in _signals:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if _loop is not None and _loop[1] == threading.get_ident() and not _loop[0].is_closed():
        _loop[0].call_soon(os._exit, 1)
    for fileno in _connections:
        _cut(fileno())
    _let_signals()


def _cut(descriptor: int) -> None:
    """Have a descriptor lead nowhere. It stays taken, so that whoever closes it closes nothing else."""
    if descriptor < 0:
        return
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)
