from __future__ import annotations

import pytest

from restpipe.errors import Code, Delivered
from restpipe.protocol import frames
from restpipe.protocol.schema_pb2 import Event, Origin
from tests.unit.daemon.kit import (
    CANCELLED,
    Bench,
    data,
    event,
    event_of,
    frame,
    origin_of,
    reply,
    reset,
    taken,
    the_reset,
    window,
)

# From a sender to a peer.


def test_an_event_goes_to_the_peer_it_names_and_its_reply_comes_back() -> None:
    bench, sender = Bench(), Bench().sender()
    _, alpha = bench.join("alpha")
    peer, beta = bench.join("beta")
    bench.send(sender, event(7, "beta", b"abc", end=False), data(7, b"def", end=True))
    assert taken(alpha) == []
    opened, more = taken(beta)
    assert (opened.kind, opened.body, more.kind, more.body, more.ends) == (
        frames.EVENT,
        b"abc",
        frames.DATA,
        b"def",
        True,
    )
    assert opened.stream == more.stream
    assert opened.stream % 2 == 0
    assert event_of(opened).to == "beta"

    bench.arrive(peer, window(opened.stream), reply(opened.stream, b"ok"))
    back = taken(sender)
    assert [(one.kind, one.stream, one.body) for one in back] == [
        (frames.WINDOW, 7, (1000).to_bytes(4, "big")),
        (frames.REPLY, 7, b"ok"),
    ]
    assert sender.routes == beta.routes == {}


def test_on_a_client_every_event_is_for_the_server() -> None:
    bench = Bench(client=True)
    sender = bench.sender()
    _, server = bench.join()
    bench.send(sender, event(1), event(3, "another"))
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
    bench.send(sender, frame(frames.EVENT, 1, b"\xff\xff"), event(3, "alpha"))
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
    late = [data(9), reply(9), window(9), reset(9, CANCELLED), frame(99, 9), frame(frames.ORIGIN, 9)]
    bench.send(sender, *late)
    bench.arrive(peer, *late)
    bench.answer(worker, *late, event(9))
    assert taken(sender) == taken(channel) == taken(worker) == []


@pytest.mark.parametrize("kind", [frames.ORIGIN, frames.EVENT, 99, frames.CAPACITY, frames.NOTICE])
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
    bench.peers.limit = 10_000
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


# From a peer to a handler worker.


def test_an_event_of_a_peer_goes_to_a_worker_with_its_origin() -> None:
    bench = Bench()
    worker = bench.worker()
    peer, alpha = bench.join("alpha", "10.0.0.1")
    bench.arrive(peer, event(5, body=b"abc"))
    first, opened = taken(worker)
    assert (first.kind, opened.kind) == (frames.ORIGIN, frames.EVENT)
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
    forged = frame(frames.ORIGIN, 5, Origin(peer="admin").SerializeToString())
    bench.arrive(peer, forged, event(5, end=False), forged, data(5, b"x"))
    received = taken(worker)
    assert [one.kind for one in received] == [frames.ORIGIN, frames.EVENT, frames.DATA]
    assert origin_of(received[0]).peer == "alpha"
    # Nor by fields in the event that a later version might read as one.
    head = Event(verb="GET").SerializeToString() + Origin(peer="admin").SerializeToString()
    bench.arrive(peer, frame(frames.EVENT, 7, head))
    received = taken(worker)
    assert origin_of(received[0]).peer == "alpha"


def test_an_origin_and_its_event_never_part() -> None:
    """A cancelled event whose origin alone had left would stay with its worker forever."""
    bench = Bench()
    worker = bench.worker()
    peer, _ = bench.join("alpha")
    bench.arrive(peer, event(1), event(3))
    kinds = [[one.kind for one in taken(worker, budget=1)] for _ in range(2)]
    assert kinds == [[frames.ORIGIN, frames.EVENT]] * 2


def test_the_worker_with_most_room_is_given_the_next() -> None:
    bench = Bench()
    small, large = bench.worker(2), bench.worker(4)
    peer, _ = bench.join("alpha")
    for number in range(1, 13, 2):
        bench.arrive(peer, event(number))
    assert (len(small.routes), len(large.routes)) == (2, 4)
    bench.arrive(peer, event(99))
    assert len(bench.pool.queue) == 1


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
