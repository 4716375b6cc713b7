"""Host names, looked up by the system, each in a thread of its own.

An event loop has few threads for that, and waits for all of them when it is closed: three names whose servers
are silent would keep all others waiting, and hold up the end of the process for as long as the system asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Sequence

MAX_LOOKUPS = 64
"""Names that are looked up at once. The system may take a minute over each."""

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]
"""An address for a stream, as `socket.getaddrinfo` returns it."""
Answer = asyncio.Future[Sequence[AddressInfo]]


class Lookups:
    """Look-ups in progress. Each counts until the system has answered, whether or not it is waited for."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, int], Answer] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def begin(self, host: str, port: int = 0) -> Answer:
        """Return the answer to come: to the same question, if it has been asked already.

        It raises OSError (socket.gaierror) if there are no addresses, the system cannot tell, or too many
        names are being looked up; ValueError if the host cannot be a name. Wait for it with `asyncio.wait`:
        others may do so, too.
        """
        pending = self._answers.get((host, port))
        if pending is not None:
            return pending
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        if len(self._answers) >= MAX_LOOKUPS:
            answer.set_exception(socket.gaierror(socket.EAI_AGAIN, "too many names are being looked up"))
            return answer
        # A daemon: nothing waits for it at the end.
        thread = threading.Thread(target=self._ask, args=(loop, host, port), name="look-up", daemon=True)
        self._answers[host, port] = answer
        try:
            thread.start()
        except RuntimeError:
            self._settle(host, port, (), OSError(errno.EAGAIN, "no thread can be started for it"))
        return answer

    def _ask(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> None:
        found: Sequence[AddressInfo] = ()
        failure: Exception | None = None
        try:
            if "\0" in host:
                # The library would ask for what is before it.
                raise ValueError("a null character in the name")
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as error:
            failure = error
        # The loop may be closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._settle, host, port, found, failure)

    def _settle(self, host: str, port: int, found: Sequence[AddressInfo], failure: Exception | None) -> None:
        answer = self._answers.pop((host, port))
        if answer.done():
            # It was cancelled.
            return
        if failure is None:
            answer.set_result(found)
            return
        answer.set_exception(failure)
        # Nobody may have waited for so long, and that is no fault to log.
        answer.exception()
