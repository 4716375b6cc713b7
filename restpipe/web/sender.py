"""The life of one event as its origin sees it: sent, sent again where that is harmless, answered or lost."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from restpipe.errors import Code, Delivered, NotConnected, StreamReset
from restpipe.protocol.frames import MAX_BODY
from restpipe.protocol.schema_pb2 import Event, Reply
from restpipe.transport.exchange import Exchange
from restpipe.web import resend
from restpipe.web.upload import HungUp, TooLarge, Upload

_log = logging.getLogger(__name__)


class Link(Protocol):
    """What is needed of `restpipe.transport.local.DaemonLink`."""

    @property
    def connected(self) -> bool: ...
    async def wait_connected(self) -> None: ...
    def open(self, event: Event, body: bytes = b"", *, end: bool) -> Exchange: ...


class Sending:
    """Sends one event and waits for the beginning of its reply.

    It does not watch the clock: whoever runs it cancels it at `deadline` (of the loop's clock), or when the
    caller hangs up, and calls `close` in the end in any case.
    """

    def __init__(
        self,
        link: Link,
        event: Event,
        upload: Upload,
        *,
        repeatable: bool,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.exchange: Exchange | None = None
        """The latest send; its reply's body is read from here."""
        self._link = link
        self._event = event
        self._upload = upload
        self._deadline = deadline
        self._history = resend.History(repeatable)
        self._loop = loop
        self._begun = loop.time()
        self._pump: asyncio.Task[None] | None = None
        self._under_way = False
        """A send has left this worker, and nothing has been heard of it."""

    @property
    def verb(self) -> str:
        return self._event.verb

    @property
    def age_s(self) -> float:
        """Seconds since the caller's request."""
        return self._loop.time() - self._begun

    async def reply(self) -> Reply:
        """The head of the reply. `StreamReset` says what became of the event when there is none.

        Once the reply is on its way to the caller, `settle` must be called.
        """
        while True:
            try:
                reply = await self._send()
            except NotConnected:
                continue
            except StreamReset as reset:
                await self.pause_after(reset)
                continue
            return reply

    def settle(self) -> None:
        """The event will not be sent again: the caller sees its reply."""
        self._upload.forget()

    async def _send(self) -> Reply:
        if not self._link.connected:
            await self._link.wait_connected()
        start = await self._begin_upload()
        whole = self._upload.complete and len(start) <= MAX_BODY
        self._event.timeout_ms = max(1, int(self.remaining_s * 1000))
        exchange = self._link.open(self._event, start[:MAX_BODY], end=whole)
        self.exchange = exchange
        self._under_way = True
        self._history.sends += 1
        if not whole:
            self._pump = self._loop.create_task(self._pump_body(exchange, start[MAX_BODY:]))
        del start
        return await exchange.reply()

    async def _begin_upload(self) -> bytes:
        if self._upload.asked and self._upload.kept is None:
            detail = "the link to the pipe daemon broke, and the body is not at hand any more"
            raise StreamReset(Code.UNREACHABLE, detail, Delivered.NO)
        try:
            return await self._upload.begin()
        except TooLarge:
            raise StreamReset(Code.BODY_TOO_LARGE, delivered=Delivered.NO) from None
        except HungUp:
            raise StreamReset(Code.CANCELLED, delivered=Delivered.NO) from None

    async def _pump_body(self, exchange: Exchange, rest: bytes) -> None:
        """Sends what follows the start. Silent: who waits for the reply learns of a fault."""
        upload = self._upload
        try:
            if rest or upload.complete:
                await exchange.write(rest, end=upload.complete)
            del rest
            while not upload.complete:
                piece = await upload.read()
                await exchange.write(piece, end=upload.complete)
        except StreamReset as reset:
            # It is the exchange's, and would hold it and what was to be written in a cycle with itself.
            reset.__traceback__ = None
        except TooLarge:
            exchange.reset(Code.BODY_TOO_LARGE, "the body grew larger than allowed")
        except HungUp:
            exchange.reset(Code.CANCELLED, "the caller hung up while sending the body")

    async def pause_after(self, reset: StreamReset) -> None:
        """The latest send came to nothing that the caller has seen. Returns when it may be sent again by
        `reply`; else raises what the caller is to be told.
        """
        history = self._history
        self._under_way = False
        history.record(reset, link_lost=not self._link.connected)
        at_hand = self._upload.kept is not None
        pause = resend.pause_s(history, reset, body_at_hand=at_hand, remaining_s=self.remaining_s)
        if pause is None:
            raise resend.verdict(history, reset)
        _log.debug("event %s: %s; sending it again in %g s", self._event.id.hex(), reset, pause)
        await self._stop_pump()
        await asyncio.sleep(pause)

    async def _stop_pump(self) -> None:
        # Two pumps at once would steal each other's pieces of the body.
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.wait([pump])

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - self._loop.time()

    def expire(self) -> StreamReset:
        """The deadline is here: gives the event up and says what is known of it."""
        history = self._history
        exchange = self.exchange
        never_left = exchange is not None and exchange.reset(Code.DEADLINE, "the web worker's deadline")
        if self._under_way:
            detail = "the pipe daemon took nothing until the deadline"
            if not never_left:
                return StreamReset(Code.DEADLINE)
            return resend.verdict(history, StreamReset(Code.UNREACHABLE, detail, Delivered.NO))
        if not history.sends and self._upload.asked and not self._upload.complete:
            return StreamReset(Code.DEADLINE, "the request's body did not come in time", Delivered.NO)
        detail = "this web worker had no link to its pipe daemon until the deadline"
        return resend.verdict(history, StreamReset(Code.UNREACHABLE, detail, Delivered.NO))

    def close(self) -> None:
        """Over, however far it came: a reply that is not whole by now is not wanted any more."""
        # Cancelled, it holds its own frames: they must not lead back to it.
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
        self._upload.forget()
        if self.exchange is not None:
            self.exchange.reset(Code.CANCELLED, "the caller is gone")
