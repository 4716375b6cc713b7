"""Small events: requests a second, latency of one caller, CPU time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.bench.caller import Latencies, call, for_seconds
from tests.bench.markdown import table
from tests.bench.measuring import (
    IN_FLIGHT,
    Sample,
    Subject,
    cpu_text,
    failures,
    measure,
    median_cpu_us,
    median_rate,
    median_total_us,
    rate_ratio,
    warm_up,
)
from tests.bench.peers import chain, nats, ssh
from tests.bench.peers.outcome import Outcome, Ratio, times
from tests.bench.peers.scene import Scene, Settings
from tests.support.nodes import Pair

FLOOR, SSH, NATS, CHAIN = "no tunnel", "ssh -R", "NATS", "bare chain"
PEERS = (FLOOR, SSH, NATS, CHAIN)
ASYNC = "RestPipe, server to client, async method"
PLAIN = "RestPipe, server to client, plain method"
UPWARD = "RestPipe, client to server, async method"


class Round(NamedTuple):
    """By the subjects' names."""

    samples: Mapping[int, Mapping[str, Sample]]
    """By how many were in flight."""
    latencies: Mapping[str, Latencies]


def run(settings: Settings) -> Outcome:
    with Scene(settings) as scene:
        subjects = started(scene)
        for subject in subjects:
            warm_up(subject)
        rounds = [take_turns(subjects, settings.seconds) for _ in range(settings.rounds)]
    tables = [throughput(rounds, in_flight) for in_flight in IN_FLIGHT]
    return Outcome([*tables, one_caller(rounds)], ratios(rounds))


def started(scene: Scene) -> list[Subject]:
    floor = scene.gunicorn("app", "floor")
    tunnel = ssh.tunnel(scene, floor.socket)
    subjects = [
        Subject(FLOOR, floor.socket, "/time", {"app": floor.pid}),
        Subject(SSH, tunnel.socket, "/time", {**tunnel.pids, "app": floor.pid}),
        nats.subject(scene),
        chain.subject(scene),
        *restpipe(scene.restpipe()),
    ]
    for subject in subjects:
        scene.wait_answer(subject.socket, subject.target)
    return subjects


def restpipe(pair: Pair) -> list[Subject]:
    server, client = pair.server.processes, pair.client.processes
    down = {
        "web": server["web"].pid,
        "server daemon": server["pipe"].pid,
        "client daemon": client["pipe"].pid,
        "handlers": client["handlers"].pid,
    }
    up = down | {"web": client["web"].pid, "handlers": server["handlers"].pid}
    socket, target = pair.server.sockets / "web.sock", f"/client/{pair.client_name}"
    return [
        Subject(ASYNC, socket, f"{target}/atime", down),
        Subject(PLAIN, socket, f"{target}/time", down),
        Subject(UPWARD, pair.client.sockets / "web.sock", "/server/atime", up),
    ]


def take_turns(subjects: Sequence[Subject], seconds: float) -> Round:
    samples = {n: {one.name: measure(one, n, seconds) for one in subjects} for n in IN_FLIGHT}
    return Round(samples, {one.name: call(one.socket, one.target, for_seconds(seconds)) for one in subjects})


def samples_of(rounds: Sequence[Round], in_flight: int, name: str) -> list[Sample]:
    return [each.samples[in_flight][name] for each in rounds]


def throughput(rounds: Sequence[Round], in_flight: int) -> str:
    def row(name: str) -> list[str]:
        samples = samples_of(rounds, in_flight, name)
        against = [f"{rate_ratio(samples, samples_of(rounds, in_flight, peer)):.2f}" for peer in PEERS]
        return [name, f"{median_rate(samples):.0f}", *against, str(failures(samples)), cpu_text(samples)]

    against = [f"of {peer}" for peer in PEERS]
    heads = [f"{in_flight} in flight", "req/s", *against, "failed", "CPU us a request"]
    return table(heads, map(row, rounds[0].latencies))


def one_caller(rounds: Sequence[Round]) -> str:
    def row(name: str) -> list[str]:
        shown = [f"{median_ms(rounds, name, share):.3f}" for share in (0.5, 0.99)]
        return [name, *shown, str(sum(each.latencies[name].failed for each in rounds))]

    return table(["one caller", "p50 ms", "p99 ms", "failed"], map(row, rounds[0].latencies))


def median_ms(rounds: Sequence[Round], name: str, share: float) -> float:
    return statistics.median(each.latencies[name].percentile_ms(share) for each in rounds)


def ratios(rounds: Sequence[Round]) -> list[Ratio]:
    rates = [rate_against(rounds, in_flight, peer) for in_flight in (64, 16) for peer in (NATS, SSH)]
    latencies = [latency_against(rounds, peer) for peer in (NATS, CHAIN)]
    return [*rates, *latencies, *(cpu(rounds, in_flight) for in_flight in (16, 64))]


def rate_against(rounds: Sequence[Round], in_flight: int, peer: str) -> Ratio:
    by_name = [each.samples[in_flight] for each in rounds]
    values = (each[ASYNC].rate / each[peer].rate for each in by_name)
    return Ratio(f"req/s, {in_flight} in flight, of {peer}", times(values))


def latency_against(rounds: Sequence[Round], peer: str) -> Ratio:
    medians = ({name: one.percentile_ms(0.5) for name, one in each.latencies.items()} for each in rounds)
    return Ratio(f"one caller's p50, of {peer}", times(each[ASYNC] / each[peer] for each in medians))


def cpu(rounds: Sequence[Round], in_flight: int) -> Ratio:
    samples = samples_of(rounds, in_flight, ASYNC)
    web = median_cpu_us(samples)["web"]
    value = f"{median_total_us(samples):.0f} us, of it the web worker {web:.0f} us"
    return Ratio(f"CPU of all four processes, {in_flight} in flight", value)
