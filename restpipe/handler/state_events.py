"""Hooks for connections that come and go. Each may be `async def`; they are called one after another.

Moments are given as the original gave them: naive datetimes in local time.
"""

from __future__ import annotations

import datetime
from collections.abc import Awaitable

Done = Awaitable[None] | None


class ClientStateHooks:
    """What a client hears of its connection to the server."""

    def connection_success(self, retry_attempts: int, last_connection_dt: datetime.datetime | None) -> Done:
        """Connected, after `retry_attempts` failures in a row; before that it was connected until then."""
        return self.connect_success(retry_attempts, last_connection_dt)

    def connection_fail(self, retry_attempts: int, last_connection_dt: datetime.datetime | None) -> Done:
        """An attempt failed or the connection broke, with `retry_attempts` failures in a row before it."""
        return self.connect_fail(retry_attempts, last_connection_dt)

    def connect_success(self, retry_attempts: int, last_connection_dt: datetime.datetime | None) -> Done:
        """Older name of `connection_success`."""
        return None

    def connect_fail(self, retry_attempts: int, last_connection_dt: datetime.datetime | None) -> Done:
        """Older name of `connection_fail`."""
        return None


class ServerStateHooks:
    """What a server hears of its clients."""

    def idle(self, waiting_since_dt: datetime.datetime, duration_s: float) -> Done:
        """No client is connected: at the start, when the last one leaves, and each minute from then on."""
        return None

    def connection_added(self, ip: str, count: int) -> Done:
        """A client joined; `count` are connected now."""
        return None

    def connection_removed(self, ip: str, count: int) -> Done:
        """A client left; `count` are connected now."""
        return None


class ClientStateChangeEvent(ClientStateHooks):
    """To inherit from for `connection_state_class` on a client."""


class ConnectionStateEvents(ClientStateHooks):
    """Another name of `ClientStateChangeEvent`."""


class ServerStateChangeEvent(ServerStateHooks):
    """To inherit from for `connection_state_class` on a server."""
