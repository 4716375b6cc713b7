"""Streams share the threads by peer, and leave some to methods."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from random import Random

import pytest

from restpipe.handler.bursts import Bursts


class Reading:
    """Streams that begin and end."""

    def __init__(self, threads: int) -> None:
        self.bursts = Bursts(threads)
        self.begun: deque[str] = deque()
        self.most: Counter[str] = Counter()

    def ask(self, peer: str) -> None:
        self.bursts.ask(peer, self._begin(peer))

    def _begin(self, peer: str) -> Callable[[], None]:
        return lambda: self.begun.append(peer)

    def end(self) -> str:
        peer = self.begun.popleft()
        self.bursts.end(peer)
        return peer


def test_one_that_asks_alone_leaves_threads_to_methods_and_to_others() -> None:
    reading = Reading(32)
    for _ in range(100):
        reading.ask("slow")
    assert len(reading.begun) < 28
    reading.ask("quick")
    assert reading.begun[-1] == "quick"


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
