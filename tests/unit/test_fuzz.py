"""The targets of `make fuzz` work: on their seeds, and on a few mutations that are the same each time."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_nothing_is_wrong_with_what_is_nearly_good(name: str) -> None:
    target = TARGETS[name]
    chance = random.Random(7)
    seeds = [bytes(seed) for seed in target.seeds()]
    for data in (*seeds, b"", bytes(range(256))):
        target.check(data)
    for _ in range(40):
        for seed in seeds:
            target.check(mutated(seed, chance))


def mutated(seed: bytes, chance: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(4):
            case 0 if data:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randint(1, 8)]
            case 2:
                data[at:at] = data[at : at + chance.randint(1, 40)]
            case _:
                data[at:at] = bytes((chance.choice(b"\0\xff\n-0="),))
    return bytes(data)
