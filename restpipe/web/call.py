"""One HTTP request under way: its task, its caller, and the two ways in which its time can end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from restpipe.web.framing import Framing
from restpipe.web.sender import Sending
from restpipe.web.upload import Receive


class HttpConnection(Protocol):
    """What the application needs of `restpipe.web.strict.StrictProtocol`."""

    target: bytes
    framing: Framing
    on_hangup: Callable[[], None] | None

    def break_off(self) -> None: ...


class Call:
    """Cancels its task when the caller hangs up (`hung_up`) or when the time set is over (`expired`).

    To be made in the task that answers the request. `end` must be called in any case.
    """

    def __init__(self, connection: HttpConnection, receive: Receive) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call must be made in a task")
        self.connection = connection
        self.receive = receive
        self.event_id = b""
        self.sending: Sending | None = None
        self.hung_up = False
        self.expired = False
        self.on_end: Callable[[], None] | None = None
        self._task = task
        self.loop = task.get_loop()
        self._timer: asyncio.TimerHandle | None = None
        connection.on_hangup = self._hang_up

    def allow(self, seconds: float) -> float:
        """Sets the time anew; returns the moment of its end by the loop's clock."""
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.loop.time() + seconds
        self._timer = self.loop.call_at(deadline, self._expire)
        return deadline

    def survive(self) -> bool:
        """After a cancellation: true when only the time is over, and the caller is there to be told."""
        if self.hung_up or not self.expired:
            return False
        self.expired = False
        self._task.uncancel()
        return True

    @property
    def over(self) -> bool:
        """The task's cancellation is this call's own doing."""
        return self.hung_up or self.expired

    def end(self) -> None:
        """Lets go of everything; a reply that is not whole by now is cancelled."""
        if self._timer is not None:
            self._timer.cancel()
        self.connection.on_hangup = None
        if self.sending is not None:
            self.sending.close()
        if self.on_end is not None:
            self.on_end()

    def _hang_up(self) -> None:
        self.hung_up = True
        self._task.cancel()

    def _expire(self) -> None:
        self._timer = None
        self.expired = True
        self._task.cancel()
