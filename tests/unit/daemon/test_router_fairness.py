"""What one peer does, the others do not feel: places, queues and memory are shared."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from restpipe.daemon.router import FULL, MAX_REFUSALS, Limits
from restpipe.errors import Code, Delivered, Reset
from restpipe.protocol import frames
from restpipe.protocol.frames import MAX_BODY
from restpipe.protocol.messages import MAX_REPLIES
from tests.unit.daemon.kit import (
    CANCELLED,
    Bench,
    data,
    event,
    numbers,
    reply,
    reset,
    resets,
    taken,
    the_reset,
)

ROOMY = Limits(max_streams=4096, backlog_bytes=64 << 20)


def opened(received: list[frames.Frame]) -> list[int]:
    return [one.stream for one in received if one.kind == frames.EVENT]


def odd(count: int, start: int = 1) -> range:
    return range(start, start + 2 * count, 2)


# Places are held by work.


def test_a_reply_that_has_begun_keeps_no_place() -> None:
    bench = Bench(max_waiting=100)
    worker = bench.worker(2)
    peer, alpha = bench.join("alpha")
    bench.arrive(peer, *(event(number) for number in odd(5)))
    first, second = opened(taken(worker))
    assert (worker.places, worker.replies) == (2, 0)
    bench.answer(worker, reply(first, b"much", end=False))
    assert (worker.places, worker.replies) == (2, 1)
    assert len(opened(taken(worker))) == 1
    # More of it changes nothing; its end gives back no place.
    bench.answer(worker, data(first, b"more"), data(first, b"the end", end=True))
    assert (worker.places, worker.replies) == (2, 0)
    assert taken(worker) == []
    bench.answer(worker, reply(second))
    assert len(opened(taken(worker))) == 1
    assert [one.body for one in taken(alpha) if one.stream == 1] == [b"much", b"more", b"the end"]


def test_downloads_that_are_not_read_leave_places_for_others() -> None:
    """One peer's link is down, or its callers do not read: 33 of its replies wait, and the workers do not."""
    bench = Bench(limits=ROOMY)
    worker = bench.worker(32)
    slow, _ = bench.join("slow")
    other, beta = bench.join("other", "10.0.0.2")
    for number in odd(33):
        bench.arrive(slow, event(number))
        bench.answer(worker, *(reply(stream, bytes(60_000), end=False) for stream in opened(taken(worker))))
    assert (worker.places, worker.replies) == (0, 33)
    bench.arrive(other, event(1))
    (stream,) = opened(taken(worker))
    bench.answer(worker, reply(stream, b"at once"))
    assert [one.body for one in taken(beta)] == [b"at once"]


def test_work_that_does_not_end_leaves_places_for_others() -> None:
    bench = Bench(limits=ROOMY, max_waiting=100)
    worker = bench.worker(32)
    greedy, _ = bench.join("greedy")
    other, _ = bench.join("other", "10.0.0.2")
    bench.arrive(greedy, *(event(number) for number in odd(50)))
    assert (len(opened(taken(worker))), bench.waiting) == (28, 22)
    bench.arrive(other, event(1))
    assert len(opened(taken(worker))) == 1


def test_a_peer_that_is_alone_uses_all_places() -> None:
    bench = Bench(limits=ROOMY, max_waiting=100)
    worker = bench.worker(32)
    peer, _ = bench.join("alpha")
    bench.arrive(peer, *(event(number) for number in odd(50)))
    assert len(opened(taken(worker))) == 32


def test_a_peer_that_becomes_alone_uses_all_places_from_then_on() -> None:
    bench = Bench(limits=ROOMY, max_waiting=100)
    worker = bench.worker(32)
    peer, _ = bench.join("alpha")
    other, _ = bench.join("other", "10.0.0.2")
    bench.arrive(peer, *(event(number) for number in odd(50)))
    assert len(opened(taken(worker))) == 28
    bench.lose_peer(other)
    assert len(opened(taken(worker))) == 4


def test_uploads_that_stand_still_leave_places_even_by_a_peer_that_is_alone() -> None:
    """Nothing ends them, and another peer may connect."""
    bench = Bench(limits=ROOMY, max_waiting=100)
    worker = bench.worker(32)
    stuck, _ = bench.join("stuck")
    bench.arrive(stuck, *(event(number, end=False) for number in odd(50)))
    assert len(opened(taken(worker))) == 28
    other, _ = bench.join("other", "10.0.0.2")
    bench.arrive(other, event(1))
    assert len(opened(taken(worker))) == 1
    # An upload that comes to its end in the queue is as good as any event.
    bench.lose_peer(other)
    bench.arrive(stuck, data(1 + 2 * 28, end=True))
    bench.router.feed_workers(bench.now)
    assert len(opened(taken(worker))) == 1


def test_a_place_is_given_back_however_its_event_ends() -> None:
    bench = Bench(limits=ROOMY)
    worker = bench.worker(10)
    peer, alpha = bench.join("alpha")
    for how in ("whole", "reset by the worker", "hung up", "broken off"):
        number = alpha.session.received = 2 * alpha.session.received + 1
        bench.arrive(peer, event(number, end=False))
        (stream,) = opened(taken(worker))
        assert (worker.places, alpha.places) == (1, 1)
        match how:
            case "whole":
                bench.answer(worker, reply(stream))
            case "reset by the worker":
                bench.answer(worker, reset(stream, Reset(Code.BODY_TOO_LARGE)))
            case "hung up":
                bench.arrive(peer, reset(number, CANCELLED))
            case "broken off":
                bench.arrive(peer, *(data(number, bytes(MAX_BODY)) for _ in range(20)))
        assert (worker.places, alpha.places, worker.routes) == (0, 0, {})
    bench.arrive(peer, event(1001), event(1003))
    (stream, _) = opened(taken(worker))
    bench.answer(worker, reply(stream, end=False))
    assert (alpha.places, alpha.replies) == (1, 1)
    bench.lose_worker(worker)
    assert (alpha.places, alpha.replies) == (0, 0)


@pytest.mark.parametrize("capacity", [32, 1024])
def test_replies_to_one_peer_are_not_all_that_a_worker_can_have(capacity: int) -> None:
    """Not even to one that was alone when it asked for them."""
    bench = Bench(limits=ROOMY, max_waiting=4000)
    worker = bench.worker(capacity)
    slow, alpha = bench.join("slow")
    for number in odd(capacity + MAX_REPLIES + 50):
        bench.arrive(slow, event(number))
        bench.answer(worker, *(reply(stream, end=False) for stream in opened(taken(worker))))
    most = capacity + MAX_REPLIES
    assert 0.85 * most < worker.replies == alpha.replies < 0.9 * most
    other, _ = bench.join("other", "10.0.0.2")
    bench.arrive(other, event(1))
    (stream,) = opened(taken(worker))
    assert (worker.places, worker.routes[stream].opener) == (1, other.channel)
    # When some of them end, what waits goes on.
    waiting = bench.waiting
    begun = [number for number, route in worker.routes.items() if route.opener is alpha]
    bench.answer(worker, *(data(number, end=True) for number in begun[:10]))
    assert waiting - 10 <= bench.waiting < waiting


# The queue for a handler is shared.


def test_peers_are_served_by_turns() -> None:
    bench = Bench(limits=ROOMY, max_waiting=1000)
    greedy, _ = bench.join("greedy")
    other, _ = bench.join("other", "10.0.0.2")
    bench.arrive(greedy, *(event(number) for number in odd(100)))
    bench.arrive(other, event(1), event(3))
    worker = bench.worker(1)
    served = []
    for _ in range(6):
        (stream,) = opened(taken(worker))
        served.append(worker.routes[stream].opener)
        bench.answer(worker, reply(stream))
    assert [one is other.channel for one in served] == [False, True, False, True, False, False]


def test_a_flood_of_one_peer_leaves_the_queue_to_others() -> None:
    bench = Bench(limits=ROOMY, max_waiting=100)
    greedy, flooding = bench.join("greedy")
    other, beta = bench.join("other", "10.0.0.2")
    bench.arrive(greedy, *(event(number) for number in odd(300)))
    assert {why.code for why in resets(taken(flooding))} == {Code.OVERLOADED}
    assert bench.waiting == 100
    bench.arrive(other, *(event(number) for number in odd(80)))
    # Half of the queue is its own; what makes room is the newest of the other, which is told so.
    told = taken(flooding)
    assert numbers(told) == list(odd(100))[:49:-1]
    assert {(why.code, why.delivered) for why in resets(told)} == {(Code.OVERLOADED, Delivered.NO)}
    assert len(resets(taken(beta))) == 30
    assert bench.waiting == 100
    worker = bench.worker(100)
    assert len(opened(taken(worker))) == 94


def test_a_flood_of_one_peer_is_no_reason_to_refuse_another() -> None:
    """The queue is long, and slow, but not for one that comes to its turn at once."""
    bench = Bench(limits=ROOMY, max_waiting=1000)
    worker = bench.worker(1)
    greedy, flooding = bench.join("greedy")
    other, beta = bench.join("other", "10.0.0.2")
    bench.arrive(greedy, *(event(number, timeout_s=1000) for number in odd(500)))
    for _ in range(20):
        bench.now += 1.0
        bench.answer(worker, reply(opened(taken(worker))[-1]))
    taken(flooding)
    bench.arrive(greedy, event(2001, timeout_s=30))
    assert the_reset(flooding).code is Code.OVERLOADED
    bench.arrive(other, event(1, timeout_s=30))
    assert taken(beta) == []
    for _ in range(3):
        bench.answer(worker, reply(opened(taken(worker))[-1]))
    assert [one.stream for one in taken(beta)] == [1]


def test_web_workers_share_what_waits_for_a_peer() -> None:
    bench = Bench(limits=ROOMY, max_waiting=10)
    one, other = bench.sender(), bench.sender()
    bench.know("alpha")
    bench.send(one, *(event(number, "alpha") for number in odd(10)))
    assert taken(one) == []
    bench.send(other, event(1, "alpha"))
    assert taken(other) == []
    (told,) = taken(one)
    assert told.stream == 19


# Memory.


def test_refusals_are_bounded_and_make_no_routes() -> None:
    bench = Bench(limits=ROOMY)
    peer, alpha = bench.join("alpha")
    bench.router.drain()
    bench.arrive(peer, *(event(number) for number in odd(1000)))
    assert alpha.routes == {}
    assert alpha.session.queue.resets == 1000
    # Its link stops reading long before this.
    assert MAX_REFUSALS < 10_000


def test_a_peer_that_reads_nothing_pins_no_more_than_twice_its_backlog() -> None:
    """Whole replies, which end their streams: no number of streams bounds them."""
    backlog = 1 << 20
    bench = Bench(limits=Limits(4096, backlog))
    worker = bench.worker(100)
    peer, alpha = bench.join("alpha")
    for number in odd(500):
        bench.arrive(peer, event(number))
        bench.answer(worker, *(reply(stream, bytes(60_000)) for stream in opened(taken(worker))))
        queue = alpha.session.queue
        assert queue.size - queue.resets * 1000 <= FULL * backlog
    told = taken(alpha)
    assert sum(one.kind == frames.REPLY for one in told) > 30
    assert {why.code for why in resets(told)} == {Code.OVERLOADED}
    assert alpha.routes == worker.routes == {}
    # It reads: all is well again.
    bench.arrive(peer, event(9001))
    (stream,) = opened(taken(worker))
    bench.answer(worker, reply(stream))
    assert [one.kind for one in taken(alpha)] == [frames.REPLY]


def test_no_new_event_is_taken_from_a_neighbour_for_which_too_much_waits() -> None:
    backlog = 1 << 20
    bench = Bench(limits=Limits(4096, backlog))
    worker = bench.worker(100)
    peer, alpha = bench.join("alpha")
    bench.arrive(peer, *(event(number) for number in odd(2)))
    one, other = opened(taken(worker))
    bench.answer(worker, reply(one, bytes(MAX_BODY), end=False))
    while alpha.session.queue.size <= FULL * backlog - MAX_BODY:
        alpha.session.send(99, bytes(MAX_BODY // 2))
    alpha.session.send(99, bytes(MAX_BODY))
    bench.arrive(peer, event(101))
    assert 101 not in alpha.routes
    assert taken(worker) == []
    bench.answer(worker, data(other, b"late"))
    assert worker.routes.keys() == {one}


def test_the_bytes_of_what_waits_are_shared_too() -> None:
    bench = Bench(limits=Limits(4096, 1_000_000), max_waiting=4096)
    greedy, flooding = bench.join("greedy")
    other, beta = bench.join("other", "10.0.0.2")
    bench.arrive(greedy, *(event(number, body=bytes(20_000)) for number in odd(100)))
    assert {why.code for why in resets(taken(flooding))} == {Code.OVERLOADED}
    assert 800_000 < bench.router.waiting_size < 920_000
    bench.arrive(other, event(1, body=bytes(20_000)))
    assert taken(beta) == []
    bench.lose_peer(greedy)
    assert bench.router.waiting_size == beta.waiting_size > 20_000


@pytest.mark.parametrize("held", [0, 20])
def test_what_waits_costs_no_more_memory_than_is_counted(held: int) -> None:
    bench = Bench(limits=ROOMY, max_waiting=4096)
    peer, _ = bench.join("alpha")
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in odd(2000):
            bench.arrive(peer, event(number, body=bytes(100), end=False))
            bench.arrive(peer, *(data(number) for _ in range(held)))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert bench.waiting == 2000
    assert (after - before) < bench.router.waiting_size < 8 * (after - before)


def test_too_many_names_at_once_are_no_unknown_clients() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.send(sender, event(1, "host.example"))
    bench.lookups["host.example"](Reset(Code.OVERLOADED, "too many names are being looked up"), bench.now)
    why = the_reset(sender)
    assert (why.code, why.delivered) == (Code.OVERLOADED, Delivered.NO)
    assert sender.routes == {}


def test_nothing_is_displaced_for_an_event_that_finds_no_memory() -> None:
    bench = Bench(max_waiting=19, limits=Limits(max_streams=4096, backlog_bytes=262_144))
    heavy, many = bench.join("heavy")[0], bench.join("many")[0]
    bench.arrive(heavy, *(event(number, body=bytes(50_000)) for number in odd(4)))
    bench.arrive(many, *(event(number) for number in odd(60)))
    assert many.channel is not None
    waiting = len(many.channel.routes)
    bench.arrive(heavy, *(event(number, body=bytes(50_000)) for number in odd(60, 101)))
    assert len(many.channel.routes) == waiting
