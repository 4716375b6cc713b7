from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from restpipe.errors import Code, Delivered, NotConnected, StreamReset
from restpipe.host.limits import Budget
from restpipe.protocol.frames import FrameDecoder
from restpipe.protocol.messages import encode_reset
from restpipe.protocol.schema_pb2 import Event, Reply
from restpipe.protocol.session import Session
from restpipe.transport import exchange
from restpipe.web.app import _forget_frames
from restpipe.web.framing import NO_BODY, Framing
from restpipe.web.sender import Sending
from restpipe.web.upload import Upload


class Exchange:
    """Answers with `outcome`, or never."""

    def __init__(self, outcome: Reply | StreamReset | None) -> None:
        self.outcome = outcome
        self.closed = False
        self.resets: list[Code] = []
        self.written = b""
        self.waits = False
        """It has not left this process yet."""

    async def reply(self) -> Reply:
        if self.outcome is None:
            await asyncio.Event().wait()
        if isinstance(self.outcome, StreamReset):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome

    async def write(self, data: bytes, *, end: bool = False) -> None:
        self.written += data

    def reset(self, code: Code, detail: str = "", delivered: Delivered = Delivered.UNKNOWN) -> bool:
        self.resets.append(code)
        return self.waits


class Link:
    """Each `open` takes the next outcome."""

    def __init__(self, *outcomes: Reply | StreamReset | NotConnected | None) -> None:
        self.connected = True
        self.opened: list[tuple[bytes, bytes, bool, int]] = []
        self.exchanges: list[Exchange] = []
        self._outcomes = list(outcomes)

    async def wait_connected(self) -> None:
        if not self.connected:
            await asyncio.Event().wait()

    def open(self, event: Event, body: bytes = b"", *, end: bool) -> Any:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, NotConnected):
            raise outcome
        self.opened.append((event.id, body, end, event.timeout_ms))
        self.exchanges.append(Exchange(outcome))
        return self.exchanges[-1]


def sending(
    link: Link, *, body: bytes = b"", repeatable: bool = False, keep: int = 10**6, room: Budget | None = None
) -> Sending:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    framing = Framing(len(body), False) if body else NO_BODY
    upload = Upload(receive, framing, most=10**9, keep=keep, room=room or Budget(10**9))
    deadline = asyncio.get_running_loop().time() + 30
    return Sending(
        link,
        Event(id=b"i" * 16, verb="POST"),
        upload,
        repeatable=repeatable,
        deadline=deadline,
        loop=asyncio.get_running_loop(),
    )


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_one_frame_where_it_fits() -> None:
    async def main() -> None:
        link = Link(Reply(code=3))
        assert (await sending(link, body=b"hello").reply()).code == 3
        [(_, body, end, timeout_ms)] = link.opened
        assert (body, end) == (b"hello", True)
        assert 0 < timeout_ms <= 30_000

    run(main())


def test_a_larger_body_follows() -> None:
    async def main() -> None:
        link = Link(Reply())
        life = sending(link, body=bytes(100_000))
        await life.reply()
        [(_, body, end, _)] = link.opened
        assert (len(body), end) == (65536, False)
        await asyncio.sleep(0)
        assert len(link.exchanges[0].written) == 100_000 - 65536
        life.close()

    run(main())


def test_a_link_that_is_lost_just_now_is_waited_for() -> None:
    async def main() -> None:
        link = Link(NotConnected("gone"), Reply(code=1))
        assert (await sending(link).reply()).code == 1

    run(main())


def test_a_body_that_was_not_kept_never_goes_in_part() -> None:
    async def main() -> None:
        link = Link(NotConnected("gone"), Reply())
        with pytest.raises(StreamReset) as told:
            await sending(link, body=b"hello", keep=1).reply()
        assert (told.value.code, told.value.delivered) == (Code.UNREACHABLE, Delivered.NO)
        assert not link.opened

    run(main())


def test_the_same_event_again() -> None:
    async def main() -> None:
        drained = StreamReset(Code.DRAINING, delivered=Delivered.NO)
        link = Link(drained, Reply(code=1))
        assert (await sending(link, body=b"hello").reply()).code == 1
        assert [opened[:3] for opened in link.opened] == [(b"i" * 16, b"hello", True)] * 2

    run(main())


def test_not_again_when_it_may_have_run() -> None:
    async def main() -> None:
        link = Link(StreamReset(Code.OUTCOME_UNKNOWN))
        with pytest.raises(StreamReset) as told:
            await sending(link).reply()
        assert told.value.code == Code.OUTCOME_UNKNOWN

    run(main())


def test_an_earlier_send_that_may_have_run_is_not_forgotten() -> None:
    async def main() -> None:
        link = Link(StreamReset(Code.OUTCOME_UNKNOWN), StreamReset(Code.UNREACHABLE, delivered=Delivered.NO))
        with pytest.raises(StreamReset) as told:
            await sending(link, repeatable=True).reply()
        assert (told.value.code, told.value.delivered) == (Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN)

    run(main())


def test_an_event_that_never_left_was_not_delivered() -> None:
    async def main() -> None:
        link = Link()
        link.connected = False
        life = sending(link)
        waiting = asyncio.ensure_future(life.reply())
        await asyncio.sleep(0)
        waiting.cancel()
        told = life.expire()
        assert (told.code, told.delivered) == (Code.UNREACHABLE, Delivered.NO)

    run(main())


@pytest.mark.parametrize(
    ("earlier", "code", "delivered"),
    [
        ((), Code.UNREACHABLE, Delivered.NO),
        ((StreamReset(Code.OUTCOME_UNKNOWN),), Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN),
    ],
)
def test_an_event_that_the_daemon_never_took_was_not_delivered(
    earlier: tuple[StreamReset, ...], code: Code, delivered: Delivered
) -> None:
    async def main() -> None:
        link = Link(*earlier, None)
        life = sending(link, repeatable=True)
        waiting = asyncio.ensure_future(life.reply())
        while len(link.opened) <= len(earlier):  # noqa: ASYNC110
            await asyncio.sleep(0)
        link.exchanges[-1].waits = True
        waiting.cancel()
        told = life.expire()
        assert (told.code, told.delivered) == (code, delivered)

    run(main())


def test_an_event_that_left_may_have_run() -> None:
    async def main() -> None:
        link = Link(None)
        life = sending(link)
        waiting = asyncio.ensure_future(life.reply())
        await asyncio.sleep(0)
        waiting.cancel()
        told = life.expire()
        assert (told.code, told.delivered) == (Code.DEADLINE, Delivered.UNKNOWN)
        assert link.exchanges[0].resets == [Code.DEADLINE]

    run(main())


@pytest.mark.parametrize(
    ("earlier", "code", "delivered"),
    [
        (Delivered.NO, Code.UNREACHABLE, Delivered.NO),
        (Delivered.UNKNOWN, Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN),
    ],
)
def test_what_waits_to_be_sent_again_is_told_by_what_became_of_it(
    earlier: Delivered, code: Code, delivered: Delivered
) -> None:
    async def main() -> None:
        link = Link(StreamReset(Code.DRAINING, delivered=earlier))
        life = sending(link, repeatable=True)
        waiting = asyncio.ensure_future(life.reply())
        while not link.opened:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        link.connected = False
        waiting.cancel()
        told = life.expire()
        assert (told.code, told.delivered) == (code, delivered)

    run(main())


def test_an_announced_body_that_does_not_come() -> None:
    async def main() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        link = Link()
        upload = Upload(receive, Framing(5, False), most=10, keep=10, room=Budget(10))
        loop = asyncio.get_running_loop()
        life = Sending(link, Event(), upload, repeatable=True, deadline=loop.time() + 30, loop=loop)
        with pytest.raises(StreamReset) as told:
            await life.reply()
        assert (told.value.code, told.value.delivered) == (Code.CANCELLED, Delivered.NO)
        assert not link.opened

    run(main())


@pytest.mark.parametrize("settles", [True, False])
def test_a_body_is_kept_until_the_reply_is_settled_or_all_is_over(settles: bool) -> None:
    async def main() -> None:
        room = Budget(10)
        life = sending(Link(Reply()), body=b"hello", room=room)
        await life.reply()
        assert room.left == 5
        if settles:
            life.settle()
        else:
            life.close()
        assert room.left == 10
        life.close()
        assert room.left == 10

    run(main())


def test_the_end_cancels_what_is_under_way() -> None:
    async def main() -> None:
        link = Link(None)
        life = sending(link)
        waiting = asyncio.ensure_future(life.reply())
        await asyncio.sleep(0)
        waiting.cancel()
        life.close()
        assert link.exchanges[0].resets == [Code.CANCELLED]

    run(main())


def test_an_upload_that_is_refused_leaves_nothing_for_the_collector() -> None:
    """Many are where very much is refused, and each would hold a piece of its body until then."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        link = Link()
        opened: list[exchange.Exchange] = []

        def open_really(event: Event, body: bytes = b"", *, end: bool) -> Any:
            opened.append(
                exchange.Exchange(Session(bytes(16), 0), 1, event, loop=loop, forget=lambda _: None)
            )
            opened[-1].sent_with_opening(len(body))
            return opened[-1]

        link.open = open_really  # type: ignore[method-assign]

        async def answer() -> None:
            """As the application does."""
            life = sending(link, body=bytes(900_000))
            left.append(weakref.ref(life))
            try:
                await life.reply()
            except StreamReset as reset:
                _forget_frames(reset)
            life.close()

        left: list[weakref.ref[Any]] = []
        waiting = asyncio.create_task(answer())
        while not (opened and opened[0]._writer):  # noqa: ASYNC110
            await asyncio.sleep(0)
        reset = encode_reset(1, StreamReset(Code.OVERLOADED, "too much", Delivered.NO))
        opened[0].receive(FrameDecoder().feed(reset)[0])
        await asyncio.wait([waiting])
        left.append(weakref.ref(opened.pop()._inbox))
        del waiting
        await asyncio.sleep(0)
        assert [one() for one in left] == [None, None]

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()
