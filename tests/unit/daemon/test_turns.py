from __future__ import annotations

import itertools
import random
from bisect import bisect_left

import pytest

from restpipe.daemon.turns import SPREAD_S, Turns, places, round_s
from restpipe.transport.backoff import STEADY_S, Backoff, Redial


def test_one_client_waits_for_no_other() -> None:
    assert round_s(0) == round_s(1) == 0.0


def test_rounds_grow_with_the_number_of_clients() -> None:
    rounds = [round_s(clients) for clients in (2, 10, 100, 200, 2000, 5000, 10000)]
    assert rounds == sorted(rounds)
    assert round_s(200) == SPREAD_S
    assert round_s(10000) < 50


def test_all_are_told_only_when_much_has_changed() -> None:
    turns = Turns()
    told = [clients for clients in range(1, 5001) if turns.changed(clients)]
    assert len(told) < 60
    assert not turns.changed(5000)
    assert turns.changed(1)
    assert turns.round_s == 0.0


@pytest.mark.parametrize("clients", [200, 2000])
@pytest.mark.parametrize("away_s", [0.0, 0.7, 3.0, 60.0])
def test_no_more_than_a_quarter_of_all_clients_dial_in_any_one_second(clients: int, away_s: float) -> None:
    """All links break at once, and the server is away for a while."""
    turns, dialed, back = Turns(), [], []
    for number, place in enumerate(itertools.islice(places(), clients), 1):
        turns.changed(number)
        redial = Redial(Backoff(0.1, 5.0))
        redial.take_turn(place * round_s(clients), round_s(clients))
        at = redial.after_link_s(STEADY_S)
        dialed.append(at)
        while at < away_s:
            at += redial.after_failure_s()
            dialed.append(at)
        back.append(at)
    assert most_in_a_second(dialed) <= clients / 4
    assert max(back) <= away_s + max(SPREAD_S, round_s(clients))


@pytest.mark.parametrize("seed", range(5))
def test_who_was_never_told_a_turn_goes_by_chance_alone(seed: int) -> None:
    """All are started at once, and the server only later: a quarter is more than chance keeps to."""
    clients, calm_s, away_s = 200, 20.0, 120.0
    draw = random.Random(seed).random
    dialed, back = [], []
    for _ in range(clients):
        redial, at = Redial(Backoff(0.1, 5.0, draw)), 0.0
        while at < away_s:
            at += redial.after_failure_s()
            dialed.append(at)
        back.append(at)
    calm = [at for at in dialed if calm_s <= at < away_s]
    assert 75 < len(calm) / (away_s - calm_s) < 85
    assert clients / 4 < most_in_a_second(calm) < 120
    assert clients / 4 < most_in_a_second(back) < 100
    assert max(back) < away_s + 5.0


def most_in_a_second(times: list[float]) -> int:
    ordered = sorted(times)
    return max(bisect_left(ordered, at + 1.0) - n for n, at in enumerate(ordered))
