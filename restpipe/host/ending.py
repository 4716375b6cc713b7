"""The end of a process that runs code of others: in time, whatever that code has left behind.

Python waits at its end for threads, pools and tasks, for as long as they take. Here a thread of its own waits
beside it, which needs nothing of theirs.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from restpipe.errors import RestPipeError, exit_status, message_of
from restpipe.host.loader import users_frame, users_line

GRACE_S = 2.0
"""What threads, pools and tasks of others may take to end once all else has."""
_LAST_WORDS_S = 1.0
"""What the last line may take: a lock that it needs may be held by what hangs."""
_MOST_NAMED = 10
_OWN_THREADS = ("restpipe-", "handler-")

_log = logging.getLogger(__name__)


class Ending:
    """Ends the process by a moment that is given. Make it before code of others is loaded."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        """Whose tasks are named if they are left behind."""
        self.instead: Callable[[], object] | None = None
        """Called in place of the end, as the last thing that this process does."""
        self._failure: BaseException | None = None
        # A queue that may be put to in a signal handler.
        self._moments: queue.SimpleQueue[tuple[float, bool]] = queue.SimpleQueue()
        # Registered first, called last: after what the others have registered.
        atexit.register(self._at_exit)
        threading.Thread(target=self._wait, name="restpipe-ending", daemon=True).start()

    def within(self, seconds: float, failure: BaseException | None = None, *, instead: bool = False) -> None:
        """End the process in so many seconds at the latest, with the status that `failure` asks for.

        Of several moments the first counts, unless one comes `instead` of those before it. A failure stays.
        """
        self._failure = failure or self._failure
        self._moments.put((time.monotonic() + seconds, instead))

    @contextlib.contextmanager
    def after(self) -> Iterator[None]:
        """Once the block is over, have the process end within the time of grace."""
        try:
            yield
        except BaseException as exc:
            self.within(GRACE_S, exc)
            raise
        self.within(GRACE_S)

    def _at_exit(self) -> None:
        if self.instead is not None:
            self.instead()
        # From here on Python's threads stand still, but `__del__` may run: this needs none, and says where.
        with contextlib.suppress(OSError, RuntimeError, ValueError, AttributeError):
            faulthandler.dump_traceback_later(GRACE_S, exit=True)

    def _wait(self) -> None:
        moment, _ = self._moments.get()
        while (left := moment - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                other, instead = self._moments.get(timeout=left)
                moment = other if instead else min(moment, other)
        last = threading.Thread(target=self._say_last_words, name="restpipe-last-words", daemon=True)
        with contextlib.suppress(RuntimeError):
            last.start()
            last.join(_LAST_WORDS_S)
        if self.instead is not None:
            self.instead()
        os._exit(0 if self._failure is None else exit_status(self._failure))

    def _say_last_words(self) -> None:
        found = left_behind(self.loop)
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        # What it ends by would be said after the end of what is left behind.
        why = "" if self._failure is None else f" ({_in_words(self._failure)})"
        _log.warning("ending%s, and leaving behind: %s%s", why, "; ".join(found[:_MOST_NAMED]), more)
        _end_pools()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()


def _in_words(failure: BaseException) -> str:
    said = message_of(failure)
    return said if isinstance(failure, RestPipeError) else f"{type(failure).__name__}: {said}"


def left_behind(loop: asyncio.AbstractEventLoop | None) -> list[str]:
    """Name what this process would wait for at its end, threads, tasks and processes, and where they are."""
    frames = sys._current_frames()
    main, own = threading.main_thread(), threading.current_thread()
    found = [
        f"thread {thread.name!r} at {_line_of(frames.get(thread.ident or 0))}"
        for thread in threading.enumerate()
        if thread is not main and thread is not own and not thread.daemon
    ]
    found += [f"task {frame.name!r} at {frame.filename}:{frame.lineno}" for frame in _tasks(loop)]
    found += [f"process {pid} ({name})" for pid, name in _children()]
    if not found:
        daemons = (thread for thread in threading.enumerate() if thread.daemon and thread is not own)
        named = [repr(thread.name) for thread in daemons if not thread.name.startswith(_OWN_THREADS)]
        beside = f" (beside the threads {', '.join(named)})" if named else ""
        found.append(f"what the main thread waits for at {_line_of(frames.get(main.ident or 0))}{beside}")
    return found


def _tasks(loop: asyncio.AbstractEventLoop | None) -> list[traceback.FrameSummary]:
    """Return where the tasks of the user's code stand. RestPipe's own wait for nothing but the loop."""
    if loop is None or loop.is_closed():
        return []
    with contextlib.suppress(RuntimeError):
        return [frame for task in asyncio.all_tasks(loop) if (frame := users_frame(_stack(task.get_coro())))]
    return []


def _line_of(frame: FrameType | None) -> str:
    return users_line(traceback.extract_stack(frame)) if frame is not None else "its end"


def _stack(coro: Any) -> list[traceback.FrameSummary]:
    """Return where a coroutine stands, and those that it waits for; the innermost comes last."""
    stack = []
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "ag_frame", None)
        if frame is not None:
            place = (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
            stack.append(traceback.FrameSummary(*place, lookup_line=False))
        coro = getattr(coro, "cr_await", None) or getattr(coro, "ag_await", None)
    return stack


def _children() -> Iterator[tuple[int, str]]:
    multiprocessing = sys.modules.get("multiprocessing")
    named = {child.pid: child.name for child in multiprocessing.active_children()} if multiprocessing else {}
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                for pid in map(int, (task / "children").read_text().split()):
                    command = (
                        Path(f"/proc/{pid}/cmdline")
                        .read_bytes()
                        .replace(b"\0", b" ")
                        .decode(errors="replace")
                    )
                    if command:  # else it has ended
                        yield pid, named.get(pid) or command.strip()[:60]


def _end_pools() -> None:
    """End the children of `multiprocessing`, as it does itself at an orderly end."""
    multiprocessing = sys.modules.get("multiprocessing")
    for child in multiprocessing.active_children() if multiprocessing else ():
        with contextlib.suppress(OSError):
            child.terminate()
