from __future__ import annotations

from restpipe.daemon.pool import OVERDUE_S, HandlerPool, Worker
from restpipe.daemon.router import Route
from restpipe.protocol.connection import Connection, Side
from tests.unit.daemon.kit import session

NOW = 100.0


def worker(capacity: int, under_way: int = 0) -> tuple[Worker, Connection]:
    connection = Connection(Side.LISTENER, heartbeat_s=1.0, handshake_s=1.0, now=NOW)
    made = Worker(session(), connection, capacity)
    for number in range(under_way):
        Route(made, number)
    return made, connection


def test_room_is_what_capacity_leaves() -> None:
    assert worker(4)[0].room(NOW) == 4
    assert worker(4, 3)[0].room(NOW) == 1
    assert worker(4, 4)[0].room(NOW) == 0
    shrunk, _ = worker(4, 3)
    shrunk.capacity = 1
    assert shrunk.room(NOW) <= 0


def test_whoever_hangs_or_leaves_has_no_room() -> None:
    made, connection = worker(4)
    connection.pinged_at = NOW
    assert made.room(NOW + OVERDUE_S) == 4
    assert made.room(NOW + OVERDUE_S + 0.01) == 0
    connection.pinged_at = None
    assert made.room(NOW + 10) == 4
    connection.peer_goes = True
    assert made.room(NOW) == 0


def test_the_one_with_most_room_is_picked() -> None:
    pool = HandlerPool(10)
    assert pool.pick(NOW) is None
    busy, _ = worker(10, 8)
    free, _ = worker(5)
    full, _ = worker(2, 2)
    pool.workers |= {busy, free, full}
    assert pool.pick(NOW) is free
    pool.workers = {full}
    assert pool.pick(NOW) is None


def test_capacity_that_shrank_below_what_is_under_way_is_no_room() -> None:
    pool = HandlerPool(10)
    shrunk, _ = worker(5, 5)
    shrunk.capacity = 1
    pool.workers.add(shrunk)
    assert pool.pick(NOW) is None


def test_workers_are_told_apart_by_the_numbers_of_their_streams() -> None:
    one, _ = worker(1)
    assert [one.new_number() for _ in range(3)] == [2, 4, 6]
    assert not one.may_open(2)
    assert one.may_open(1)
