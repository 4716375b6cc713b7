"""One event on its way: from its target to its method, and from what that returns to the reply."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from restpipe.errors import Code, Delivered, StreamReset
from restpipe.handler import results
from restpipe.handler.api import EventError
from restpipe.handler.context import Context, Deadline
from restpipe.handler.faults import ends_task
from restpipe.handler.incoming import Bodies, IncomingEvent, PostData, receive_body
from restpipe.handler.registry import Method, Registry, method_name
from restpipe.handler.results import Answer
from restpipe.handler.sending import send_answer
from restpipe.handler.target import Target, parse_target
from restpipe.handler.threads import ThreadPool
from restpipe.host.stats import RECEIVE_HANDLE_TIME, Stats
from restpipe.protocol.schema_pb2 import Event

LARGE_BODY = 256 * 1024
"""Bodies from this size on are decoded in a thread: JSON of that size would hold up the loop."""

_log = logging.getLogger(__name__)


class Workplace(NamedTuple):
    """What all events of a worker share."""

    loop: asyncio.AbstractEventLoop
    registry: Registry
    pool: ThreadPool
    async_slots: AbstractAsyncContextManager[None]
    """Entered for as long as an async method is under way."""
    stats: Stats
    bodies: Bodies


class _EventHeaders:
    """Those of an event, read only once somebody asks for them; few methods do."""

    __slots__ = ("_event",)

    def __init__(self, event: Event) -> None:
        self._event = event

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for header in self._event.headers:
            yield header.name, header.value
        if self._event.content_type:
            yield "content-type", self._event.content_type


class _ToAwait(NamedTuple):
    """What a plain method returned that is not a result yet."""

    awaitable: Awaitable[Any]


class Handling:
    """Answers one event. Belongs to the loop's thread."""

    __slots__ = ("_cancelled", "_context", "_exchange", "_place", "_task", "_timer")

    def __init__(self, place: Workplace, exchange: IncomingEvent) -> None:
        self._place = place
        self._exchange = exchange
        self._context: Context | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    async def run(self) -> None:
        """Answers or resets the exchange. Raises only a cancellation that did not come with it."""
        began = time.perf_counter()
        exchange = self._exchange
        # With its loop at hand: to look for it takes a system call in older versions of Python.
        self._task = asyncio.current_task(self._place.loop)
        exchange.on_reset(self._cancel)
        try:
            await self._answer()
        except StreamReset as reset:
            exchange.reset(reset.code, reset.detail, reset.delivered)
        except asyncio.CancelledError:
            exchange.reset(Code.OUTCOME_UNKNOWN, "the handler worker stops")
            if not self._cancelled:
                raise
        except Exception:
            _log.exception("answering %s %.200s failed", exchange.event.verb, exchange.event.target)
            exchange.reset(Code.REPLY_BROKEN, "the handler worker failed")
        finally:
            self._stop_timer()
            # The callback leads from the exchange back here: without it there is no cycle to collect.
            exchange.on_reset(_ignore)
            self._task = None
            self._place.stats.timing(RECEIVE_HANDLE_TIME, time.perf_counter() - began)

    async def _answer(self) -> None:
        event = self._exchange.event
        target = parse_target(event.target)
        method = self._place.registry.find(event.verb, target.noun)
        if method is None:
            await self._send(self._answer_without_method(event.verb, target))
            return
        method.check(target.arguments, target.query)
        context = self._make_context(event, target)
        post_data = await receive_body(self._exchange, method, self._place.bodies)
        _log.debug("%s from %s: %s", context.event_id, context.peer, method.name)
        stats = self._place.stats
        stats.tick(method.tick)
        began = time.perf_counter()
        try:
            if method.is_async:
                await self._call_async(method, context, target, post_data)
            else:
                await self._call_plain(method, context, target, post_data)
        finally:
            stats.timing(method.timing, time.perf_counter() - began)
            self._place.bodies.release(post_data)

    def _answer_without_method(self, verb: str, target: Target) -> Answer:
        allowed = self._place.registry.allowed(target.noun)
        if verb == "OPTIONS" and allowed:
            return results.answer_options(allowed)
        origin = self._exchange.origin
        _log.warning(
            "an event is not handled: there is no method %.200r",
            method_name(verb, target.noun),
            extra={"peer": origin.peer if origin else ""},
        )
        return results.answer_unhandled(verb, "/".join(target.noun), allowed)

    def _make_context(self, event: Event, target: Target) -> Context:
        origin = self._exchange.origin
        context = self._context = Context(
            verb=event.verb,
            target=event.target,
            event_id=event.id.hex(),
            peer=origin.peer if origin else "",
            participant_address=(origin.address, origin.port) if origin else ("", 0),
            deadline=Deadline.after(event.timeout_ms / 1000 if event.timeout_ms else None),
            headers=_EventHeaders(event),
            query=target.query,
            traceparent=event.traceparent,
            tracestate=event.tracestate,
        )
        if event.timeout_ms:
            self._timer = self._place.loop.call_later(event.timeout_ms / 1000, self._reach_deadline)
        return context

    # The call.

    async def _call_plain(
        self, method: Method, context: Context, target: Target, post_data: PostData
    ) -> None:
        def call() -> Answer | _ToAwait:
            if context.deadline.passed:
                raise StreamReset(Code.DEADLINE, "no thread was free before the deadline", Delivered.NO)
            given = post_data.decode()
            try:
                result = method.call(context, given, *target.arguments, **target.query)
                # A plain function around an async one, say.
                return _ToAwait(result) if inspect.isawaitable(result) else results.answer_of(result)
            except BaseException as exc:
                return _answer_of_exception(exc, method, context)

        answer = await self._place.pool.run(call)
        if isinstance(answer, _ToAwait):
            answer = await self._call_in_loop(method, context, functools.partial(_itself, answer.awaitable))
        await self._send(answer)

    async def _call_async(
        self, method: Method, context: Context, target: Target, post_data: PostData
    ) -> None:
        async with self._place.async_slots:
            if post_data.size < LARGE_BODY:
                given = post_data.decode()
            else:
                given = await self._place.pool.run(post_data.decode)
            call = functools.partial(method.call, context, given, *target.arguments, **target.query)
            await self._send(await self._call_in_loop(method, context, call))

    async def _call_in_loop(self, method: Method, context: Context, call: Callable[[], Any]) -> Answer:
        try:
            result = call()
            if inspect.isawaitable(result):
                result = await result
            return results.answer_of(result)
        except BaseException as exc:
            if ends_task(exc):
                raise
            return _answer_of_exception(exc, method, context)

    async def _send(self, answer: Answer) -> None:
        await send_answer(self._exchange, answer, self._place.pool, self._stop_timer)

    # The end of it.

    def _cancel(self, _: StreamReset | None = None) -> None:
        """Nobody waits for the answer any more."""
        self._cancelled = True
        if self._context is not None:
            self._context.cancel()
        if self._task is not None:
            self._task.cancel()

    def _reach_deadline(self) -> None:
        self._exchange.reset(Code.DEADLINE, "the handler did not answer before the deadline")
        self._cancel()

    def _stop_timer(self) -> None:
        """The deadline is for the beginning of the reply."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _answer_of_exception(exc: BaseException, method: Method, context: Context) -> Answer:
    if isinstance(exc, EventError):
        context.logger.info("%s answers with code %d: %s", method.name, exc.code, exc)
    elif not context.cancelled:
        context.logger.error("%s raised %s", method.name, type(exc).__name__, exc_info=exc)
    return results.answer_of_exception(exc)


def _itself(value: Any) -> Any:
    return value


def _ignore(_: StreamReset) -> None:
    pass
