"""A GiB down and up through nothing, through ssh and through RestPipe."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.markdown import table
from tests.bench.peers import ssh
from tests.bench.peers.outcome import Outcome, Ratio, times
from tests.bench.peers.scene import Scene, Settings
from tests.bench.peers.transfers import BIG, Transfer, download, make_body, upload

FLOOR, SSH, RESTPIPE = "no tunnel", "ssh -R", "RestPipe"


class Way(NamedTuple):
    socket: Path
    target: str


class Speeds(NamedTuple):
    """MiB a second."""

    down: float
    up: float


Round = Mapping[str, Speeds]
"""By the names of the ways."""


def run(settings: Settings) -> Outcome:
    with Scene(settings) as scene:
        ways, body = started(scene), make_body(scene.folder / "body")
        rounds = [{name: measure(way, body) for name, way in ways.items()} for _ in range(settings.rounds)]
    return Outcome([speeds(rounds)], ratios(rounds))


def started(scene: Scene) -> dict[str, Way]:
    app = scene.gunicorn("app", "floor")
    tunnel, pair = ssh.tunnel(scene, app.socket), scene.restpipe()
    scene.wait_answer(tunnel.socket, "/time")
    return {
        FLOOR: Way(app.socket, "/big"),
        SSH: Way(tunnel.socket, "/big"),
        RESTPIPE: Way(pair.server.sockets / "web.sock", f"/client/{pair.client_name}/big"),
    }


def measure(way: Way, body: Path) -> Speeds:
    return Speeds(speed(download(*way)), speed(upload(*way, body)))


def speed(transfer: Transfer) -> float:
    with transfer:
        return BIG / (1 << 20) / transfer.seconds()


def speeds(rounds: Sequence[Round]) -> str:
    def row(name: str) -> list[str]:
        medians = [statistics.median(each[name][side] for each in rounds) for side in (0, 1)]
        against = [
            f"{statistics.median(each[name][side] / each[peer][side] for each in rounds):.2f}"
            for peer in (FLOOR, SSH)
            for side in (0, 1)
        ]
        return [name, *(f"{median:.0f}" for median in medians), *against]

    of = [f"{way} of {peer}" for peer in (FLOOR, SSH) for way in ("down", "up")]
    return table(["a body of 1 GiB", "down MiB/s", "up MiB/s", *of], map(row, rounds[0]))


def ratios(rounds: Sequence[Round]) -> list[Ratio]:
    return [
        Ratio(f"1 GiB {way}, of ssh -R", times(each[RESTPIPE][side] / each[SSH][side] for each in rounds))
        for side, way in enumerate(("down", "up"))
    ]
