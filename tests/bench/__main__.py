"""`make bench`: a request through the whole pipe beside one that the web worker answers by itself.

Everything is measured in one run on the same machine, the load generator included, so that the ratios mean
something where the numbers do not. Run it alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import uvloop

from tests.bench.load import Result, load
from tests.support.identities import Authority
from tests.support.nodes import Node, Options, Pair

HANDLERS: Options = {
    "handlers": {
        "path": str(Path(__file__).parents[1] / "integration" / "handlers"),
        "event_class": "echo.Echo",
    }
}
IN_FLIGHT = {1: 2000, 16: 12000, 64: 16000}
"""How many requests are made at how many in flight."""
ROUNDS = 3
"""Each figure is the median of so many rounds, in which all subjects take turns."""
BIG = 1 << 30
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Subject(NamedTuple):
    name: str
    node: Node
    target: str
    status: int


class Figure(NamedTuple):
    result: Result
    cpu_us: Mapping[str, float]
    """CPU time of each process, in microseconds a request."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    with (
        tempfile.TemporaryDirectory(prefix="rp-") as name,
        Pair(Path(name), Authority(Path(name)), HANDLERS, HANDLERS) as pair,
    ):
        pair.start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(compare(pair, rounds))
        beside_a_large_reply(pair)
    return 0


async def compare(pair: Pair, rounds: int) -> None:
    alone = Subject("web worker alone", pair.client, "/", 404)
    subjects = (
        alone,
        Subject("client to server", pair.client, "/server/time", 200),
        Subject("server to client", pair.server, f"/client/{pair.client_name}/time", 200),
    )
    print(f"{'':18}{'in flight':>10}{'req/s':>9}{'ratio':>7}{'p50 ms':>8}{'p99 ms':>8}   CPU us a request")
    for in_flight, requests in IN_FLIGHT.items():
        for subject in subjects:
            await measure(pair, subject, in_flight, requests // 10)
        figures = [
            [await measure(pair, subject, in_flight, requests) for subject in subjects] for _ in range(rounds)
        ]
        for number, subject in enumerate(subjects):
            # Ratios are taken within a round, where both sides had the same neighbours.
            ratio = statistics.median(row[number].result.rate / row[0].result.rate for row in figures)
            show(subject, in_flight, [row[number] for row in figures], ratio)


async def measure(pair: Pair, subject: Subject, in_flight: int, requests: int) -> Figure:
    before = cpu_seconds(pair)
    result = await load(
        subject.node.sockets / "web.sock",
        subject.target,
        in_flight=in_flight,
        requests=max(requests, in_flight),
        status=subject.status,
    )
    after = cpu_seconds(pair)
    return Figure(result, {name: (after[name] - before[name]) / result.requests * 1e6 for name in after})


def show(subject: Subject, in_flight: int, figures: list[Figure], ratio: float) -> None:
    def median(value: Callable[[Result], float]) -> float:
        return statistics.median(value(figure.result) for figure in figures)

    cpu = {name: statistics.median(figure.cpu_us[name] for figure in figures) for name in figures[0].cpu_us}
    shown = ", ".join(f"{name} {value:.0f}" for name, value in cpu.items() if value >= 1)
    rate, p50, p99 = (
        median(value)
        for value in (lambda r: r.rate, lambda r: r.percentile_ms(0.5), lambda r: r.percentile_ms(0.99))
    )
    line = f"{subject.name:18}{in_flight:>10}{rate:>9.0f}{ratio:>7.2f}{p50:>8.2f}{p99:>8.2f}   {shown}"
    print(line, flush=True)


def cpu_seconds(pair: Pair) -> dict[str, float]:
    """CPU time of each part so far, its children included, and of this process."""
    spent = {"load": sum(os.times()[:2])}
    for node in (pair.server, pair.client):
        for part, process in node.processes.items():
            spent[f"{node.role} {part}"] = sum(map(_seconds_of, process.pids()))
    return spent


def _seconds_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def fetching(path: Path, target: str) -> subprocess.Popen[str]:
    """A curl that throws away what it gets, and prints how much that was."""
    url = f"http://localhost{target}"
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{size_download}", "--unix-socket", str(path), url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def beside_a_large_reply(pair: Pair) -> None:
    """Small events alone, then beside a reply of 1 GiB over the same link."""
    target = f"/client/{pair.client_name}/pid"
    path = pair.server.sockets / "web.sock"

    def small(requests: int) -> float:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(load(path, target, in_flight=1, requests=requests)).percentile_ms(0.5)

    small(200)
    alone = small(1000)
    medians: list[float] = []
    # A process of its own, so that reading it does not hold up the measurement.
    with fetching(path, f"/client/{pair.client_name}/pieces//{BIG // 65536}/65536") as curl:
        while curl.poll() is None:
            medians.append(small(50))
        size = int(curl.communicate()[0])
    if size != BIG:
        raise AssertionError(f"{size} bytes of {BIG} came")
    beside = statistics.median(medians)
    print(
        f"\nsmall events: median {alone:.2f} ms alone, {beside:.2f} ms beside a 1 GiB reply: "
        f"{beside / alone:.1f} times"
    )


if __name__ == "__main__":
    sys.exit(main())
