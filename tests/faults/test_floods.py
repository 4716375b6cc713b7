"""Beside a flood of any kind, a good client is served as fast as ever."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.hostile import FRAMES, IDLE, REQUESTS
from tests.faults.peer import SilentPeer
from tests.faults.scene import Scene
from tests.support.conditions import wait_for
from tests.support.processes import rss_bytes

MakeScene = Callable[..., Scene]

REQUESTS_A_ROUND = 30
ROUNDS = 12
TIMES = 3.0
"""How much longer a good client's median request may take beside a flood."""
MIB = 1 << 20
GROWTH = 64 * MIB
"""What a flood may cost any of the processes in memory."""
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def flood(kind: str, where: object, identity: object = "") -> Iterator[None]:
    """One who floods, in a process of its own: this one measures."""
    command = [sys.executable, "-m", "tests.faults.hostile", kind, str(where), str(identity)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "flooding\n"
            yield
            assert process.poll() is None
        finally:
            process.kill()


def median_s(made: Scene) -> float:
    """Of requests that the good client makes, one after the other. All of them are answered."""
    taken = []
    for number in range(REQUESTS_A_ROUND):
        began = time.perf_counter()
        answer = made.client.http.get("/server/work//0", {"Prefer": "wait=10"})
        taken.append(time.perf_counter() - began)
        assert answer.status == 200, (number, answer)
    return statistics.median(taken)


def check(made: Scene, kind: str, where: object, identity: object = "") -> None:
    """The best of some rounds: a machine that is busy with other things slows down some, a flood all."""
    pids = [process.pid for node in made.nodes for process in node.processes.values()]
    median_s(made)
    before = {pid: rss_bytes(pid) for pid in pids}
    ratios: list[float] = []
    for _ in range(ROUNDS):
        alone = median_s(made)
        with flood(kind, where, identity):
            ratios.append(median_s(made) / alone)
        if ratios[-1] <= TIMES:
            break
    grown = max(rss_bytes(pid) - before[pid] for pid in pids)
    told = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    print(f"\n{kind}: {told} times as long as alone; {grown / MIB:.0f} MiB more at most")
    assert min(ratios) <= TIMES, (kind, told)
    assert grown < GROWTH, (kind, grown)


def test_a_peer_that_floods_the_server_slows_nobody(scene: MakeScene) -> None:
    with scene(proxied=False) as made:
        for kind in FRAMES:
            check(made, kind, made.pair.port, made.pair.authority.client("client-2").directory)


def test_a_caller_that_floods_the_server_slows_no_client(scene: MakeScene) -> None:
    with scene(proxied=False) as made:
        # One that is known, and away.
        with SilentPeer(made.pair.authority.client("client-2"), made.pair.port) as peer:
            wait_for(lambda: peer.session, "it is connected")
        for kind in REQUESTS:
            check(made, kind, made.server.sockets / "web.sock")


def test_connections_that_stand_idle_slow_no_caller(scene: MakeScene) -> None:
    with scene(proxied=False) as made:
        for kind in IDLE:
            check(made, kind, made.client.sockets / "web.sock")
