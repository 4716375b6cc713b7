"""Cutting and healing, again and again, leaves nothing behind: no descriptor, no memory, no event."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.scene import Scene
from tests.faults.test_links import all_answered
from tests.support.conditions import wait_for
from tests.support.processes import rss_bytes

MakeScene = Callable[..., Scene]

CYCLES = 20
MIB = 1 << 20


def test_cutting_and_healing_leaves_nothing_behind(scene: MakeScene) -> None:
    with scene() as made:
        pids = {pid: f"{node.role} {part}" for node in made.nodes for pid, part in node.pids().items()}
        _cycles(made, 5)
        descriptors = {pid: _settled(pid) for pid in pids}
        memory = {pid: rss_bytes(pid) for pid in pids}
        _cycles(made, CYCLES)
        for pid, name in pids.items():
            wait_for(lambda p=pid: _descriptors(p) <= descriptors[p] + 1, f"no more descriptors in {name}")
            assert rss_bytes(pid) - memory[pid] < 12 * MIB, name


def _cycles(made: Scene, count: int) -> None:
    with made.load(callers=4, pause_s=0.01) as load:
        for number in range(count):
            dialed = len(made.link.dialed)
            made.link.hang() if number % 5 == 4 else made.link.reset()
            wait_for(lambda n=dialed: len(made.link.dialed) > n, "the client dials again")
            made.link.heal()
            wait_for(load.more(20), "requests go on")
    all_answered(made.verdict(load))


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def _settled(pid: int) -> int:
    """Once connections that were just closed are gone."""
    assert Path(f"/proc/{pid}/fd").is_dir()
    counts = []
    for _ in range(20):
        counts.append(_descriptors(pid))
        time.sleep(0.05)
    return min(counts)
