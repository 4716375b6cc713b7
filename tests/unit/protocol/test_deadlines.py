from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from restpipe.protocol.deadlines import MIN_COMPACTED, Deadlines


class Entry:
    def __init__(self, at: float, *, waits: bool = True) -> None:
        self.at = at
        self.waits = waits


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=200), st.integers(0, 50))
def test_due_are_those_that_wait_and_in_order(wanted: list[tuple[int, bool]], now: int) -> None:
    deadlines: Deadlines[Entry] = Deadlines()
    entries = [Entry(at, waits=waits) for at, waits in wanted]
    for entry in entries:
        deadlines.add(entry.at, entry)
    due = list(deadlines.pop_due(now))
    assert due == sorted((e for e in entries if e.waits and e.at <= now), key=lambda entry: entry.at)
    assert deadlines.next_at == min((e.at for e in entries if e.waits and e.at > now), default=None)


def test_add_tells_of_the_earliest() -> None:
    deadlines: Deadlines[Entry] = Deadlines()
    assert deadlines.add(5, Entry(5))
    assert not deadlines.add(6, Entry(6))
    assert deadlines.add(4, Entry(4))


def test_entries_that_ceased_to_wait_do_not_pile_up() -> None:
    deadlines: Deadlines[Entry] = Deadlines()
    for number in range(10_000):
        deadlines.add(number, Entry(number, waits=False))
    assert len(deadlines._heap) <= MIN_COMPACTED


def test_many_that_wait_are_all_kept() -> None:
    deadlines: Deadlines[Entry] = Deadlines()
    for number in range(1000):
        deadlines.add(number, Entry(number))
    assert len(list(deadlines.pop_due(2000))) == 1000
