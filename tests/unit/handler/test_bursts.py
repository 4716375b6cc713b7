"""Streams share the threads by peer, and leave some to methods."""

from __future__ import annotations

from collections import Counter, deque
from itertools import count
from random import Random

import pytest

from restpipe.handler.bursts import Bursts

NOW = 0.0


class Reading:
    """Streams that begin and end."""

    def __init__(self, threads: int) -> None:
        self.begun: deque[tuple[str, int]] = deque()
        self.bursts: Bursts[tuple[str, int]] = Bursts(threads, self.begun.append)
        self._numbers = count()

    def ask(self, peer: str) -> tuple[str, int]:
        job = (peer, next(self._numbers))
        self.bursts.ask(job, peer, NOW)
        return job

    def end(self) -> str:
        job = self.begun.popleft()
        self.bursts.end(job, NOW)
        return job[0]


def test_one_that_asks_alone_leaves_threads_to_methods_and_to_others() -> None:
    reading = Reading(32)
    for _ in range(100):
        reading.ask("slow")
    assert len(reading.begun) < 28
    reading.ask("quick")
    assert reading.begun[-1][0] == "quick"


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (2, 1), (3, 2), (8, 7), (32, 28)])
def test_some_threads_are_never_taken(threads: int, most: int) -> None:
    reading = Reading(threads)
    for number in range(100):
        reading.ask(f"peer {number}")
    assert len(reading.begun) == most


def test_peers_take_turns() -> None:
    reading = Reading(2)
    for peer in ("a", "a", "a", "b", "c"):
        reading.ask(peer)
    assert [reading.end() for _ in range(5)] == ["a", "a", "b", "c", "a"]


@pytest.mark.parametrize("seed", range(20))
def test_all_that_ask_begin_once_whatever_the_order(seed: int) -> None:
    random = Random(seed)
    threads = random.choice((1, 2, 5, 32))
    reading = Reading(threads)
    asked, ended = Counter[str](), Counter[str]()
    while ended.total() < 500:
        if asked.total() < 500 and (not reading.begun or random.random() < 0.6):
            peer = f"peer {min(random.randrange(9), random.randrange(9))}"
            asked[peer] += 1
            reading.ask(peer)
        else:
            ended[reading.end()] += 1
        assert len(reading.begun) <= threads
        # Who waits does so because all are taken, or his share is.
        assert reading.begun or ended == asked
    assert ended == asked


def test_what_waits_no_more_leaves_the_line() -> None:
    reading = Reading(2)
    first, second, third = (reading.ask("a") for _ in range(3))
    assert reading.bursts.withdraw(second, "a")
    assert not reading.bursts.withdraw(second, "a")
    assert not reading.bursts.withdraw(first, "a")
    reading.end()
    assert list(reading.begun) == [third]


def test_a_method_leaves_the_last_threads_to_others() -> None:
    bursts = Bursts[int](4, print)
    for number in range(3):
        assert bursts.leaves_thread_to("a", NOW)
        bursts.hold(number, "a", NOW)
    assert not bursts.leaves_thread_to("a", NOW)
    assert bursts.leaves_thread_to("b", NOW)
    # Those that may end at any moment do not count.
    assert bursts.leaves_thread_to("a", NOW - 1)
    # Once none is left, there is nothing to leave to anybody.
    bursts.hold(3, "b", NOW)
    assert bursts.leaves_thread_to("a", NOW)
    # Twice the same counts once, whatever comes between.
    bursts.hold(0, "a", NOW)
    bursts.end(0, NOW)
    bursts.end(0, NOW)
    bursts.end(3, NOW)
    assert bursts.leaves_thread_to("a", NOW)


def test_threads_that_are_held_for_long_are_told() -> None:
    bursts = Bursts[str](8, print)
    for job, now in (("first", 1.0), ("second", 2.0), ("third", 3.0)):
        bursts.ask(job, "a", now)
    assert bursts.held_since(2.0) == ["first", "second"]
    bursts.end("first", 4.0)
    assert bursts.held_since(2.0) == ["second"]
