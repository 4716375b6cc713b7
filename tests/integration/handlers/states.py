"""Write down in the worker's log what they hear of connections."""

from __future__ import annotations

import datetime
import logging

from echo import Echo

from restpipe import ClientEventHandler, ClientStateChangeEvent, ServerEventHandler, ServerStateChangeEvent

_log = logging.getLogger("states")


class OnServer(Echo, ServerEventHandler):
    """The hooks as methods of the handler."""

    def idle(self, waiting_since_dt: datetime.datetime, duration_s: float) -> None:
        _log.info("handler: idle since %s", waiting_since_dt)

    def connection_added(self, ip: str, count: int) -> None:
        _log.info("handler: added %s %d", ip, count)

    def connection_removed(self, ip: str, count: int) -> None:
        _log.info("handler: removed %s %d", ip, count)


class ServerStates(ServerStateChangeEvent):
    """The hooks in a class of their own."""

    async def idle(self, waiting_since_dt: datetime.datetime, duration_s: float) -> None:
        _log.info("class: idle since %s", waiting_since_dt)

    async def connection_added(self, ip: str, count: int) -> None:
        _log.info("class: added %s %d", ip, count)

    async def connection_removed(self, ip: str, count: int) -> None:
        _log.info("class: removed %s %d", ip, count)


class OnClient(Echo, ClientEventHandler):
    def connection_success(self, retry_attempts: int, last_connection_dt: datetime.datetime | None) -> None:
        _log.info("handler: success, broken before: %s", last_connection_dt is not None)

    def connection_fail(self, retry_attempts: int, last_connection_dt: datetime.datetime | None) -> None:
        _log.info("handler: fail, broken before: %s", last_connection_dt is not None)


class ClientStates(ClientStateChangeEvent):
    """Under the older names."""

    def connect_success(self, retry_attempts: int, last_connection_dt: datetime.datetime | None) -> None:
        _log.info("class: success, broken before: %s", last_connection_dt is not None)

    def connect_fail(self, retry_attempts: int, last_connection_dt: datetime.datetime | None) -> None:
        _log.info("class: fail, broken before: %s", last_connection_dt is not None)
