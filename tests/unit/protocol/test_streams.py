from __future__ import annotations

import tracemalloc
from collections import Counter, defaultdict, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from restpipe.errors import Code, ProtocolError
from restpipe.protocol import frames
from restpipe.protocol.frames import DATA, EVENT, HEADER_SIZE, MAX_BODY, ORIGIN, RESET
from restpipe.protocol.streams import (
    FRAME_COST,
    INITIAL_CREDIT,
    MAX_CREDIT,
    NEAR_CREDIT,
    ReceiveCredit,
    SendQueue,
)

STREAMS = st.integers(1, 5)


def data(stream: int, number: int, size: int = 0) -> bytes:
    return frames.encode(DATA, stream, number.to_bytes(4, "big"), b"x" * size)


class SendQueueMachine(RuleBasedStateMachine):
    """Checks the queue against plain lists, and its fairness at each take."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = SendQueue()
        self.model: dict[int, deque[bytes]] = defaultdict(deque)
        self.number = 0

    @rule(stream=STREAMS, sizes=st.lists(st.integers(0, 60), min_size=1, max_size=8))
    def push(self, stream: int, sizes: list[int]) -> None:
        for size in sizes:
            self.number += 1
            frame = data(stream, self.number, size)
            self.queue.push(stream, frame)
            self.model[stream].append(frame)

    @rule(budget=st.integers(0, 400))
    def take(self, budget: int) -> None:
        waiting = {stream for stream, line in self.model.items() if line}
        taken = self.queue.take(budget)
        turns: Counter[int] = Counter()
        for frame in taken:
            stream = int.from_bytes(frame[8:16], "big")
            assert frame == self.model[stream].popleft()
            turns[stream] += 1
            # Nobody gets a second turn before each who still waits has had one.
            others = [turns[other] for other in waiting if self.model[other]]
            assert turns[stream] - min(others, default=turns[stream]) <= 1
        if budget > 0 and waiting:
            assert taken
        assert sum(map(len, taken[:-1])) < max(budget, 1)
        if sum(map(len, taken)) < budget:
            assert not any(self.model.values())

    @rule(stream=STREAMS)
    def drop(self, stream: int) -> None:
        assert not self.queue.drop(stream)
        self.model[stream].clear()

    @invariant()
    def sizes_agree(self) -> None:
        assert self.queue.size == sum(
            len(frame) + FRAME_COST for line in self.model.values() for frame in line
        )
        assert bool(self.queue) == any(self.model.values())
        for stream, line in self.model.items():
            assert self.queue.waiting(stream) == sum(map(len, line))


SendQueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSendQueueMachine = SendQueueMachine.TestCase


def test_a_big_stream_delays_a_small_one_by_one_frame() -> None:
    queue = SendQueue()
    for number in range(100):
        queue.push(1, data(1, number, 1000))
    queue.take(5000)
    small = data(2, 0)
    queue.push(2, small)
    assert small in queue.take(2000)[:2]


@pytest.mark.parametrize("kind", [EVENT, ORIGIN])
def test_dropping_tells_whether_the_opening_had_left(kind: int) -> None:
    queue = SendQueue()
    queue.push(1, frames.encode(kind, 1))
    queue.push(1, data(1, 1))
    assert queue.holds_opening(1)
    assert queue.drop(1)
    assert not queue
    assert queue.take(1000) == []

    queue.push(3, frames.encode(kind, 3))
    queue.push(3, data(3, 1))
    queue.take(1)
    assert not queue.holds_opening(3)
    assert not queue.drop(3)
    assert not queue.drop(99)


def test_what_is_pushed_after_a_drop_has_one_turn_like_all_others() -> None:
    queue = SendQueue()
    queue.push(1, data(1, 0))
    queue.push(2, data(2, 0))
    queue.drop(1)
    queue.push(1, data(1, 1))
    queue.push(1, data(1, 2))
    queue.push(2, data(2, 1))
    assert queue.take(1000) == [data(1, 1), data(2, 0), data(1, 2), data(2, 1)]


def test_opening_and_dropping_while_nothing_is_taken_leaves_nothing_behind() -> None:
    queue = SendQueue()
    queue.push(1, data(1, 0))
    for stream in range(3, 20_000, 2):
        queue.push(stream, data(stream, 0))
        queue.drop(stream)
    assert queue.size == len(data(1, 0)) + FRAME_COST
    assert len(queue._turns) < 1000


class CreditPair:
    """A sender and a reader of one stream, joined by a wire that keeps order."""

    def __init__(self) -> None:
        self.credit = INITIAL_CREDIT
        self.reader = ReceiveCredit()
        self.now = 0.0
        self.wire: deque[int] = deque()
        """Costs of the frames under way."""
        self.inbox: deque[int] = deque()
        self.grants: deque[int] = deque()
        self.largest = 0

    def send(self, size: int) -> int:
        """Sends as much of `size` as there is credit for; returns how much went."""
        sent = 0
        while sent < size:
            room = min(self.credit - HEADER_SIZE, MAX_BODY, size - sent)
            if room < 1:
                break
            self.credit -= room + HEADER_SIZE
            self.wire.append(room + HEADER_SIZE)
            sent += room
        self.largest = max(self.largest, sum(self.wire) + sum(self.inbox))
        return sent

    def deliver(self) -> None:
        if self.wire:
            cost = self.wire.popleft()
            self.reader.receive(cost, self.now)
            self.inbox.append(cost)

    def read(self) -> None:
        if self.inbox:
            due = self.reader.consume(self.inbox.popleft(), self.now)
            if due:
                self.grants.append(due)

    def grant(self) -> None:
        if self.grants:
            self.credit += self.grants.popleft()
            assert self.credit <= MAX_CREDIT

    def pass_time(self) -> None:
        self.now += 0.005

    @property
    def at_rest(self) -> bool:
        return not (self.wire or self.inbox or self.grants)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 300_000), max_size=12),
    st.lists(st.sampled_from(["deliver", "read", "grant", "pass_time"]), max_size=60),
)
def test_credit_never_deadlocks_and_is_never_overdrawn(sizes: list[int], moves: list[str]) -> None:
    pair = CreditPair()
    order = iter(moves)
    for size in sizes:
        while size:
            size -= pair.send(size)
            if size:
                getattr(pair, next(order, "deliver"))()
                if pair.at_rest:
                    assert pair.send(1) == 1, "a sender without credit, and nobody who would grant any"
                    size -= 1
                elif not pair.wire:
                    pair.read()
                    pair.grant()
    assert pair.largest <= MAX_CREDIT


def largest_window(round_trip_s: float, rounds: int = 200) -> int:
    """What a sender that never tires has under way at most, when a grant needs so long to bear fruit."""
    pair = CreditPair()
    assert pair.send(10 * MAX_CREDIT) == INITIAL_CREDIT - HEADER_SIZE
    for _ in range(rounds):
        while pair.wire:
            pair.deliver()
        while pair.inbox:
            pair.read()
        while pair.grants:
            pair.grant()
        pair.now += round_trip_s
        pair.send(10 * MAX_CREDIT)
    return pair.largest


def test_over_a_long_way_the_window_grows_to_its_most_and_no_further() -> None:
    assert MAX_CREDIT // 2 < largest_window(0.1) <= MAX_CREDIT


@pytest.mark.parametrize("round_trip_s", [0.0, 0.0001, 0.001])
def test_over_a_short_way_no_more_is_granted_than_fills_it(round_trip_s: float) -> None:
    assert NEAR_CREDIT // 2 < largest_window(round_trip_s) <= NEAR_CREDIT


def test_a_way_that_proves_shorter_narrows_the_window() -> None:
    pair = CreditPair()
    largest = []
    for round_trip_s in (0.1,) * 50 + (0.001,) * 50:
        pair.send(10 * MAX_CREDIT)
        largest.append(sum(pair.wire) + sum(pair.inbox))
        pair.now += round_trip_s
        while pair.wire:
            pair.deliver()
        while pair.inbox:
            pair.read()
        while pair.grants:
            pair.grant()
    assert max(largest[:50]) > MAX_CREDIT // 2
    assert INITIAL_CREDIT // 2 < largest[-1] <= NEAR_CREDIT


def test_small_pieces_are_not_granted_one_by_one() -> None:
    reader = ReceiveCredit()
    grants = 0
    for _ in range(1000):
        reader.receive(100, 0.0)
        grants += reader.consume(100, 0.0) > 0
    assert 1 <= grants <= 4


def test_more_than_was_granted_is_refused() -> None:
    reader = ReceiveCredit()
    reader.receive(INITIAL_CREDIT, 0.0)
    with pytest.raises(ProtocolError) as caught:
        reader.receive(1, 0.0)
    assert caught.value.code is Code.FLOW_CONTROL


def test_resets_that_wait_are_counted_however_they_leave() -> None:
    queue = SendQueue()
    for stream in range(1, 9):
        queue.push(stream, frames.encode(RESET, stream))
    queue.push(1, data(1, 0))
    queue.push(9, data(9, 0))
    assert queue.resets == 8
    queue.take(1)
    assert queue.resets == 7
    queue.drop(2)
    assert queue.resets == 6
    queue.take(1 << 20)
    assert queue.resets == 0
    assert not queue


def test_small_frames_are_counted_at_what_they_cost_in_memory() -> None:
    queue = SendQueue()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for stream in range(1, 20_001):
            queue.push(stream, frames.encode(RESET, stream, b"x" * 30))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used < queue.size
