"""From two empty machines to four answers."""

from __future__ import annotations

import json

from tests.system.machines import Machine
from tests.system.walkthrough import FOUR, ask


def test_four_answers(joined: tuple[Machine, Machine]) -> None:
    server, client = joined
    for role, target, key in FOUR:
        machine = server if role == "server" else client
        answer = json.loads(ask(machine, role, target))
        assert list(answer) == [key], answer
        if "cat" in target:
            assert answer[key] == "hello world"
