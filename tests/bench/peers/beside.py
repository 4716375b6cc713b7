"""Small events alone, then beside a reply of a GiB over the same link."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.caller import call, for_seconds
from tests.bench.markdown import table
from tests.bench.peers.outcome import Outcome, Ratio, times
from tests.bench.peers.scene import Scene, Settings
from tests.bench.peers.transfers import download


class Medians(NamedTuple):
    """Milliseconds."""

    alone: float
    beside: float


def run(settings: Settings) -> Outcome:
    with Scene(settings) as scene:
        pair = scene.restpipe()
        socket, target = pair.server.sockets / "web.sock", f"/client/{pair.client_name}"
        call(socket, f"{target}/atime", for_seconds(1))
        rounds = [measure(socket, target, settings.seconds) for _ in range(settings.rounds)]
    times_longer = times(each.beside / each.alone for each in rounds)
    return Outcome([latencies(rounds)], [Ratio("small events' p50 beside 1 GiB, of alone", times_longer)])


def measure(socket: Path, target: str, seconds: float) -> Medians:
    alone = call(socket, f"{target}/atime", for_seconds(seconds)).percentile_ms(0.5)
    # Read by a process of its own, so that reading it does not hold up the measurement.
    with download(socket, f"{target}/big") as big:
        beside = call(socket, f"{target}/atime", lambda: big.under_way).percentile_ms(0.5)
        big.seconds()
    return Medians(alone, beside)


def latencies(rounds: Sequence[Medians]) -> str:
    rows = [
        [name, f"{statistics.median(each[column] for each in rounds):.3f}"]
        for column, name in enumerate(("alone", "beside a reply of 1 GiB"))
    ]
    return table(["small events over RestPipe", "p50 ms"], rows)
