"""One timer of the loop serves all deadlines of a process."""

from __future__ import annotations

import asyncio

import pytest

from restpipe.transport.timer import DeadlineQueue
from tests.unit.transport.kit import run, until


class Entry:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.waits = True


class CountingLoop:
    """A loop's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, object]] = []
        self.armed = 0

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, callback: object) -> CountingLoop.Handle:
        self.armed += 1
        timer = (at, callback)
        self.timers.append(timer)
        return CountingLoop.Handle(self, timer)

    class Handle:
        def __init__(self, loop: CountingLoop, timer: tuple[float, object]) -> None:
            self.loop, self.timer = loop, timer

        def cancel(self) -> None:
            if self.timer in self.loop.timers:
                self.loop.timers.remove(self.timer)

    def pass_to(self, now: float) -> None:
        self.now = now
        while due := [timer for timer in self.timers if timer[0] <= now]:
            self.timers.remove(due[0])
            due[0][1]()  # type: ignore[operator]


@pytest.fixture
def loop() -> CountingLoop:
    return CountingLoop()


def queue_of(loop: CountingLoop, due: list[str]) -> DeadlineQueue[Entry]:
    return DeadlineQueue(loop, lambda entry: due.append(entry.name))  # type: ignore[arg-type]


def test_each_entry_that_waits_is_due_in_its_turn(loop: CountingLoop) -> None:
    due: list[str] = []
    queue = queue_of(loop, due)
    entries = [Entry(str(at)) for at in (3, 1, 2, 4)]
    for entry in entries:
        queue.add(float(entry.name), entry)
    entries[2].waits = False
    loop.pass_to(1.5)
    assert due == ["1"]
    loop.pass_to(3.0)
    assert due == ["1", "3"]
    assert len(loop.timers) == 1


def test_thousands_of_deadlines_that_are_not_reached_arm_few_timers(loop: CountingLoop) -> None:
    queue = queue_of(loop, [])
    for number in range(10_000):
        loop.now = number / 1000
        entry = Entry()
        queue.add(loop.now + 30, entry)
        entry.waits = False
    assert len(loop.timers) == 1
    assert loop.armed == 1


def test_an_earlier_deadline_takes_the_place_of_a_later_one(loop: CountingLoop) -> None:
    due: list[str] = []
    queue = queue_of(loop, due)
    queue.add(30.0, Entry("late"))
    queue.add(1.0, Entry("early"))
    assert [at for at, _ in loop.timers] == [1.0]
    loop.pass_to(1.0)
    assert due == ["early"]
    assert [at for at, _ in loop.timers] == [30.0]


def test_an_entry_may_be_added_again_when_it_is_due(loop: CountingLoop) -> None:
    times: list[float] = []

    def again(entry: Entry) -> None:
        times.append(loop.now)
        if len(times) < 3:
            queue.add(loop.now + 1, entry)

    queue: DeadlineQueue[Entry] = DeadlineQueue(loop, again)  # type: ignore[arg-type]
    queue.add(1.0, Entry())
    for now in (1.0, 2.0, 3.0, 4.0):
        loop.pass_to(now)
    assert times == [1.0, 2.0, 3.0]


def test_a_fault_at_one_deadline_leaves_the_others_theirs(loop: CountingLoop) -> None:
    due: list[str] = []

    def fail_first(entry: Entry) -> None:
        due.append(entry.name)
        if entry.name == "first":
            raise RuntimeError(entry.name)

    queue: DeadlineQueue[Entry] = DeadlineQueue(loop, fail_first)  # type: ignore[arg-type]
    for at, name in ((1.0, "first"), (1.0, "second"), (2.0, "third")):
        queue.add(at, Entry(name))
    with pytest.raises(RuntimeError):
        loop.pass_to(1.0)
    loop.pass_to(2.0)
    assert due == ["first", "second", "third"]


def test_a_closed_queue_keeps_no_timer(loop: CountingLoop) -> None:
    due: list[str] = []
    queue = queue_of(loop, due)
    queue.add(1.0, Entry("x"))
    queue.close()
    assert not loop.timers
    loop.pass_to(2.0)
    assert not due


def test_on_a_real_loop() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        due: list[Entry] = []
        queue: DeadlineQueue[Entry] = DeadlineQueue(loop, due.append)
        entry = Entry()
        queue.add(loop.time() + 0.01, entry)
        await until(lambda: due)
        assert due == [entry]

    run(main())
