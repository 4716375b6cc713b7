from __future__ import annotations

import pytest

from restpipe.daemon.channel import Channel
from restpipe.daemon.router import SLACK, Limits
from restpipe.errors import Code, Delivered, Reset
from restpipe.protocol import frames
from restpipe.protocol.frames import HEADER_SIZE, MAX_BODY, MAX_HEAD
from restpipe.protocol.schema_pb2 import Event
from tests.unit.daemon.kit import (
    CANCELLED,
    MAX_WAITING,
    Bench,
    data,
    event,
    event_of,
    frame,
    numbers,
    reply,
    reset,
    resets,
    taken,
    the_reset,
    window,
)

# Waiting for a peer.


def test_an_event_waits_for_its_peer_with_all_that_follows_it() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.know("alpha")
    bench.send(sender, event(1, "alpha", b"a", timeout_s=10, end=False), data(1, b"b"), window(1))
    bench.send(sender, event(3, "alpha", timeout_s=10), data(1, b"c", end=True))
    assert taken(sender) == []
    bench.now += 4
    _, alpha = bench.join("alpha")
    received = taken(alpha)
    first = [one for one in received if one.stream == received[0].stream]
    assert [(one.kind, one.body) for one in first] == [
        (frames.EVENT, b"a"),
        (frames.DATA, b"b"),
        (frames.WINDOW, (1000).to_bytes(4, "big")),
        (frames.DATA, b"c"),
    ]
    # No clocks are compared: what is left of the deadline is told.
    assert [event_of(one).timeout_ms for one in received if one.kind == frames.EVENT] == [6000, 6000]
    assert bench.waiting == 0
    assert bench.deadlines.next_at is None


def test_an_event_that_waits_for_a_peer_in_vain_is_answered_before_its_deadline() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.know("alpha")
    bench.send(sender, event(1, "alpha", timeout_s=10), event(3, "alpha", timeout_s=1))
    assert bench.deadlines.next_at == pytest.approx(bench.now + 0.9)
    bench.pass_time(0.8)
    assert taken(sender) == []
    bench.pass_time(0.11)
    (one,) = taken(sender)
    assert one.stream == 3
    (why,) = resets([one])
    assert (why.code, why.delivered) == (Code.UNREACHABLE, Delivered.NO)
    assert "alpha" in why.detail
    bench.pass_time(9)
    assert numbers(taken(sender)) == [1]
    assert bench.waiting == 0
    assert sender.routes == {}


def test_an_event_whose_time_is_up_already_is_told_at_once() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.know("alpha")
    bench.send(sender, event(1, "alpha", timeout_s=0))
    bench.pass_time(0)
    assert the_reset(sender).code is Code.UNREACHABLE


def test_a_full_line_refuses() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.know("alpha")
    for number in range(1, 2 * MAX_WAITING, 2):
        bench.send(sender, event(number, "alpha"))
    assert taken(sender) == []
    bench.send(sender, event(99, "alpha"))
    why = the_reset(sender)
    assert (why.code, why.delivered) == (Code.OVERLOADED, Delivered.NO)
    bench.send(sender, reset(1, CANCELLED), event(101, "alpha"))
    assert taken(sender) == []
    assert bench.waiting == MAX_WAITING


def test_who_hangs_up_while_waiting_is_forgotten() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.know("alpha")
    bench.send(sender, event(1, "alpha", end=False), data(1, b"x"), reset(1, CANCELLED))
    _, alpha = bench.join("alpha")
    assert taken(alpha) == taken(sender) == []
    assert sender.routes == {}
    assert bench.deadlines.next_at is None


def test_what_is_held_while_waiting_is_bounded() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.know("alpha")
    bench.send(sender, event(1, "alpha", end=False), event(3, "alpha"))
    bench.send(sender, data(1, bytes(MAX_BODY - HEADER_SIZE)))
    assert taken(sender) == []
    for _ in range(SLACK // HEADER_SIZE + 2):
        bench.send(sender, data(1))
    why = the_reset(sender)
    assert (why.code, why.delivered) == (Code.FLOW_CONTROL, Delivered.NO)
    assert set(sender.routes) == {3}
    assert bench.waiting == 1


def test_what_all_that_waits_holds_together_is_bounded() -> None:
    """For peers that are away and for names that are looked up, with all that follows the events."""
    bench = Bench(limits=Limits(max_streams=50, backlog_bytes=100_000), max_waiting=40)
    sender = bench.sender()
    bench.know("alpha")
    bench.send(sender, event(1, "alpha", bytes(60_000), end=False), event(3, "host.example", bytes(60_000)))
    assert taken(sender) == []
    bench.send(sender, event(5, "alpha"), event(7, "other.example"))
    assert {why.code for why in resets(taken(sender))} == {Code.OVERLOADED}
    assert set(sender.routes) == {1, 3}
    # Who is here already may go on for a while.
    bench.send(sender, data(1, bytes(50_000)))
    assert taken(sender) == []
    bench.send(sender, data(3, bytes(50_000)))
    why = the_reset(sender)
    assert (why.code, why.delivered) == (Code.OVERLOADED, Delivered.NO)
    assert set(sender.routes) == {1}


def test_what_waits_no_more_holds_nothing() -> None:
    bench = Bench(max_waiting=40)
    sender, other = bench.sender(), bench.sender()
    bench.know("alpha")
    worker_less, _ = bench.join("beta")

    def wait(at: Channel, number: int, **how: float) -> None:
        bench.send(at, event(number, "alpha", bytes(1000), end=False, **how))  # type: ignore[arg-type]
        bench.send(at, data(number, bytes(500)))

    wait(sender, 1)
    wait(sender, 3)
    wait(sender, 5, timeout_s=1.0)
    wait(other, 1)
    bench.arrive(worker_less, event(1, body=bytes(1000)))
    assert bench.router.waiting_size > 7000
    bench.send(sender, reset(3, Reset(Code.CANCELLED)))
    bench.pass_time(2.0)
    bench.router.lose(other, "gone", bench.now)
    bench.worker()
    bench.join("alpha")
    assert bench.router.waiting_size == 0
    wait(sender, 7)
    bench.send(sender, event(9, "host.example"))
    bench.lookups["host.example"](frozenset(), bench.now)
    bench.router.drain()
    assert bench.waiting == 0


def test_a_peer_that_goes_is_sent_no_new_events() -> None:
    bench = Bench()
    sender = bench.sender()
    peer, alpha = bench.join("alpha")
    peer.online = False
    bench.send(sender, event(1, "alpha"))
    assert taken(alpha) == []
    assert bench.waiting == 1


def test_the_deadlines_forget_those_who_wait_no_more() -> None:
    bench = Bench(max_waiting=10**6)
    sender = bench.sender()
    bench.know("alpha")
    bench.send(sender, event(1, "alpha", timeout_s=5))
    for number in range(3, 4003, 2):
        bench.send(sender, event(number, "alpha", timeout_s=3600), reset(number, CANCELLED))
    assert len(bench.deadlines._heap) < 1000
    bench.pass_time(5)
    assert the_reset(sender).code is Code.UNREACHABLE


# Waiting for a handler worker.


def test_events_wait_for_a_worker_and_are_fed_in_order() -> None:
    bench = Bench()
    peer, alpha = bench.join("alpha")
    bench.arrive(
        peer, event(1, body=b"1", timeout_s=10, end=False), event(3, body=b"3"), data(1, b"x", end=True)
    )
    bench.now += 2
    worker = bench.worker(1)
    received = taken(worker)
    assert [one.kind for one in received] == [frames.ORIGIN, frames.EVENT, frames.DATA]
    assert (received[1].body, event_of(received[1]).timeout_ms) == (b"1", 8000)
    bench.answer(worker, reply(received[1].stream))
    received = taken(worker)
    assert received[1].body == b"3"
    bench.answer(worker, reply(received[1].stream))
    assert numbers(taken(alpha)) == [1, 3]
    assert bench.waiting == 0


def test_an_event_that_waits_for_a_worker_in_vain_is_told_so() -> None:
    bench = Bench()
    peer, alpha = bench.join("alpha")
    bench.arrive(peer, event(1, timeout_s=1))
    bench.pass_time(1)
    why = the_reset(alpha)
    assert (why.code, why.delivered) == (Code.NO_HANDLER, Delivered.NO)
    for number in range(3, 2 * MAX_WAITING + 5, 2):
        bench.arrive(peer, event(number))
    assert the_reset(alpha).code is Code.OVERLOADED


def test_an_event_of_a_peer_that_cannot_be_read_is_refused_when_it_would_wait() -> None:
    bench = Bench()
    peer, alpha = bench.join("alpha")
    bench.arrive(peer, frame(frames.EVENT, 1, b"\xff\xff"))
    assert the_reset(alpha).code is Code.BAD_MESSAGE
    assert alpha.routes == {}


@pytest.mark.parametrize("timeout_s", [0, 3600])
def test_the_largest_head_can_wait(timeout_s: int) -> None:
    bench = Bench()
    peer, _ = bench.join("alpha")
    head = Event(verb="GET", timeout_ms=timeout_s * 1000, tracestate="")
    head.target = "x" * (MAX_HEAD - head.ByteSize() - 4)
    while head.ByteSize() < MAX_HEAD:
        head.target += "x"
    bench.arrive(peer, frame(frames.EVENT, 1, head.SerializeToString()))
    worker = bench.worker()
    assert len(taken(worker)) == 2


def test_a_line_that_moves_too_slowly_refuses_at_once() -> None:
    bench = Bench(max_waiting=1000)
    worker = bench.worker(1)
    peer, channel = bench.join("alpha")
    bench.arrive(peer, *(event(number, timeout_s=30) for number in range(1, 101, 2)))
    for _ in range(20):
        bench.now += 1.0
        bench.answer(worker, reply(taken(worker)[-1].stream))
    taken(channel)
    bench.arrive(peer, event(201, timeout_s=30), event(203, timeout_s=300))
    why = the_reset(channel)
    assert (why.code, why.delivered) == (Code.OVERLOADED, Delivered.NO)
