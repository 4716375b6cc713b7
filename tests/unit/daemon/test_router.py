from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from restpipe.daemon.channel import Channel
from restpipe.daemon.peers import Peer
from restpipe.daemon.pool import Worker
from restpipe.daemon.router import DEAF, FULL, SLACK, Limits
from restpipe.errors import Code, Delivered, ProtocolError, StreamReset
from restpipe.protocol.frames import HEADER_SIZE, MAX_BODY, MAX_HEAD, Frame, Kind
from restpipe.protocol.schema_pb2 import Event, Origin
from restpipe.protocol.streams import MAX_CREDIT
from tests.unit.daemon.kit import (
    MAX_WAITING,
    Bench,
    data,
    event,
    event_of,
    frame,
    origin_of,
    reply,
    reset,
    resets,
    taken,
    the_reset,
    window,
)

CANCELLED = StreamReset(Code.CANCELLED, "hung up")


def numbers(received: list[Frame]) -> list[int]:
    return [one.stream for one in received]


# From a sender to a peer.


def test_an_event_goes_to_the_peer_it_names_and_its_reply_comes_back() -> None:
    bench, sender = Bench(), Bench().sender()
    _, alpha = bench.join("alpha")
    _, beta = bench.join("beta")
    bench.send(sender, event(7, "beta", b"abc", end=False), data(7, b"def", end=True))
    assert taken(alpha) == []
    opened, more = taken(beta)
    assert (opened.kind, opened.body, more.kind, more.body, more.ends) == (
        Kind.EVENT,
        b"abc",
        Kind.DATA,
        b"def",
        True,
    )
    assert opened.stream == more.stream
    assert opened.stream % 2 == 0
    assert event_of(opened).to == "beta"

    bench.arrive(bench.peers.get("beta") or Peer("", 0), window(opened.stream), reply(opened.stream, b"ok"))
    back = taken(sender)
    assert [(one.kind, one.stream, one.body) for one in back] == [
        (Kind.WINDOW, 7, (1000).to_bytes(4, "big")),
        (Kind.REPLY, 7, b"ok"),
    ]
    assert sender.routes == beta.routes == {}


def test_on_a_client_every_event_is_for_the_server() -> None:
    bench = Bench(client=True)
    sender = bench.sender()
    _, server = bench.join()
    bench.send(sender, event(1), event(3, "whoever"))
    assert len(taken(server)) == 2


def test_events_to_one_peer_have_numbers_of_their_own() -> None:
    bench = Bench()
    one, other = bench.sender(), bench.sender()
    peer, channel = bench.join("alpha")
    bench.send(one, event(1, "alpha"))
    bench.send(other, event(1, "alpha"))
    first, second = taken(channel)
    assert first.stream != second.stream
    bench.arrive(peer, reply(second.stream, b"second"), reply(first.stream, b"first"))
    assert taken(one)[0].body == b"first"
    assert taken(other)[0].body == b"second"


def test_without_an_addressee_it_is_a_bad_request() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.send(sender, event(1))
    why = the_reset(sender)
    assert (why.code, why.delivered) == (Code.BAD_REQUEST, Delivered.NO)
    assert bench.deadlines.next_at is None


def test_an_event_that_cannot_be_read_is_refused_alone() -> None:
    bench = Bench()
    sender = bench.sender()
    _, channel = bench.join("alpha")
    bench.send(sender, frame(Kind.EVENT, 1, b"\xff\xff"), event(3, "alpha"))
    assert the_reset(sender).code is Code.BAD_MESSAGE
    assert len(taken(channel)) == 1


def test_a_second_event_on_the_same_stream_is_dropped() -> None:
    bench = Bench()
    sender = bench.sender()
    _, channel = bench.join("alpha")
    bench.send(sender, event(1, "alpha"), event(1, "alpha"))
    assert len(taken(channel)) == 1
    assert taken(sender) == []


def test_frames_without_a_route_are_late_and_dropped() -> None:
    bench = Bench()
    sender, worker = bench.sender(), bench.worker()
    peer, channel = bench.join("alpha")
    late = [data(9), reply(9), window(9), reset(9, CANCELLED), frame(99, 9), frame(Kind.ORIGIN, 9)]
    bench.send(sender, *late)
    bench.arrive(peer, *late)
    bench.answer(worker, *late, event(9))
    assert taken(sender) == taken(channel) == taken(worker) == []


@pytest.mark.parametrize("kind", [Kind.ORIGIN, Kind.EVENT, 99, Kind.CAPACITY, Kind.NOTICE])
def test_only_frames_of_an_exchange_are_passed_on(kind: int) -> None:
    bench = Bench()
    sender = bench.sender()
    peer, channel = bench.join("alpha")
    bench.send(sender, event(1, "alpha"))
    (opened,) = taken(channel)
    bench.send(sender, frame(kind, 1, b"", b"x"))
    bench.arrive(peer, frame(kind, opened.stream, b"", b"x"))
    assert taken(channel) == taken(sender) == []


# By address.


def test_a_client_is_found_by_its_address() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.join("alpha", "10.0.0.1")
    _, beta = bench.join("beta", "10.0.0.2")
    _, gamma = bench.join("gamma", "2001:db8::1")
    bench.send(sender, event(1, "10.0.0.2"), event(3, "::ffff:10.0.0.2"), event(5, "[2001:DB8:0::1]"))
    assert len(taken(beta)) == 2
    assert len(taken(gamma)) == 1


def test_a_client_on_a_socket_for_both_families_is_found_by_its_ipv4_address() -> None:
    bench = Bench()
    sender = bench.sender()
    _, alpha = bench.join("alpha", "::ffff:10.0.0.1")
    bench.send(sender, event(1, "10.0.0.1"))
    assert len(taken(alpha)) == 1


def test_a_client_is_found_by_a_name_that_resolves_to_its_address() -> None:
    bench = Bench()
    sender = bench.sender()
    _, alpha = bench.join("alpha", "127.0.0.1")
    bench.send(sender, event(1, "localhost", b"abc", end=False), data(1, b"def", end=True))
    assert taken(alpha) == []
    bench.now += 1
    bench.lookups["localhost"](frozenset({"::1", "127.0.0.1"}), bench.now)
    opened, more = taken(alpha)
    assert event_of(opened).timeout_ms == 29_000
    assert (opened.body, more.body) == (b"abc", b"def")


def test_a_name_takes_precedence_over_an_address() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.join("alpha", "10.0.0.1")
    _, odd = bench.join("10.0.0.1", "10.0.0.9")
    bench.send(sender, event(1, "10.0.0.1"))
    assert len(taken(odd)) == 1


def test_an_unknown_client_is_told_at_once() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.join("alpha", "10.0.0.1")
    bench.send(sender, event(1, "10.0.0.7"))
    why = the_reset(sender)
    assert (why.code, why.delivered) == (Code.UNKNOWN_PEER, Delivered.NO)
    bench.send(sender, event(3, "nobody.example"))
    bench.lookups["nobody.example"](frozenset(), bench.now)
    why = the_reset(sender)
    assert why.code is Code.UNKNOWN_PEER
    assert "'nobody.example'" in why.detail
    assert sender.routes == {}


def test_more_than_one_match_lists_the_names() -> None:
    bench = Bench()
    sender = bench.sender()
    for name in ("beta", "alpha", "gamma"):
        bench.join(name, "10.0.0.1")
    bench.know("long-gone", "10.0.0.1")
    bench.send(sender, event(1, "10.0.0.1"))
    why = the_reset(sender)
    assert (why.code, why.delivered, why.names) == (
        Code.AMBIGUOUS_PEER,
        Delivered.NO,
        ("alpha", "beta", "gamma"),
    )


def test_thousands_of_matches_are_told_too() -> None:
    bench = Bench()
    bench.peers._limit = 10_000
    sender = bench.sender()
    for number in range(5000):
        bench.join(f"client-{number}.example", "10.0.0.1")
    bench.send(sender, event(1, "10.0.0.1"))
    assert the_reset(sender).code is Code.AMBIGUOUS_PEER


def test_a_name_that_resolves_after_its_event_was_given_up_does_nothing() -> None:
    bench = Bench()
    sender = bench.sender()
    _, alpha = bench.join("alpha", "127.0.0.1")
    for number, how in ((1, "cancel"), (3, "expire"), (5, "lose")):
        bench.send(sender, event(number, "localhost", timeout_s=1))
        if how == "cancel":
            bench.send(sender, reset(number, CANCELLED))
        elif how == "expire":
            bench.pass_time(1)
            why = the_reset(sender)
            assert (why.code, why.delivered) == (Code.UNREACHABLE, Delivered.NO)
        else:
            bench.router.lose(sender, "gone", bench.now)
        bench.lookups["localhost"](frozenset({"127.0.0.1"}), bench.now)
        assert taken(alpha) == taken(sender) == []
        assert sender.routes == {}


def test_an_absent_client_is_waited_for_by_its_last_address() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.know("alpha", "10.0.0.1")
    bench.send(sender, event(1, "10.0.0.1"))
    _, alpha = bench.join("alpha", "10.0.0.3")
    assert len(taken(alpha)) == 1


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
        (Kind.EVENT, b"a"),
        (Kind.DATA, b"b"),
        (Kind.WINDOW, (1000).to_bytes(4, "big")),
        (Kind.DATA, b"c"),
    ]
    # No clocks are compared: what is left of the deadline is told.
    assert [event_of(one).timeout_ms for one in received if one.kind == Kind.EVENT] == [6000, 6000]
    assert bench.waiting == 0
    assert bench.deadlines.next_at is None


def test_whoever_waits_for_a_peer_in_vain_is_told_before_the_deadline() -> None:
    bench = Bench()
    sender = bench.sender()
    bench.know("alpha")
    bench.send(sender, event(1, "alpha", timeout_s=10), event(3, "alpha", timeout_s=1))
    assert bench.deadlines.next_at == pytest.approx(bench.now + 0.9)
    assert bench.armed == pytest.approx([bench.now + 9.75, bench.now + 0.9])
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
    bench.send(sender, reset(3, StreamReset(Code.CANCELLED)))
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
    assert only.kind == Kind.EVENT
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


def test_whoever_opens_far_too_much_and_reads_nothing_is_cut_off() -> None:
    bench = Bench(limits=Limits(1, 10_000))
    bench.join("alpha")
    sender = bench.sender()
    with pytest.raises(ProtocolError) as caught:
        for number in range(1, 10_000, 2):
            bench.send(sender, event(number, "alpha", end=False))
    assert caught.value.code is Code.FLOW_CONTROL
    assert DEAF * 10_000 < sender.session.queue.size < DEAF * 10_000 + 1000


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


# From a peer to a handler worker.


def test_an_event_of_a_peer_goes_to_a_worker_with_its_origin() -> None:
    bench = Bench()
    worker = bench.worker()
    peer, alpha = bench.join("alpha", "10.0.0.1")
    bench.arrive(peer, event(5, body=b"abc"))
    first, opened = taken(worker)
    assert (first.kind, opened.kind) == (Kind.ORIGIN, Kind.EVENT)
    assert first.stream == opened.stream
    origin = origin_of(first)
    assert (origin.peer, origin.address, origin.port) == ("alpha", "10.0.0.1", 4000)
    assert opened.body == b"abc"
    bench.answer(worker, reply(opened.stream, b"done"))
    (back,) = taken(alpha)
    assert (back.stream, back.body) == (5, b"done")
    assert alpha.routes == worker.routes == {}


def test_an_origin_cannot_be_forged() -> None:
    bench = Bench()
    worker = bench.worker()
    peer, _ = bench.join("alpha", "10.0.0.1")
    forged = frame(Kind.ORIGIN, 5, Origin(peer="admin").SerializeToString())
    bench.arrive(peer, forged, event(5, end=False), forged, data(5, b"x"))
    received = taken(worker)
    assert [one.kind for one in received] == [Kind.ORIGIN, Kind.EVENT, Kind.DATA]
    assert origin_of(received[0]).peer == "alpha"
    # Nor by fields in the event that a later version might read as one.
    head = Event(verb="GET").SerializeToString() + Origin(peer="admin").SerializeToString()
    bench.arrive(peer, frame(Kind.EVENT, 7, head))
    received = taken(worker)
    assert origin_of(received[0]).peer == "alpha"


def test_an_origin_and_its_event_never_part() -> None:
    """A cancelled event whose origin alone had left would stay with its worker for ever."""
    bench = Bench()
    worker = bench.worker()
    peer, _ = bench.join("alpha")
    bench.arrive(peer, event(1), event(3))
    kinds = [[one.kind for one in taken(worker, budget=1)] for _ in range(2)]
    assert kinds == [[Kind.ORIGIN, Kind.EVENT]] * 2


def test_the_worker_with_most_room_is_given_the_next() -> None:
    bench = Bench()
    small, large = bench.worker(2), bench.worker(4)
    peer, _ = bench.join("alpha")
    for number in range(1, 13, 2):
        bench.arrive(peer, event(number))
    assert (len(small.routes), len(large.routes)) == (2, 4)
    bench.arrive(peer, event(99))
    assert len(bench.pool.line) == 1


def test_events_wait_for_a_worker_and_are_fed_in_order() -> None:
    bench = Bench()
    peer, alpha = bench.join("alpha")
    bench.arrive(
        peer, event(1, body=b"1", timeout_s=10, end=False), event(3, body=b"3"), data(1, b"x", end=True)
    )
    bench.now += 2
    worker = bench.worker(1)
    received = taken(worker)
    assert [one.kind for one in received] == [Kind.ORIGIN, Kind.EVENT, Kind.DATA]
    assert (received[1].body, event_of(received[1]).timeout_ms) == (b"1", 8000)
    bench.answer(worker, reply(received[1].stream))
    received = taken(worker)
    assert received[1].body == b"3"
    bench.answer(worker, reply(received[1].stream))
    assert numbers(taken(alpha)) == [1, 3]
    assert bench.waiting == 0


def test_whoever_waits_for_a_worker_in_vain_is_told_so() -> None:
    bench = Bench()
    peer, alpha = bench.join("alpha")
    bench.arrive(peer, event(1, timeout_s=1))
    bench.pass_time(1)
    why = the_reset(alpha)
    assert (why.code, why.delivered) == (Code.NO_HANDLER, Delivered.NO)
    for number in range(3, 2 * MAX_WAITING + 5, 2):
        bench.arrive(peer, event(number))
    assert the_reset(alpha).code is Code.OVERLOADED


def test_a_worker_that_goes_or_hangs_is_given_nothing() -> None:
    bench = Bench()
    worker = bench.worker()
    peer, _ = bench.join("alpha")
    worker._connection.pinged_at = bench.now - 0.4
    assert worker.room(bench.now) == 10
    assert worker.room(bench.now + 1) == 0
    worker._connection.peer_goes = True
    bench.arrive(peer, event(1))
    assert taken(worker) == []
    assert bench.waiting == 1
    other = bench.worker()
    assert len(taken(other)) == 2


def test_an_event_of_a_peer_that_cannot_be_read_is_refused_when_it_would_wait() -> None:
    bench = Bench()
    peer, alpha = bench.join("alpha")
    bench.arrive(peer, frame(Kind.EVENT, 1, b"\xff\xff"))
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
    bench.arrive(peer, frame(Kind.EVENT, 1, head.SerializeToString()))
    worker = bench.worker()
    assert len(taken(worker)) == 2


def test_a_peer_cannot_take_the_numbers_of_this_side() -> None:
    bench = Bench()
    sender = bench.sender()
    peer, alpha = bench.join("alpha")
    # Even ones are this side's. Were they routed, the answer to one event would go to another.
    bench.arrive(peer, event(2), event(4), event(0))
    assert alpha.routes == {}
    bench.send(sender, event(1, "alpha"))
    (opened,) = taken(alpha)
    bench.arrive(peer, reply(opened.stream, b"mine"))
    assert taken(sender)[0].body == b"mine"
    assert bench.waiting == 0


# Cancelling.


def test_a_hang_up_reaches_the_handler_and_overtakes_the_body() -> None:
    bench = Bench()
    worker = bench.worker()
    peer, alpha = bench.join("alpha")
    bench.arrive(peer, event(1, end=False))
    number = taken(worker)[0].stream
    bench.arrive(peer, data(1, b"x"), data(1, b"y"), reset(1, CANCELLED), data(1, b"late"))
    (only,) = taken(worker)
    assert (only.kind, only.stream) == (Kind.RESET, number)
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
    bench.answer(worker, reset(number, StreamReset(Code.BODY_TOO_LARGE, "too much", Delivered.YES)))
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
    assert [one.kind for one in taken(alpha)] == [Kind.WINDOW]
    bench.arrive(peer, reply(number, end=False), data(number, b"x"))
    # A credit with the flag set, however odd, ends nothing.
    bench.arrive(peer, Frame(Kind.WINDOW, 1, 0, number, bytes(4)), data(number, b"y", end=True))
    assert [one.kind for one in taken(sender)] == [Kind.REPLY, Kind.DATA, Kind.WINDOW, Kind.DATA]
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


# Any sequence of anything.


class Told:
    """What the opener of one event has heard."""

    def __init__(self) -> None:
        self.ends = 0
        self.cancelled = False


class RouterMachine(RuleBasedStateMachine):
    """Two senders, two peers and up to three workers do whatever they may, and some things that they may not.

    Each neighbour reads what it is sent at moments of its own choice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(limits=Limits(6, 200_000), max_waiting=3)
        self.senders = [self.bench.sender(), self.bench.sender()]
        self.peers: list[Peer] = []
        for name, address in (("alpha", "10.0.0.1"), ("beta", "10.0.0.2")):
            self.peers.append(self.bench.join(name, address)[0])
        self.workers: list[Worker] = []
        self.next_number = 1
        self.openers: dict[tuple[int, int], Told] = {}
        """What was opened, by opener and stream."""
        self.seen: dict[int, set[int]] = {}
        """Streams that each answerer has been shown, by answerer."""
        self.kept: list[object] = []

    # Reading.

    def read(self, channel: Channel, budget: int = 1 << 30) -> None:
        self.kept.append(channel)
        opened = self.seen.setdefault(id(channel), set())
        for one in taken(channel, budget):
            told = self.openers.get((id(channel), one.stream))
            if told is not None:
                assert not told.ends, "something came after the end"
                assert not told.cancelled, "something came to an opener that hung up"
                told.ends += one.kind == Kind.RESET or (one.ends and one.kind != Kind.WINDOW)
            elif one.kind == Kind.EVENT:
                assert one.stream not in opened
                opened.add(one.stream)
            elif one.kind != Kind.ORIGIN:
                assert one.stream in opened, "a frame of a stream that was never opened"

    def channels(self) -> list[Channel]:
        of_peers = [peer.channel for peer in self.peers if peer.channel is not None]
        return [*self.senders, *of_peers, *self.workers]

    @rule(which=st.integers(0, 6), budget=st.integers(1, 300))
    def reads(self, which: int, budget: int) -> None:
        channels = self.channels()
        self.read(channels[which % len(channels)], budget)

    # Opening.

    @rule(
        which=st.integers(0, 1),
        to=st.sampled_from(["alpha", "beta", "10.0.0.1", "10.0.0.9", "host.example", ""]),
        timeout_s=st.sampled_from([0.0, 1.0, 30.0]),
        end=st.booleans(),
    )
    def sender_opens(self, which: int, to: str, timeout_s: float, end: bool) -> None:
        sender, number = self.senders[which], self.next_number
        self.next_number += 2
        self.openers[id(sender), number] = Told()
        self.bench.send(sender, event(number, to, b"x", timeout_s=timeout_s, end=end))

    @rule(which=st.integers(0, 1), timeout_s=st.sampled_from([0.0, 1.0, 30.0]), good=st.booleans())
    def peer_opens(self, which: int, timeout_s: float, good: bool) -> None:
        channel = self.peers[which].channel
        if channel is None or not self.peers[which].online:
            return
        number = self.next_number
        self.next_number += 2
        self.openers[id(channel), number] = Told()
        opening = (
            event(number, timeout_s=timeout_s) if good or self.workers else frame(Kind.EVENT, number, b"\xff")
        )
        self.bench.arrive(self.peers[which], opening)

    @rule(name=st.booleans(), found=st.booleans())
    def resolver_answers(self, name: bool, found: bool) -> None:
        answer = self.bench.lookups.pop("host.example", None)
        if answer is not None:
            answer(frozenset({"10.0.0.2"} if found else ()), self.bench.now)

    # Frames of streams that are open, or were, or never have been.

    @rule(
        which=st.integers(0, 6),
        pick=st.integers(0, 30),
        kind=st.sampled_from(
            ["data", "end", "reply", "whole reply", "reset", "window", "event", "origin", "99"]
        ),
        size=st.sampled_from([0, 10, MAX_BODY]),
    )
    def frame_comes(self, which: int, pick: int, kind: str, size: int) -> None:
        channels = self.channels()
        channel = channels[which % len(channels)]
        candidates = sorted({*channel.routes, *self.seen.get(id(channel), ()), 9998})
        number = candidates[pick % len(candidates)]
        body = bytes(size)
        made = {
            "data": data(number, body),
            "end": data(number, body, end=True),
            "reply": reply(number, body, end=False),
            "whole reply": reply(number, body),
            "reset": reset(number, CANCELLED),
            "window": window(number),
            "event": event(number, "alpha"),
            "origin": frame(Kind.ORIGIN, number),
            "99": frame(99, number, b"", body),
        }[kind]
        told = self.openers.get((id(channel), number))
        if kind == "reset" and told is not None and number in channel.routes:
            self.read(channel)
            told.cancelled = not told.ends
        self.receive(channel, made)

    def receive(self, channel: Channel, *received: Frame) -> None:
        if channel in self.senders:
            # An EVENT on a stream that is over would be a new one: real senders use no number twice.
            received = tuple(
                one for one in received if one.kind != Kind.EVENT or one.stream in channel.routes
            )
            self.bench.send(channel, *received)
        elif isinstance(channel, Worker):
            self.bench.answer(channel, *received)
        else:
            peer = next(peer for peer in self.peers if peer.channel is channel)
            own = [one for one in received if one.kind != Kind.EVENT or one.stream in channel.routes]
            self.bench.arrive(peer, *own)

    # Coming and going.

    @precondition(lambda self: len(self.workers) < 3)
    @rule(capacity=st.integers(0, 3))
    def worker_comes(self, capacity: int) -> None:
        self.workers.append(self.bench.worker(capacity))

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 2))
    def worker_goes(self, which: int) -> None:
        worker = self.workers.pop(which % len(self.workers))
        self.kept.append(worker)
        self.bench.lose_worker(worker)

    @rule(which=st.integers(0, 1))
    def sender_goes(self, which: int) -> None:
        sender = self.senders[which]
        self.kept.append(sender)
        self.bench.router.lose(sender, "gone", self.bench.now)
        assert sender.routes == {}
        for (channel, _), told in self.openers.items():
            told.cancelled |= channel == id(sender) and not told.ends
        self.senders[which] = self.bench.sender()

    @rule(which=st.integers(0, 1))
    def link_breaks(self, which: int) -> None:
        self.peers[which].online = False

    @rule(which=st.integers(0, 1))
    def peer_comes(self, which: int) -> None:
        self.bench.join(self.peers[which].name, f"10.0.0.{which + 1}")

    @rule(which=st.integers(0, 1))
    def session_is_given_up(self, which: int) -> None:
        channel = self.peers[which].channel
        if channel is not None:
            self.kept.append(channel)
            self.bench.lose_peer(self.peers[which])
            for (opener, _), told in self.openers.items():
                told.cancelled |= opener == id(channel) and not told.ends

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.pass_time(seconds)

    # What holds at all times, and at the end.

    @invariant()
    def lines_and_routes_agree(self) -> None:
        bench = self.bench
        waiting = {
            route
            for channel in self.channels()
            for route in channel.routes.values()
            if route.waiting is not None
        }
        in_lines = {route for peer in bench.peers for route in peer.line._routes} | set(
            bench.pool.line._routes
        )
        assert in_lines <= waiting
        held = [route.waiting for route in waiting]
        assert bench.router.waiting_size == sum(one.size for one in held if one is not None)
        for route in waiting - in_lines:
            assert route.waiting is not None
            assert route.waiting.event.to == "host.example"
        for channel in self.channels():
            for number, route in channel.routes.items():
                ends = {(id(route.opener), route.opener_number), (id(route.answerer), route.answerer_number)}
                assert (id(channel), number) in ends
        for worker in self.workers:
            assert len(worker.routes) <= worker.capacity
            if worker.room(bench.now) > 0:
                assert not bench.pool.line

    @invariant()
    def whoever_is_waited_for_is_away(self) -> None:
        for peer in self.peers:
            assert not (peer.online and peer.line)

    def teardown(self) -> None:
        """All answerers go: every event must have one end by then, and nothing be left."""
        for worker in list(self.workers):
            self.read(worker)
            self.worker_goes(0)
        for which in (0, 1):
            self.link_breaks(which)
        self.bench.pass_time(100)
        for channel in self.channels():
            self.read(channel)
        for which in (0, 1):
            self.session_is_given_up(which)
        for channel in self.channels():
            self.read(channel)
            assert channel.routes == {}
        assert self.bench.waiting == 0
        assert self.bench.deadlines.next_at is None
        for told in self.openers.values():
            assert told.ends + told.cancelled == 1, "an event without an end, or with two"


RouterMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestRouterMachine = RouterMachine.TestCase


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
