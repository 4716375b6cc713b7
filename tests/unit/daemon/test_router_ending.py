from __future__ import annotations

import pytest

from restpipe.daemon.router import FULL, MAX_REFUSALS, SLACK, Limits
from restpipe.errors import Code, Delivered, ProtocolError, Reset
from restpipe.protocol import frames
from restpipe.protocol.frames import HEADER_SIZE, MAX_BODY, Frame
from restpipe.protocol.streams import MAX_CREDIT
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
    window,
)

# Bounds.


def test_too_many_streams_of_one_sender_are_refused() -> None:
    bench = Bench(limits=Limits(3, 10**6))
    sender, other = bench.sender(), bench.sender()
    for name in ("alpha", "beta"):
        bench.join(name)
    bench.send(sender, event(1, "alpha"), event(3, "alpha"), event(5, "beta"), event(7, "beta"))
    why = the_reset(sender)
    assert (why.code, why.delivered) == (Code.OVERLOADED, Delivered.NO)
    assert set(sender.routes) == {1, 3, 5}
    bench.send(other, event(1, "alpha"), event(3, "alpha"))
    assert the_reset(other).code is Code.OVERLOADED
    assert set(other.routes) == {1}


def test_a_backlog_to_one_peer_refuses_events_to_it_alone() -> None:
    bench = Bench(limits=Limits(50, 1000))
    sender = bench.sender()
    _, alpha = bench.join("alpha")
    bench.join("beta")
    bench.send(sender, event(1, "alpha", bytes(2000)), event(3, "alpha"), event(5, "beta"))
    why = the_reset(sender)
    assert (why.code, why.delivered) == (Code.OVERLOADED, Delivered.NO)
    taken(alpha)
    bench.send(sender, event(7, "alpha"))
    assert taken(sender) == []


def test_a_peer_that_reads_nothing_is_protected_from_one_that_sends_too_much() -> None:
    bench = Bench()
    sender = bench.sender()
    _, alpha = bench.join("alpha")
    bench.send(sender, event(1, "alpha", end=False), event(3, "alpha"))
    for _ in range((MAX_CREDIT + SLACK) // MAX_BODY + 1):
        bench.send(sender, data(1, bytes(MAX_BODY)))
    why = the_reset(sender)
    assert (why.code, why.delivered) == (Code.FLOW_CONTROL, Delivered.UNKNOWN)
    # The event had not left: the peer need not hear of it at all.
    (only,) = taken(alpha)
    assert only.kind == frames.EVENT
    assert set(sender.routes) == {3}
    assert len(alpha.routes) == 1


def test_what_waits_for_a_peer_that_does_not_read_is_bounded_over_all_streams() -> None:
    bench = Bench(limits=Limits(100, MAX_CREDIT))
    sender = bench.sender()
    _, alpha = bench.join("alpha")
    bench.send(sender, *(event(number, "alpha", end=False) for number in range(1, 17, 2)))
    taken(alpha)
    for number in range(1, 17, 2):
        for _ in range(8):
            bench.send(sender, data(number, bytes(MAX_BODY)))
        assert alpha.session.queue.size <= FULL * MAX_CREDIT
    told = resets(taken(sender))
    assert {why.code for why in told} == {Code.OVERLOADED}
    # What is left is whole, and goes on.
    assert len(sender.routes) == len(alpha.routes) == 8 - len(told) > 0


def test_a_neighbour_that_opens_far_too_much_and_reads_nothing_is_cut_off() -> None:
    bench = Bench(limits=Limits(1, 10**7))
    bench.join("alpha")
    sender = bench.sender()
    with pytest.raises(ProtocolError) as caught:
        for number in range(1, 10 * MAX_REFUSALS, 2):
            bench.send(sender, event(number, "alpha", end=False))
    assert caught.value.code is Code.FLOW_CONTROL
    assert sender.session.queue.resets == MAX_REFUSALS + 2


def test_a_violation_resets_both_sides_of_its_stream_alone() -> None:
    bench = Bench()
    sender = bench.sender()
    peer, alpha = bench.join("alpha")
    bench.send(sender, event(1, "alpha"), event(3, "alpha"))
    one, other = taken(alpha)
    for _ in range((MAX_CREDIT + SLACK) // MAX_BODY + 2):
        bench.arrive(peer, data(one.stream, bytes(MAX_BODY)))
    assert the_reset(alpha).code is Code.FLOW_CONTROL
    assert the_reset(sender).code is Code.FLOW_CONTROL
    bench.arrive(peer, reply(other.stream))
    assert numbers(taken(sender)) == [3]


def test_all_that_credit_allows_passes() -> None:
    bench = Bench()
    sender = bench.sender()
    peer, alpha = bench.join("alpha")
    bench.send(sender, event(1, "alpha"))
    (opened,) = taken(alpha)
    bench.arrive(peer, reply(opened.stream, bytes(MAX_BODY), end=False))
    left = MAX_CREDIT - MAX_BODY
    while left > HEADER_SIZE:
        size = min(MAX_BODY, left) - HEADER_SIZE
        bench.arrive(peer, data(opened.stream, bytes(size)))
        left -= size + HEADER_SIZE
    assert resets(taken(sender)) == []


# Cancelling.


def test_a_hang_up_reaches_the_handler_and_overtakes_the_body() -> None:
    bench = Bench()
    worker = bench.worker()
    peer, alpha = bench.join("alpha")
    bench.arrive(peer, event(1, end=False))
    number = taken(worker)[0].stream
    bench.arrive(peer, data(1, b"x"), data(1, b"y"), reset(1, CANCELLED), data(1, b"late"))
    (only,) = taken(worker)
    assert (only.kind, only.stream) == (frames.RESET, number)
    assert resets([only])[0].code is Code.CANCELLED
    assert taken(alpha) == []
    assert alpha.routes == worker.routes == {}


def test_an_event_that_has_not_left_is_taken_back_in_silence() -> None:
    bench = Bench()
    sender, worker = bench.sender(), bench.worker()
    peer, alpha = bench.join("alpha")
    bench.send(sender, event(1, "alpha", end=False), data(1, b"x"), reset(1, CANCELLED))
    bench.arrive(peer, event(1), reset(1, CANCELLED))
    assert taken(alpha) == taken(worker) == taken(sender) == []


def test_an_answerer_that_resets_tells_the_opener_why() -> None:
    bench = Bench()
    worker = bench.worker()
    peer, alpha = bench.join("alpha")
    bench.arrive(peer, event(1))
    number = taken(worker)[0].stream
    bench.answer(worker, reset(number, Reset(Code.BODY_TOO_LARGE, "too much", Delivered.YES)))
    why = the_reset(alpha)
    assert (why.code, why.detail, why.delivered) == (Code.BODY_TOO_LARGE, "too much", Delivered.YES)
    assert alpha.routes == worker.routes == {}


def test_the_end_of_the_request_is_not_the_end_of_the_stream() -> None:
    bench = Bench()
    sender = bench.sender()
    peer, alpha = bench.join("alpha")
    bench.send(sender, event(1, "alpha", end=False), data(1, end=True))
    number = taken(alpha)[0].stream
    bench.send(sender, window(1))
    assert [one.kind for one in taken(alpha)] == [frames.WINDOW]
    bench.arrive(peer, reply(number, end=False), data(number, b"x"))
    # A credit with the flag set, however odd, ends nothing.
    bench.arrive(peer, Frame(frames.WINDOW, 1, 0, number, bytes(4)), data(number, b"y", end=True))
    assert [one.kind for one in taken(sender)] == [frames.REPLY, frames.DATA, frames.WINDOW, frames.DATA]
    assert sender.routes == {}


# Losing.


def test_a_lost_sender_cancels_its_events_wherever_they_are() -> None:
    bench = Bench()
    sender = bench.sender()
    _, alpha = bench.join("alpha")
    bench.know("beta")
    bench.send(sender, event(1, "alpha"))
    number = taken(alpha)[0].stream
    bench.send(sender, event(3, "beta"), event(5, "nobody.example"), event(7, "alpha"))
    bench.router.lose(sender, "the worker died", bench.now)
    (only,) = taken(alpha)
    assert only.stream == number
    assert resets([only])[0].code is Code.CANCELLED
    assert alpha.routes == sender.routes == {}
    assert bench.waiting == 0
    assert bench.deadlines.next_at is None


def test_a_lost_worker_tells_what_can_have_run() -> None:
    bench = Bench()
    worker = bench.worker(2)
    peer, alpha = bench.join("alpha")
    bench.arrive(peer, event(1))
    taken(worker)
    bench.arrive(peer, event(3), event(5))
    bench.lose_worker(worker)
    told = {one.stream: resets([one])[0] for one in taken(alpha)}
    assert (told[1].code, told[1].delivered) == (Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN)
    assert (told[3].code, told[3].delivered) == (Code.DRAINING, Delivered.NO)
    # The fifth waits for another worker as if nothing had happened.
    assert set(alpha.routes) == {5}
    other = bench.worker()
    assert len(taken(other)) == 2


def test_a_lost_worker_breaks_a_reply_that_has_begun() -> None:
    bench = Bench()
    worker = bench.worker()
    peer, alpha = bench.join("alpha")
    bench.arrive(peer, event(1))
    number = taken(worker)[0].stream
    bench.answer(worker, reply(number, b"half", end=False))
    taken(alpha)
    bench.lose_worker(worker)
    assert the_reset(alpha).code is Code.OUTCOME_UNKNOWN


def test_a_lost_peer_is_told_to_both_directions() -> None:
    bench = Bench()
    sender, worker = bench.sender(), bench.worker(1)
    peer, alpha = bench.join("alpha")
    bench.send(sender, event(1, "alpha"))
    taken(alpha)
    bench.send(sender, event(3, "alpha"))
    bench.arrive(peer, event(1))
    number = taken(worker)[0].stream
    bench.arrive(peer, event(3), event(5))
    bench.lose_peer(peer)
    told = {one.stream: resets([one])[0] for one in taken(sender)}
    assert (told[1].code, told[1].delivered) == (Code.OUTCOME_UNKNOWN, Delivered.UNKNOWN)
    assert (told[3].code, told[3].delivered) == (Code.DRAINING, Delivered.NO)
    (only,) = taken(worker)
    assert (only.stream, resets([only])[0].code) == (number, Code.CANCELLED)
    assert sender.routes == worker.routes == alpha.routes == {}
    assert bench.waiting == 0


def test_events_waiting_for_a_peer_survive_the_loss_of_its_session() -> None:
    bench = Bench()
    sender = bench.sender()
    peer, _ = bench.join("alpha")
    peer.online = False
    bench.send(sender, event(1, "alpha"))
    bench.lose_peer(peer)
    assert taken(sender) == []
    _, alpha = bench.join("alpha")
    assert len(taken(alpha)) == 1


# Stopping.


def test_a_daemon_that_stops_hands_back_what_waits_and_finishes_the_rest() -> None:
    bench = Bench()
    sender, worker = bench.sender(), bench.worker(1)
    peer, channel = bench.join("alpha")
    bench.know("absent")
    bench.send(sender, event(1, "alpha"), event(3, "absent"))
    bench.arrive(peer, event(11), event(13))
    (opened, _) = taken(channel), taken(worker)
    bench.router.drain()
    for neighbour, stream in ((sender, 3), (channel, 13)):
        (told,) = taken(neighbour)
        assert told.stream == stream
        (why,) = resets([told])
        assert (why.code, why.delivered) == (Code.DRAINING, Delivered.NO)
    bench.arrive(peer, reply(opened[0].stream, b"still in time"))
    assert taken(sender)[0].body == b"still in time"


def test_a_daemon_that_stops_takes_nothing_new_from_either_side() -> None:
    bench = Bench()
    sender, worker = bench.sender(), bench.worker(1)
    peer, channel = bench.join("alpha")
    bench.router.drain()
    bench.send(sender, event(1, "alpha"))
    bench.arrive(peer, event(11))
    assert taken(worker) == []
    for neighbour in (sender, channel):
        why = the_reset(neighbour)
        assert (why.code, why.delivered) == (Code.DRAINING, Delivered.NO)
