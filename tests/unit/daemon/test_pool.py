from __future__ import annotations

from restpipe.daemon.channel import PLACE, REPLYING, Channel, Route
from restpipe.daemon.pool import OVERDUE_S, HandlerPool, Worker
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.messages import MAX_REPLIES
from tests.unit.daemon.kit import opener, session

NOW = 100.0


def worker(capacity: int, working: int = 0, replying: int = 0) -> tuple[Worker, Connection]:
    connection = Connection(Side.LISTENER, heartbeat_s=1.0, handshake_s=1.0, now=NOW)
    made = Worker(session(), connection, capacity)
    for number in range(working + replying):
        route = Route(opener(), number)
        route.connect(made, PLACE)
        if number >= working:
            route.go_on(REPLYING)
    return made, connection


def pick(pool: HandlerPool, by: Channel | None = None, *, whole: bool = True) -> Worker | None:
    return pool.pick(by or opener(), NOW, whole=whole)


def test_room_is_what_capacity_leaves() -> None:
    assert worker(4)[0].room(NOW) == 4
    assert worker(4, 3)[0].room(NOW) == 1
    assert worker(4, 4)[0].room(NOW) == 0
    assert worker(4, 3, 50)[0].room(NOW) == 1
    assert worker(4, 0, MAX_REPLIES)[0].room(NOW) == 4
    assert worker(4, 0, MAX_REPLIES + 1)[0].room(NOW) == 3
    assert worker(4, 0, MAX_REPLIES + 4)[0].room(NOW) == 0
    shrunk, _ = worker(4, 3)
    shrunk.capacity = 1
    assert shrunk.room(NOW) <= 0


def test_a_worker_that_hangs_or_leaves_has_no_room() -> None:
    made, connection = worker(4)
    connection.pinged_at = NOW
    assert made.room(NOW + OVERDUE_S) == 4
    assert made.room(NOW + OVERDUE_S + 0.01) == 0
    connection.pinged_at = None
    assert made.room(NOW + 10) == 4
    connection.peer_goes = True
    assert made.room(NOW) == 0


def test_the_worker_with_most_room_is_picked() -> None:
    pool = HandlerPool(10)
    assert pick(pool) is None
    busy, _ = worker(10, 8)
    free, _ = worker(5)
    full, _ = worker(2, 2)
    pool.workers |= {busy, free, full}
    assert pick(pool) is free
    pool.workers = {full}
    assert pick(pool) is None


def test_capacity_that_shrank_below_what_is_worked_on_is_no_room() -> None:
    pool = HandlerPool(10)
    shrunk, _ = worker(5, 5)
    shrunk.capacity = 1
    pool.workers.add(shrunk)
    assert pick(pool) is None


# Shares.


def give(pool: HandlerPool, by: Channel, what: int = PLACE) -> int:
    """Gives events of this opener to workers as long as may be, and returns how many."""
    given = 0
    while (made := pick(pool, by)) is not None:
        route = Route(by, given)
        route.connect(made, PLACE)
        if what == REPLYING:
            route.go_on(REPLYING)
        given += 1
    return given


def test_a_peer_that_is_alone_may_take_all_places() -> None:
    pool, alone = HandlerPool(10), opener()
    pool.openers = {alone}
    pool.workers = {worker(32)[0]}
    assert give(pool, alone) == 32


def test_uploads_take_no_last_place_in_any_case() -> None:
    pool, alone = HandlerPool(10), opener()
    pool.openers = {alone}
    pool.workers = {worker(32, 31)[0]}
    alone.places = 31
    assert pick(pool, alone) is not None
    assert pick(pool, alone, whole=False) is None


def test_one_of_several_peers_leaves_the_others_some_places() -> None:
    pool, greedy, other = HandlerPool(10), opener(), opener()
    pool.openers = {greedy, other}
    pool.workers = {worker(16)[0], worker(16)[0]}
    assert give(pool, greedy) == 28
    assert pool.free == 4
    assert pick(pool, other) is not None


def test_the_last_place_is_for_a_peer_that_has_none() -> None:
    pool, one, other = HandlerPool(10), opener(), opener()
    pool.openers = {one, other}
    pool.workers = {worker(2)[0]}
    assert give(pool, one) == 1
    assert pick(pool, other) is not None


def test_replies_have_a_bound_that_one_peer_cannot_reach() -> None:
    pool, slow = HandlerPool(10), opener()
    pool.openers = {slow}
    pool.workers = {worker(32)[0]}
    assert give(pool, slow, REPLYING) == (32 + MAX_REPLIES) * 8 // 9
    assert pick(pool) is not None
