"""Runs the soak and ends with one line; exit status 1 unless nothing was lost, run twice or falsified."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.ledger import Verdict
from tests.faults.scene import Scene
from tests.faults.workload import MIXED
from tests.soak.faults import Faults
from tests.support.identities import Authority

WAIT_S = 20.0
MAX_TOLD = 40
OPTIONS = {"pipe": {"handshake_timeout_s": 2.0}}
"""Shorter than a fault: whoever is held back dials again before it is over."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults go on (default 60)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="default: a new one")
    parser.add_argument("--callers", type=int, default=8, help="on each side (default 8)")
    parser.add_argument("--keep-logs", type=Path, help="folder for all logs if the run fails")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="rp-") as folder, tempfile.TemporaryDirectory(prefix="rp-") as ca:
        scene = Scene(Path(folder), Authority(Path(ca)), OPTIONS)
        verdict, faults = soak(scene, arguments.seconds, arguments.seed, arguments.callers)
        if not verdict.good:
            tell(verdict, faults)
            if arguments.keep_logs is not None:
                arguments.keep_logs.mkdir(parents=True, exist_ok=True)
                for log in Path(folder).glob("*/*.log"):
                    (arguments.keep_logs / f"{log.parent.name}-{log.name}").write_bytes(log.read_bytes())
    print(f"{len(faults.done)} faults, {len(verdict.refused)} refused as not delivered")
    print(verdict, flush=True)
    return 0 if verdict.good else 1


def soak(scene: Scene, seconds: float, seed: int, callers: int) -> tuple[Verdict, Faults]:
    with scene:
        for node in scene.nodes:
            node.start("handlers.2")
        faults = Faults(scene, seed)
        with scene.load(MIXED, callers=callers, wait_s=WAIT_S, seed=seed) as load:
            ends_at = time.monotonic() + seconds
            while time.monotonic() < ends_at:
                faults.step()
            for way in scene.ways:
                way.node.wait_answer(f"{way.prefix}/pid")
        return scene.verdict(load), faults


def tell(verdict: Verdict, faults: Faults) -> None:
    for line in faults.done:
        print(line)
    for name in ("lost", "twice", "wrong"):
        for line in getattr(verdict, name)[:MAX_TOLD]:
            print(f"{name}: {line}")


if __name__ == "__main__":
    sys.exit(main())
