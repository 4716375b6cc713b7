"""The handler worker: a process that runs the user's event handler for its daemon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from restpipe.errors import ConfigError, RestPipeError, message_of
from restpipe.handler.api import EventHandler
from restpipe.handler.dispatch import CLOSE_S, Dispatcher
from restpipe.handler.faults import ends_task
from restpipe.handler.hooks import StateHooks, call_hook
from restpipe.handler.registry import Registry
from restpipe.handler.renewal import FINISH_S, Renewal, is_successor, take_over
from restpipe.handler.state_events import ClientStateHooks, ServerStateHooks
from restpipe.host import forks, logs, loop, notify
from restpipe.host.config import Config, Role
from restpipe.host.ending import GRACE_S, Ending
from restpipe.host.expendable import Expendable
from restpipe.host.limits import fill_standard_descriptors
from restpipe.host.loader import create
from restpipe.host.notify import Notifier
from restpipe.host.sandbox import hint
from restpipe.host.start import Start
from restpipe.host.stats import Stats
from restpipe.protocol.schema_pb2 import ROLE_HANDLER
from restpipe.transport.daemon_link import DaemonLink

STATUS_INTERVAL_S = 5.0
STOP_HOOK_S = 10.0
LEAVE_S = 1.0
"""For tasks that are cancelled, but maybe wait for the user's code, which need not heed that."""
KEEP_S = 1.0
"""Between two looks at what is RestPipe's own."""
UNLINKED_S = 5.0
"""A worker without a daemon says READY all the same after a while: a boot must not wait for it."""

_BUILT_IN = {
    Role.SERVER: "restpipe.handler.examples.builtin.TestServerEventHandler",
    Role.CLIENT: "restpipe.handler.examples.builtin.TestClientEventHandler",
}
_HOOKS = (ServerStateHooks, ClientStateHooks)
_log = logging.getLogger(__name__)


class StartHookError(RestPipeError):
    """The user's start hook failed: the worker cannot do its work."""


def main(config: Config, *, in_place: bool = False) -> int:
    """Run until SIGTERM or SIGINT, and return the exit status. `in_place` is for `Renewal`.

    Raises `ConfigError` if the user's class cannot be loaded, before anything has been started.
    """
    start, ending = Start.of_this_process(), Ending()
    expendable = Expendable() if is_successor() else None
    with ending.after():
        loaded = _load(config)
        worker = Worker(config, *loaded, in_place=in_place, expendable=expendable, start=start)
        worker.ending = ending
        loop.run(_run(worker, ending), on_stop=worker.expect_stop, collect_seldom=False)
    return 0


async def _run(worker: Worker, ending: Ending) -> None:
    """Once the worker has ended, neither tasks nor threads of its handler hold up the end of the process."""
    ending.loop = asyncio.get_running_loop()
    try:
        await worker.run()
    except asyncio.CancelledError:
        raise  # an orderly end
    except BaseException as exc:
        ending.within(GRACE_S, exc)
        raise
    finally:
        if worker.anew:
            ending.instead = worker.start.again
        ending.within(GRACE_S)


def check(config: Config) -> None:
    """Load the user's code and nothing else. Raises `ConfigError` if that cannot be done."""
    Expendable()
    with Ending().after():
        _load(config)


def _load(config: Config) -> tuple[EventHandler, list[object]]:
    logs.protect()
    notify.keep_from_others()
    handler = load_handler(config)
    return handler, [handler, *load_listener(config)]


def load_handler(config: Config) -> EventHandler:
    """Make the object that answers this worker's events."""
    name = config.handlers.event_class or _BUILT_IN[config.role]
    handler = create(name, config.handlers.path)
    if not isinstance(handler, EventHandler):
        raise ConfigError(f"handlers.event_class: {name} does not inherit from restpipe.EventHandler")
    _warn_of_role("event_class", handler, config.role)
    return handler


def load_listener(config: Config) -> list[object]:
    """Make the object whose hooks are told of connections, if one is configured."""
    name = config.handlers.connection_state_class
    if not name:
        return []
    listener = create(name, config.handlers.path)
    _warn_of_role("connection_state_class", listener, config.role)
    return [listener]


def _warn_of_role(option: str, made: object, role: Role) -> None:
    """Say so if the class is one for the other role: none of its hooks would be called."""
    own, other = _HOOKS if role is Role.SERVER else reversed(_HOOKS)
    if isinstance(made, other) and not isinstance(made, own):
        _log.warning(
            "handlers.%s: %s has the hooks of the other role: on a %s none of them is called",
            option,
            type(made).__name__,
            role,
        )


class Worker:
    """Everything that lives as long as the process."""

    def __init__(
        self,
        config: Config,
        handler: EventHandler,
        listeners: list[object],
        *,
        notifier: Notifier | None = None,
        in_place: bool = False,
        expendable: Expendable | None = None,
        start: Start | None = None,
    ) -> None:
        self.start = start or Start.of_this_process()
        self._config = config
        self._handler = handler
        self._listeners = listeners
        self._registry = Registry.of(handler)
        self._notifier = notifier or Notifier()
        self._renewal = Renewal(
            config.handlers.load_timeout_s, self.start, self._end_for_renewal, in_place=in_place
        )
        self.ending: Ending | None = None
        """What bounds each step of the end, whatever the loop is held up by."""
        self._expendable = expendable
        self._serving = False
        self._stopping = False

    @property
    def patience_s(self) -> float:
        """Seconds in which it comes to its stop hook, or to its end, if it is asked to stop now."""
        # Each block of `_running` may take its time, and so may the dispatcher.
        leave_s = 3 * LEAVE_S + CLOSE_S + GRACE_S
        if not self._serving:
            return leave_s
        finishes = self._renewal.succeeded and not self._stopping
        return leave_s + (FINISH_S if finishes else self._config.pipe.drain_timeout_s)

    @property
    def anew(self) -> bool:
        """It ended only to be started again with other code."""
        return self._renewal.anew

    def expect_stop(self) -> None:
        """Have it end in time, and for good: it is asked to stop. For a signal handler."""
        self._renewal.refuse()
        if self.ending is not None:
            self.ending.instead = None
            self.ending.within(self.patience_s)

    def _end_for_renewal(self) -> None:
        """End as if asked to. Without a signal, which would be no other than a stop that is meant."""
        if self.ending is not None:
            self.ending.within(self.patience_s)
        loop.stop()

    async def run(self) -> None:
        """Answer events until cancelled; then drain."""
        self._renewal.listen()
        handlers = self._config.handlers
        stats = Stats(self._config.statsd)
        dispatcher = Dispatcher(
            self._registry,
            threads=handlers.threads,
            concurrency=handlers.concurrency,
            max_body_bytes=handlers.max_body_bytes,
            stats=stats,
            on_capacity=lambda capacity: link.set_capacity(capacity),
        )
        hooks = StateHooks(self._listeners, dispatcher.pool.run)
        link = DaemonLink(
            str(self._config.sockets.handlers),
            ROLE_HANDLER,
            capacity=dispatcher.capacity,
            on_event=dispatcher.take,
            on_notice=hooks.take,
        )
        async with _running(stats.run(), self._feed_watchdog(), _keep_own()):
            try:
                await self._start_hook(dispatcher)
                async with _running(hooks.run(), self._tell_status(link, dispatcher)):
                    with forks.own_connection(link.fileno):
                        await self._serve(link)
                await self._stop_hook(dispatcher)
            finally:
                self._renewal.close()
                await dispatcher.close()

    async def _serve(self, link: DaemonLink) -> None:
        """Answer events until cancelled, and then what is in flight."""
        name = type(self._handler).__name__
        _log.info("%s answers events with %d methods", name, len(self._registry))
        self._serving = True
        async with _running(link.run()) as (running,):
            try:
                await asyncio.wait([running])
                running.result()
            except asyncio.CancelledError:
                _log.info("stopping")
            finally:
                self._stopping = True
                self._renewal.close()
                if not self._renewal.succeeded:
                    self._notifier.stopping()
                await link.drain(FINISH_S if self._renewal.succeeded else self._config.pipe.drain_timeout_s)

    # The user's hooks.

    async def _start_hook(self, dispatcher: Dispatcher) -> None:
        try:
            await call_hook(self._handler.start_hook, (), dispatcher.pool.run)
        except BaseException as exc:
            if ends_task(exc):
                raise
            _log.exception("start_hook failed")
            raise StartHookError(
                f"start_hook failed: {type(exc).__name__}: {message_of(exc)}{hint(exc)}"
            ) from exc

    async def _stop_hook(self, dispatcher: Dispatcher) -> None:
        if self.ending is not None:
            self.ending.within(STOP_HOOK_S + LEAVE_S + CLOSE_S + GRACE_S, instead=True)
        # A task, which can be left behind: the hook need not heed that it is cancelled.
        task = asyncio.create_task(self._call_stop_hook(dispatcher))
        done, _ = await asyncio.wait([task], timeout=STOP_HOOK_S)
        if not done:
            task.cancel()
            _log.error("stop_hook did not end within %g s", STOP_HOOK_S)

    async def _call_stop_hook(self, dispatcher: Dispatcher) -> None:
        try:
            await call_hook(self._handler.stop_hook, (), dispatcher.pool.run)
        except BaseException as exc:
            if ends_task(exc):
                raise
            _log.exception("stop_hook failed")

    # What the service manager is told.

    async def _tell_status(self, link: DaemonLink, dispatcher: Dispatcher) -> None:
        # A worker that takes another's place has to be linked, as that one is.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if is_successor() else UNLINKED_S):
                await link.wait_connected()
        self._say_ready()
        said = ""
        while not self._renewal.succeeded:
            where = "answering events" if link.connected else "waiting for the pipe daemon"
            status = f"{where}, {dispatcher.in_flight} in flight, {dispatcher.handled} done"
            if status != said:
                self._notifier.status(status)
            said = status
            await asyncio.sleep(STATUS_INTERVAL_S)

    def _say_ready(self) -> None:
        if is_successor():
            self._notifier.succeed("answering events")
            take_over()
            if self._expendable is not None:
                self._expendable.keep()
        else:
            self._notifier.ready("answering events")

    async def _feed_watchdog(self) -> None:
        """In the loop: an async method that blocks it is what the watchdog is for."""
        interval_s = self._notifier.watchdog_interval
        while interval_s is not None:
            self._notifier.trigger_watchdog()
            await asyncio.sleep(interval_s)


async def _keep_own() -> None:
    """Look after what the user's code shares with RestPipe in this process."""
    while True:
        loop.keep_signals()
        fill_standard_descriptors()
        await asyncio.sleep(KEEP_S)


@contextlib.asynccontextmanager
async def _running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that live as long as the block."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=LEAVE_S)
