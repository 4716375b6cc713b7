"""TLS handshakes with certificates on both sides: RestPipe's daemon and a server that does nothing else."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.cpu import Meter
from tests.bench.failures import BenchError, cause
from tests.bench.markdown import table
from tests.bench.peers.outcome import Outcome, Ratio, times
from tests.bench.peers.scene import APPS, Scene, Settings, accepts
from tests.support.nodes import free_port

BARE, RESTPIPE = "bare uvloop", "RestPipe"
GRACE_S = 30.0


class Server(NamedTuple):
    port: int
    pid: int


class Sample(NamedTuple):
    rate: float
    """Handshakes a second."""
    cpu_us: float
    """Of the server, each."""


Round = Mapping[str, Sample]


def run(settings: Settings) -> Outcome:
    seconds = max(1, round(settings.seconds))
    with Scene(settings) as scene:
        servers = started(scene)
        identity = scene.authority.client("shaker").directory
        rounds = [
            {name: measure(server, identity, seconds) for name, server in servers.items()}
            for _ in range(settings.rounds)
        ]
    return Outcome([handshakes(rounds)], ratios(rounds))


def started(scene: Scene) -> dict[str, Server]:
    port, identity = free_port(), scene.authority.server().directory
    # By the same Python and the same libraries as RestPipe.
    command: list[str | Path] = [sys.executable, "-m", f"{APPS}.bare_tls", str(port), identity]
    bare = scene.start("bare-tls", *command, ready=lambda: accepts(port))
    pair = scene.restpipe()
    return {BARE: Server(port, bare.pid), RESTPIPE: Server(pair.port, pair.server.pipe.pid)}


def measure(server: Server, identity: Path, seconds: int) -> Sample:
    meter, began = Meter({"server": server.pid}), time.perf_counter()
    count = shake(server.port, identity, seconds)
    # It counts whole seconds of the clock on the wall, and so takes up to one more than it was told.
    taken = time.perf_counter() - began
    return Sample(count / taken, meter.spent_us()["server"] / count)


def shake(port: int, identity: Path, seconds: int) -> int:
    """How many connections one caller could make, one after the other."""
    command = ["openssl", "s_time", "-new", "-time", str(seconds), "-connect", f"127.0.0.1:{port}"]
    for option, file in (("-cert", "certificate.pem"), ("-key", "key.pem"), ("-CAfile", "ca.pem")):
        command += [option, str(identity / file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE_S)
    except subprocess.TimeoutExpired:
        raise BenchError("openssl s_time did not end in time") from None
    found = re.search(r"^(\d+) connections in \d+ real seconds", done.stdout, re.MULTILINE)
    if found is None or found[1] == "0":
        raise BenchError(f"openssl s_time made no connection: {cause(done.stderr)}")
    return int(found[1])


def handshakes(rounds: Sequence[Round]) -> str:
    def row(name: str) -> list[str]:
        rate, cpu_us = (statistics.median(each[name][side] for each in rounds) for side in (0, 1))
        return [name, f"{rate:.0f}", f"{cpu_us:.0f}"]

    return table(["TLS 1.3 with client certificates", "handshakes/s", "CPU us each"], map(row, rounds[0]))


def ratios(rounds: Sequence[Round]) -> list[Ratio]:
    return [
        Ratio(f"{what}, of {BARE}", times(each[RESTPIPE][side] / each[BARE][side] for each in rounds))
        for side, what in enumerate(("TLS handshakes/s", "CPU of a TLS handshake"))
    ]
