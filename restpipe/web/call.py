"""One event from its HTTP request to its reply: sent, sent again where that is harmless, answered or lost."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Coroutine
from typing import Any, Final

from restpipe.errors import Code, Delivered, NotConnected, Reset, StreamReset
from restpipe.host import stats
from restpipe.host.config import Web
from restpipe.host.limits import Budget
from restpipe.host.stats import Stats
from restpipe.http import BODILESS
from restpipe.protocol.frames import MAX_BODY
from restpipe.protocol.native import mypyc_attr
from restpipe.protocol.schema_pb2 import Event, Reply
from restpipe.transport.daemon_link import DaemonLink
from restpipe.transport.exchange import Exchange
from restpipe.transport.timer import DeadlineQueue
from restpipe.web import resend, responses
from restpipe.web.body import RequestBody
from restpipe.web.places import Places
from restpipe.web.resend import History
from restpipe.web.responding import ResponseWriter
from restpipe.web.responses import BadReply, Head

WRONG_LENGTH: Final = Reset(Code.REPLY_BROKEN, "the reply is not as long as it says", Delivered.YES)

_NO_HEAD: Final = Head(0, [])

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Outgoing:
    """What all calls of a process share."""

    web: Web
    link: DaemonLink
    statistics: Stats
    deadlines: DeadlineQueue[Call]
    """Calls `due` for each."""
    places: Places
    room: Budget
    """Bytes of all bodies that are kept to be sent again."""
    loop: asyncio.AbstractEventLoop
    debug: bool
    """Log each event."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Call:
    """One request that is being answered. Belongs to its loop.

    `exchange` sends the event and waits for the reply. Its time can end at its deadline, and when
    the caller hangs up (`hang_up`). Either resets the exchange, so that what waits wakes with an ordinary
    value: the task is not cancelled. `end` must be called in any case; it gives the request's place back.
    """

    __slots__ = (
        "_begun",
        "_body",
        "_deadline",
        "_exchange",
        "_history",
        "_in_doubt",
        "_is_unread",
        "_left",
        "_outgoing",
        "_over",
        "_pump",
        "_queued",
        "_repeatable",
        "_sends",
        "_until",
        "_wait_s",
        "_waiter",
        "_writer",
        "data",
        "event",
        "has_own_headers",
        "head",
        "hung_up",
        "is_long",
        "waits",
    )

    def __init__(
        self,
        outgoing: Outgoing,
        writer: ResponseWriter,
        body: RequestBody | None,
        event: Event,
        *,
        repeatable: bool,
        wait_s: float,
    ) -> None:
        """`repeatable`: the event may run twice. `wait_s`: for the reply to begin, and for each piece of a
        body, in either direction.
        """
        self.event = event
        self.head = _NO_HEAD
        """Status and headers of the response, once `exchange` has succeeded."""
        self.has_own_headers = False
        """The handler has given headers of its own: there may be several of one name."""
        self.data = b""
        """The body of the response, unless it is long."""
        self.is_long = False
        """The body of the response is long: iterate over the call for it."""
        self.hung_up = False
        self.waits = True
        """For the queue of deadlines: this call's still matter."""
        self._outgoing = outgoing
        self._writer = writer
        self._body = body
        self._repeatable = repeatable
        self._wait_s = wait_s
        self._begun = outgoing.loop.time()
        self._deadline = self._begun + wait_s
        """For the reply to begin, by the loop's clock. It moves with the request's body (`_move`)."""
        self._until = self._deadline
        """When the call is given up: at `_deadline`, or later while a reply makes progress."""
        self._queued = True
        """The queue of deadlines has an entry for this call, at `_until` or before."""
        self._exchange: Exchange | None = None
        """The latest attempt."""
        self._in_doubt = False
        """The latest attempt has left this worker, and nothing has been heard of it."""
        self._left: int | None = None
        """Bytes of a long body still to come, if that is known."""
        self._is_unread = False
        """A short body of which more is to come."""
        self._sends = 0
        self._history: History | None = None
        self._over: Reset | None = None
        """Why there is no reply, once that is settled."""
        self._waiter: asyncio.Task[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        if body is not None:
            web = outgoing.web
            body.limit(most=web.max_body_bytes, keep=web.keep_body_bytes, room=outgoing.room)
        outgoing.deadlines.add(self._deadline, self)

    # Sending.

    async def exchange(self) -> Reset | None:
        """Send the event until its reply is there, and return None: then `head` is the response's head, and
        `data` its body. Otherwise return why there is no reply.
        """
        while self._over is None:
            sent = self._open(b"") if self._body is None else await self._open_with_body(self._body)
            if sent is None:
                await self._wait_for(self._outgoing.link.wait_connected())
                continue
            if isinstance(sent, Reset):
                failure: Reset | None = sent
            else:
                await sent.answered()
                failure = self._read_reply(sent)
                if failure is None and self._is_unread:
                    failure = await self._read_rest(sent)
            if failure is None:
                self._in_doubt = False
                if self._body is not None:
                    self._body.forget()
                if self.is_long:
                    self._until = math.inf
                    self._outgoing.places.answered(self.event.to)
                else:
                    self.waits = False
                return None
            await self._pause_after(failure)
        return self._over

    def _open(self, start: bytes) -> Exchange | Reset | None:
        """Send the event with the start of its body. None if there is no link."""
        outgoing, body, event = self._outgoing, self._body, self.event
        if body is not None:
            self._move(body)
        whole = len(start) <= MAX_BODY and (body is None or body.complete)
        event.timeout_ms = max(1, int((self._deadline - outgoing.loop.time()) * 1000))
        try:
            exchange = outgoing.link.open(event, start if whole else start[:MAX_BODY], end=whole)
        except NotConnected:
            return None
        except StreamReset as refusal:
            return refusal.reset
        self._exchange = exchange
        self._in_doubt = True
        self._sends += 1
        if body is not None and not whole:
            self._pump = outgoing.loop.create_task(_pump(exchange, body, start[MAX_BODY:]))
        return exchange

    async def _open_with_body(self, body: RequestBody) -> Exchange | Reset | None:
        if not self._outgoing.link.connected:
            return None
        if body.asked and body.kept is None:
            detail = "the link to the pipe daemon broke, and the body is not at hand any more"
            return Reset(Code.UNREACHABLE, detail, Delivered.NO)
        start = await body.begin()
        return body.failure or self._open(start)

    async def _wait_for(self, event: Coroutine[Any, Any, None]) -> None:
        """Wait for `event`, or until the call is over."""
        waiter = self._waiter = self._outgoing.loop.create_task(event)
        try:
            await asyncio.wait((waiter,))
        finally:
            self._waiter = None
            waiter.cancel()

    async def _pause_after(self, failure: Reset) -> None:
        """Return when the event may be sent again, or at once with `_over` set."""
        self._in_doubt = False
        if self._over is not None:
            return
        history = self._note(failure)
        if self._body is not None:
            self._move(self._body)
        pause = resend.pause_s(
            history,
            failure,
            body_at_hand=self._body is None or self._body.kept is not None,
            remaining_s=self._deadline - self._outgoing.loop.time(),
        )
        if pause is None:
            self._over = resend.verdict(history, failure)
            return
        _log.debug("event %s: %s; sending it again in %g s", self.event.id.hex(), failure, pause)
        await self._stop_pump()
        if self._over is None:
            await self._wait_for(asyncio.sleep(pause))

    def _note(self, failure: Reset) -> History:
        history = self._history
        if history is None:
            history = self._history = History(self._repeatable)
        history.sends = self._sends
        history.record(failure, link_lost=not self._outgoing.link.connected)
        return history

    async def _stop_pump(self) -> None:
        # Two at once would steal each other's pieces of the body.
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.wait((pump,))

    # The reply.

    def _read_reply(self, exchange: Exchange) -> Reset | None:
        """Take the head of the reply, and the body if it is whole or long; or return why there is none."""
        reply = exchange.reply
        if reply is None:
            return exchange.failure or Reset(Code.BAD_MESSAGE, "there is no reply")
        outgoing = self._outgoing
        age_s = outgoing.loop.time() - self._begun
        outgoing.statistics.timing(stats.SEND_TIME, age_s)
        if outgoing.debug:
            _log.debug("event %s: %s after %.3f s", self.event.id.hex(), _in_short(reply), age_s)
        try:
            self.head = responses.of_reply(reply)
        except BadReply as fault:
            return Reset(Code.BAD_MESSAGE, str(fault), Delivered.YES)
        self.has_own_headers = bool(reply.headers)
        length = reply.body_length if reply.HasField("body_length") else None
        if self.event.verb == "HEAD":
            # It is not read, but its presence keeps Falcon from making up a Content-Length.
            self.is_long = True
        elif self.head.status in BODILESS:
            self.data = b""
        elif exchange.whole:
            self.data = exchange.take()
            return None if length is None or len(self.data) == length else WRONG_LENGTH
        elif exchange.closed:
            return exchange.failure
        elif length is None or length > MAX_BODY:
            self.is_long = True
            self._left = length
        else:
            self._is_unread = True
        return None

    async def _read_rest(self, exchange: Exchange) -> Reset | None:
        """Take a short body of which more is to come, so that it can be asked for again if it breaks off."""
        reply = exchange.reply
        left = reply.body_length if reply is not None else 0
        pieces: list[bytes] = []
        self._is_unread = False
        try:
            while left >= 0:
                self._until = self._outgoing.loop.time() + self._wait_s
                piece = await exchange.read()
                if not piece:
                    break
                pieces.append(piece)
                left -= len(piece)
        except StreamReset as broken:
            return broken.reset
        finally:
            self._until = self._deadline
        self.data = b"".join(pieces)
        return WRONG_LENGTH if left else None

    # The body of a long reply, as Falcon's `Response.stream`.

    def __aiter__(self) -> Call:
        """Iterate over a long body. Raises `StreamReset` if it breaks off or is not as long as it says.

        A piece is what has come meanwhile, never more than the exchange's credit, so memory stays bounded
        however slow the caller is. Each wait for a piece may take as long as the wait for the reply. The time
        that the caller takes does not count.
        """
        return self

    async def __anext__(self) -> bytes:
        exchange = self._exchange
        if exchange is None:
            raise StopAsyncIteration
        try:
            piece = exchange.take() or await self._next_piece(exchange)
            self._count(piece)
        except StreamReset as broken:
            self._tell_broken(broken.reset)
            raise
        if not piece:
            raise StopAsyncIteration
        return piece

    async def _next_piece(self, exchange: Exchange) -> bytes:
        if exchange.whole:
            return b""
        # The caller should not wait for the head until the first of the body comes.
        self._writer.flush()
        self._until = self._outgoing.loop.time() + self._wait_s
        if not self._queued:
            self._enqueue()
        try:
            return await exchange.read()
        finally:
            self._until = math.inf

    def _count(self, piece: bytes) -> None:
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0 or (not piece and self._left):
                raise StreamReset(WRONG_LENGTH)

    def _tell_broken(self, reset: Reset) -> None:
        if self.hung_up:
            _log.debug("event %s: the caller hung up", self.event.id.hex())
        else:
            _log.warning("event %s: the response broke off: %s", self.event.id.hex(), reset)

    # Ends.

    def _enqueue(self) -> None:
        self._queued = True
        self._outgoing.deadlines.add(self._until, self)

    def _move(self, body: RequestBody) -> None:
        """Have the wait count from the last that was heard of the request's body.

        A request is late when its body stands still, not while it comes; and what a caller is willing to wait
        counts from when the request has been received (RFC 7240, section 4.3).
        """
        moved_at = body.moved_at
        # Once all has been sent, what the other side grants says nothing any more.
        if self._exchange is not None and self._pump is not None and not self._pump.done():
            moved_at = max(moved_at, self._exchange.moved_at)
        self._deadline = max(self._deadline, moved_at + self._wait_s)
        self._until = max(self._until, self._deadline)

    def check_deadline(self) -> None:
        """Give the call up if its time is over. Called when an entry in the queue of deadlines is due."""
        self._queued = False
        if self._body is not None:
            self._move(self._body)
        if self._until <= self._outgoing.loop.time():
            self._expire()
        elif self._until < math.inf:
            self._enqueue()

    def _expire(self) -> None:
        exchange = self._exchange
        if exchange is None:
            self._give_up(self._overdue(never_left=False))
        elif self.is_long:
            exchange.reset(Code.DEADLINE, "it made no progress")
        elif not (self._in_doubt and exchange.closed):
            # In that case the outcome has come in this very turn of the loop, and is about to be read.
            never_left = exchange.reset(Code.DEADLINE, "the web worker's deadline")
            self._give_up(self._overdue(never_left=never_left))

    def _overdue(self, *, never_left: bool) -> Reset:
        """Return what is known of the event at its deadline."""
        body = self._body
        if self._in_doubt and not never_left:
            stopped = body is not None and not body.ended and not body.arrived
            return Reset(Code.DEADLINE, "the request's body stopped coming" if stopped else "")
        if self._in_doubt:
            detail = "the pipe daemon took nothing until the deadline"
        elif not self._sends and body is not None and body.asked and not body.complete:
            return Reset(Code.DEADLINE, "the request's body did not come in time", Delivered.NO)
        else:
            detail = "this web worker had no link to its pipe daemon until the deadline"
        reset = Reset(Code.UNREACHABLE, detail, Delivered.NO)
        return reset if self._history is None else resend.verdict(self._history, reset)

    def hang_up(self) -> None:
        """The caller is gone: give the event up."""
        self.hung_up = True
        if self._exchange is not None:
            self._exchange.reset(Code.CANCELLED, "the caller is gone")
        self._give_up(Reset(Code.CANCELLED, "the caller hung up"))

    def _give_up(self, reset: Reset) -> None:
        if self._over is None:
            self._over = reset
        if self._body is not None:
            self._body.fail(reset)
        if self._waiter is not None:
            self._waiter.cancel()

    def end(self) -> None:
        """The request is over. A reply that is not whole by now is not wanted any more."""
        self.waits = False
        self._outgoing.places.leave(self.event.to, answered=self.is_long)
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
        exchange, self._exchange = self._exchange, None
        if exchange is not None and not exchange.closed:
            exchange.reset(Code.CANCELLED, "the caller is gone")
        # An entry in the queue of deadlines may outlive the request by a while.
        self.data = b""
        self._body = None


async def _pump(exchange: Exchange, body: RequestBody, rest: bytes) -> None:
    """Send what follows the start of a body. Silent: the reader of the reply learns of a fault."""
    try:
        if rest or body.complete:
            await exchange.write(rest, end=body.complete)
            body.move()
        rest = b""
        while not body.complete and not exchange.closed:
            piece = await body.read()
            if body.failure is not None:
                exchange.reset(body.failure.code, body.failure.detail or "the body grew larger than allowed")
                return
            await exchange.write(piece, end=body.complete)
            body.move()
    except StreamReset:
        return


def _in_short(reply: Reply) -> str:
    return f"code {reply.code}, HTTP status {reply.status or 200}, {reply.content_type or 'no type'}"
