"""One event, from its method to the end of its reply."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import time
import types
from collections.abc import Awaitable, Iterator
from typing import TYPE_CHECKING, Any, Final

from restpipe.errors import Code, Delivered, Reset, StreamReset, message_of
from restpipe.handler import results
from restpipe.handler.api import EventError
from restpipe.handler.context import Context, EventDeadline
from restpipe.handler.faults import ends_task
from restpipe.handler.incoming import peer_of, receive_body
from restpipe.handler.post_data import NONE, decode_body, mime_type
from restpipe.handler.registry import Method, Registry, method_name
from restpipe.handler.results import Answer, Stream
from restpipe.handler.sending import send_long, send_short
from restpipe.handler.streaming import AsyncBodyReader, BodyReader, keeps_thread, pieces
from restpipe.handler.target import Target
from restpipe.host.sandbox import hint
from restpipe.host.stats import RECEIVE_HANDLE_TIME
from restpipe.protocol.schema_pb2 import Event
from restpipe.transport.exchange import Exchange

if TYPE_CHECKING:
    from restpipe.handler.dispatch import Dispatcher

LARGE_BODY = 256 * 1024
"""Bodies from this size on are decoded in a thread: JSON of that size would hold up the loop."""

HEED_S: Final = 1.0
"""Seconds in which an async method whose event was given up should have ended; it may clean up meanwhile."""

_RECEIVING: Final = 0
"""A task waits for the rest of the body."""
_QUEUED: Final = 1
"""Waits for a place among the async methods that run."""
_THREADED: Final = 2
"""A job of the thread pool."""
_SPAWNED: Final = 3
"""Has a task that has not begun."""
_RUNNING: Final = 4
"""A task runs its method, or sends its reply."""
_ENDED: Final = 5

_TOO_LATE = {
    _RECEIVING: "no more of the body came before the deadline",
    _QUEUED: "no place was free before the deadline",
    _THREADED: "no thread was free before the deadline",
    _SPAWNED: "its turn did not come before the deadline",
}
"""Why a method was not called, by the stage that its event was in."""

_log = logging.getLogger(__name__)


class Handling:
    """Answers one event. Belongs to the loop's thread, except for `work`.

    The short way needs no task: an event that came whole and asks for a plain method is a job of the thread
    pool (`work` in a thread, then `done` in the loop). Tasks are for what has to wait in the loop: `receive`
    for the rest of a body, `run` for an async method and for a reply that is long or a stream.
    """

    __slots__ = (
        "_answer",
        "_awaitable",
        "_began",
        "_body",
        "_called_at",
        "_context",
        "_dispatcher",
        "_due",
        "_exchange",
        "_held",
        "_holds_place",
        "_method",
        "_refusal",
        "_replying",
        "_stage",
        "_target",
        "_task",
        "_variables",
        "abandoned",
        "running",
    )

    def __init__(
        self, dispatcher: Dispatcher, exchange: Exchange, method: Method, target: Target, began: float
    ) -> None:
        event = exchange.event
        origin = exchange.origin
        peer = origin.peer if origin else ""
        if peer != dispatcher.peer:
            dispatcher.peer_came(peer)
        timeout_ms = event.timeout_ms
        self.running = False
        self.abandoned = False
        self._dispatcher = dispatcher
        self._exchange = exchange
        self._method = method
        self._target = target
        self._began = began
        self._due = due = EventDeadline(began + timeout_ms / 1000 if timeout_ms else float("inf"))
        self._context = Context(
            verb=event.verb,
            target=event.target,
            event_id=event.id.hex(),
            peer=peer,
            participant_address=(origin.address, origin.port) if origin else ("", 0),
            deadline=due,
            headers=_EventHeaders(event),
            query=target.query,
            traceparent=event.traceparent,
            tracestate=event.tracestate,
        )
        self._stage = _RECEIVING
        self._task: asyncio.Task[None] | None = None
        self._body: bytes | AsyncBodyReader | BodyReader = b""
        self._held = 0
        """For how much the body is held in `Bodies`."""
        self._holds_place = False
        """Counts among the async methods that run."""
        self._replying = False
        """Counts among the replies that are being sent."""
        self._called_at = 0.0
        self._answer: Answer | None = None
        self._awaitable: Awaitable[Any] | None = None
        """What a plain method returned that is not a result yet."""
        self._refusal: Reset | None = None
        """Why a thread did not call the method."""
        self._variables: contextvars.Context | None = None
        """Those of a plain method, as it left them."""

    def begin(self) -> None:
        """Do what comes first. Raises `StreamReset` if the body cannot be taken: nothing has begun then."""
        exchange, method, dispatcher = self._exchange, self._method, self._dispatcher
        receiving = False
        if method.streamed:
            self._body = (
                AsyncBodyReader(exchange, self._move_deadline)
                if method.is_async
                else BodyReader(exchange, self._move_deadline, dispatcher.loop)
            )
        elif exchange.whole:
            body = exchange.take()
            if body:
                dispatcher.bodies.check(len(body))
                self._held = dispatcher.bodies.hold(body, 0, json=self._is_json())
                self._body = body
        else:
            dispatcher.bodies.check(exchange.event.body_length)
            receiving = True
        dispatcher.handlings.add(self)
        exchange.on_reset = self._hang_up
        due = self._due
        due.late = self.reach_deadline
        if exchange.event.timeout_ms:
            dispatcher.deadlines.add(due.at, due)
        if receiving:
            self._task = dispatcher.loop.create_task(self.receive())
        else:
            self._call()

    async def receive(self) -> None:
        """Wait for the rest of the body, then have the method called."""
        exchange = self._exchange
        try:
            received = receive_body(exchange, self._dispatcher.bodies, json=self._is_json())
            self._body, self._held = await received
        except asyncio.CancelledError:
            exchange.reset(Code.OUTCOME_UNKNOWN, "the handler worker stops", Delivered.NO)
            self._end()
            raise
        except Exception as error:
            give_up(exchange, error)
            self._end()
            return
        self._move_deadline()
        if exchange.closed:
            self._end()
        else:
            self._call()

    def _call(self) -> None:
        """Have the method called, as soon as there is a place."""
        dispatcher, method = self._dispatcher, self._method
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s from %s: %s", self._context.event_id, self._context.peer, method.name)
        dispatcher.stats.tick(method.tick)
        self._called_at = time.monotonic()
        if method.is_async:
            self._stage = _QUEUED
            dispatcher.enter(self)
        else:
            self._stage = _THREADED
            dispatcher.pool.submit(self)

    def _is_json(self) -> bool:
        return results.is_json(self._exchange.event.content_type)

    def _post_data(self) -> tuple[str, Any]:
        """What the method gets. Raises `StreamReset` if the body is not what its type says."""
        event = self._exchange.event
        if isinstance(self._body, bytes):
            return decode_body(event.content_type, self._body, event.headers)
        none = event.HasField("body_length") and not event.body_length
        return "" if none else mime_type(event.content_type), self._body

    # A plain method: a job of the thread pool.

    @property
    def name(self) -> str:
        """That of the method."""
        return self._method.name

    def work(self) -> bool:
        """In a thread: decode the body, call the method, encode what it returns.

        True if that is a stream which may depend on this thread.
        """
        if time.monotonic() >= self._due.at:
            self._refusal = Reset(Code.DEADLINE, _TOO_LATE[_THREADED], Delivered.NO)
            return False
        try:
            given = self._post_data() if self._body else NONE
            self._body = b""
        except StreamReset as refused:
            self._refusal = refused.reset
            return False
        target = self._target
        self._variables = variables = contextvars.copy_context()
        try:
            result = variables.run(self._method.call, self._context, given, *target.arguments, **target.query)
            # A plain function around an async one, say. Asking takes long, and most results are documents.
            if type(result) not in results.DOCUMENTS and inspect.isawaitable(result):
                self._awaitable = result
            else:
                answer = results.answer_of(result)
                self._answer = results.of_head(answer) if self._method.of_head else answer
                return isinstance(answer[1], Stream) and keeps_thread(answer[1].source)
        except BaseException as exc:
            self._dispatcher.pool.end_child(exc)
            self._answer = self._answer_of_exception(exc)
        return False

    def done(self) -> None:
        """In the loop: send what the thread has made."""
        if self._stage == _ENDED:
            if self.abandoned:
                self._dispatcher.pool.bursts.end(self, time.monotonic())
            self._drop_result()
            return
        exchange = self._exchange
        try:
            if self._awaitable is not None:
                self._stage = _QUEUED
                self._dispatcher.enter(self)
                return
            if self._answer is not None:
                if not send_short(exchange, self._answer):
                    self.spawn()
                    return
            elif self._refusal is not None:
                exchange.reset(self._refusal.code, self._refusal.detail, self._refusal.delivered)
            else:
                exchange.reset(Code.REPLY_BROKEN, "the handler worker failed")
        except Exception as error:
            give_up(exchange, error)
            self._drop_result()
        self._end()

    def _drop_result(self) -> None:
        """Close what a thread has made of an event that was given up meanwhile."""
        if self._answer is not None and isinstance(self._answer[1], Stream):
            source, peer = self._answer[1].source, peer_of(self._exchange)
            pool, variables = self._dispatcher.pool, self._variables
            self._dispatcher.close_stream(pieces(source, pool, self, peer=peer, variables=variables))
        if inspect.iscoroutine(self._awaitable):
            self._awaitable.close()

    # What has to wait in the loop.

    def spawn(self, *, holds_place: bool = False) -> None:
        """Go on in a task (`run`)."""
        self._holds_place = holds_place
        self._stage = _SPAWNED
        loop = self._dispatcher.loop
        if self._variables is None:
            self._task = loop.create_task(self.run())
        else:
            # The task sees what the plain method has set.
            self._task = self._variables.run(loop.create_task, self.run())

    async def run(self) -> None:
        """Call an async method, or await what a plain one has returned; send the reply."""
        exchange, dispatcher = self._exchange, self._dispatcher
        try:
            if exchange.closed:
                return  # given up before this task began
            self._stage = _RUNNING
            answer = self._answer
            if answer is None:
                given = NONE
                if isinstance(self._body, bytes) and len(self._body) >= LARGE_BODY:
                    given = await dispatcher.pool.run(self._post_data)
                elif self._body:
                    given = self._post_data()
                self._body = b""
                try:
                    result: Any = self._awaitable
                    if result is None:
                        target = self._target
                        result = self._method.call(self._context, given, *target.arguments, **target.query)
                    if type(result) is types.CoroutineType or inspect.isawaitable(result):
                        result = await result
                    answer = results.answer_of(result)
                    if self._method.of_head:
                        answer = results.of_head(answer)
                except BaseException as exc:
                    if self._context.cancelled and ends_task(exc):
                        raise
                    answer = self._answer_of_exception(exc)
                if self._task is not None and self._task.cancelling() and not self._context.cancelled:
                    await _forget_cancellation(self._task)
            if not send_short(exchange, answer):
                # What was awaited had a context of its own.
                variables = None if self._awaitable is not None else self._variables
                await send_long(exchange, answer, dispatcher.pool, self._begin_reply, self, variables)
        except asyncio.CancelledError:
            exchange.reset(Code.OUTCOME_UNKNOWN, "the handler worker stops")
            if not self._context.cancelled:
                raise
        except Exception as error:
            give_up(exchange, error)
        finally:
            self._end()

    def _answer_of_exception(self, exc: BaseException) -> Answer:
        context, name, kind = self._context, self._method.name, type(exc).__name__
        said = {"peer": context.peer, "about": f"{name} {kind}"}
        event = f"[{context.peer} {context.event_id}]"
        if isinstance(exc, EventError):
            message = message_of(exc)
            code, _ = results.code_and_status(exc)
            _log.info("%s %s answers with code %s: %s", event, name, code, message, extra=said)
        elif not context.cancelled:
            _log.error("%s %s raised %s%s", event, name, kind, hint(exc), exc_info=exc, extra=said)
        return results.answer_of_exception(exc)

    # The end of it.

    def _begin_reply(self) -> None:
        """A long reply begins: it meets the deadline, and its place is free for other work."""
        self._due.waits = False
        self._replying = True
        self._dispatcher.replies.take(peer_of(self._exchange))
        self._dispatcher.watch_threads()
        self._give_back()

    def _give_back(self) -> None:
        if self._held:
            self._dispatcher.bodies.room.give_back(self._held)
            self._held = 0
        if self._holds_place:
            self._holds_place = False
            self._dispatcher.leave()

    def _hang_up(self, _: Reset) -> None:
        """The other side has given the event up, or the link is lost."""
        self._give_up()

    def _move_deadline(self) -> None:
        """Have the time count from the last piece of the body that came."""
        exchange, due = self._exchange, self._due
        due.at = max(due.at, exchange.moved_at + exchange.event.timeout_ms / 1000)

    def reach_deadline(self) -> None:
        """The reply has not begun, and it is too late for it, unless the body has moved meanwhile."""
        self._move_deadline()
        due = self._due
        if due.at > time.monotonic():
            self._dispatcher.deadlines.add(due.at, due)
            return
        stage = self._stage
        if self._give_up():
            self._exchange.reset(Code.DEADLINE, _TOO_LATE[stage], Delivered.NO)
        else:
            self._exchange.reset(Code.DEADLINE, "the handler did not answer before the deadline")

    def stop(self) -> None:
        """The worker stops, and does not wait for this event."""
        delivered = Delivered.NO if self._give_up() else Delivered.UNKNOWN
        self._exchange.reset(Code.OUTCOME_UNKNOWN, "the handler worker stops", delivered)

    def _give_up(self) -> bool:
        """End what is being done. True if the method has not been called and never will be.

        The exchange has failed, or must be reset now: a task that has not begun sees that, and so does one
        that waits for the body.
        """
        stage = self._stage
        self._context.cancel()
        self._due.waits = False
        if stage == _RUNNING:
            if self._task is not None:
                self._task.cancel()
                self._dispatcher.loop.call_later(HEED_S, self._find_stuck)
            return False
        if stage == _QUEUED:
            self._dispatcher.withdraw(self)
            self._end()
        elif stage == _THREADED:
            never_called = self._dispatcher.pool.abandon(self)
            if self.abandoned:
                # For ever, as far as can be told.
                self._dispatcher.pool.bursts.hold(self, peer_of(self._exchange), 0.0)
            self._end()
            return never_called
        return self._variables is None

    def _find_stuck(self) -> None:
        """The task was cancelled a while ago. Whatever it still does must not keep others from their work."""
        if self._stage != _ENDED and not self.abandoned:
            self.abandoned = True
            if self._dispatcher.note_deaf(self, holds_place=self._holds_place):
                self._give_back()

    def _end(self) -> None:
        dispatcher, due = self._dispatcher, self._due
        if self._stage == _SPAWNED or self._stage == _QUEUED:
            self._drop_result()
        self._stage = _ENDED
        # All that leads back here: the deadline, which its queue may keep for long, and the exchange.
        due.waits = False
        due.late = None
        self._exchange.on_reset = None
        if self._held or self._holds_place:
            self._give_back()
        if self._replying:
            dispatcher.replies.give_back(peer_of(self._exchange))
        now = time.monotonic()
        stats = dispatcher.stats
        if self._called_at:
            stats.timing(self._method.timing, now - self._called_at)
        stats.timing(RECEIVE_HANDLE_TIME, now - self._began)
        dispatcher.ended(self)
        if self.abandoned:
            dispatcher.note_ended(self)


async def _forget_cancellation(task: asyncio.Task[None]) -> None:
    """Have the running task go on where a method has cancelled it: nobody else has."""
    while task.cancelling():
        task.uncancel()
    # Before Python 3.13 it is raised all the same, at the next wait.
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


def give_up(exchange: Exchange, error: Exception) -> None:
    """Reset an exchange that is not answered because of `error`."""
    if isinstance(error, StreamReset):
        reset = error.reset
        exchange.reset(reset.code, reset.detail, reset.delivered)
        return
    event = exchange.event
    said = {"peer": peer_of(exchange)}
    _log.error("answering %s %.200s failed", event.verb, event.target, exc_info=error, extra=said)
    exchange.reset(Code.REPLY_BROKEN, "the handler worker failed")


def answer_without_method(exchange: Exchange, target: Target, registry: Registry) -> Answer:
    """Make the answer to an event that no method is there for."""
    verb = exchange.event.verb
    allowed = registry.allowed(target.noun)
    if verb == "OPTIONS" and allowed:
        return results.answer_options(allowed)
    _log.warning(
        "an event is not handled: there is no method %.200r",
        method_name(verb, target.noun),
        extra={"peer": peer_of(exchange)},
    )
    return results.answer_unhandled(verb, "/".join(target.noun), allowed)


class _EventHeaders:
    """Those of an event, read only once they are asked for; few methods do."""

    __slots__ = ("_event",)

    def __init__(self, event: Event) -> None:
        self._event = event

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for header in self._event.headers:
            yield header.name, header.value
        if self._event.content_type:
            yield "content-type", self._event.content_type
