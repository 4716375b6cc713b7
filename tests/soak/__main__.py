"""Runs the soak and ends with one line; exit status 1 unless nothing was lost, run twice or falsified."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults.ledger import Verdict
from tests.faults.scene import Scene
from tests.faults.workload import MIXED
from tests.soak.faults import MAX_PAUSE_S, Faults
from tests.support.identities import Authority

WAIT_S = 20.0
LATE_S = 2.0 + MAX_PAUSE_S
"""How much later than its deadline an answer may begin: a web worker may stand still just then."""
LEAST_ANSWERED = 0.9
"""Part of all requests: a pipe that refuses or breaks all off has lost none, but is of no use."""
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
        verdict, faults, wrongs = soak(scene, arguments.seconds, arguments.seed, arguments.callers)
        if wrongs:
            tell(verdict, faults, wrongs)
            if arguments.keep_logs is not None:
                arguments.keep_logs.mkdir(parents=True, exist_ok=True)
                for log in Path(folder).glob("*/*.log"):
                    (arguments.keep_logs / f"{log.parent.name}-{log.name}").write_bytes(log.read_bytes())
    print(
        f"{len(faults.done)} faults; {verdict.answered} answered, {len(verdict.refused)} refused as not "
        f"delivered, {verdict.never_sent} more not even accepted; the slowest answer began after "
        f"{verdict.slowest_s:.1f} s (deadline {WAIT_S:g} s)"
    )
    print(verdict, flush=True)
    return 1 if wrongs else 0


def soak(scene: Scene, seconds: float, seed: int, callers: int) -> tuple[Verdict, Faults, list[str]]:
    """What came of it, what was done, and what was wrong with either."""
    wrongs: list[str] = []
    with scene:
        for node in scene.nodes:
            node.start("handlers.2")
        faults = Faults(scene, seed)
        with scene.load(MIXED, callers=callers, wait_s=WAIT_S, seed=seed) as load:
            try:
                ends_at = time.monotonic() + seconds
                while time.monotonic() < ends_at:
                    faults.step()
                for way in scene.ways:
                    way.node.wait_answer(f"{way.prefix}/pid")
            except Exception:
                # Whatever it was, what had come of all requests until then is told too.
                wrongs.append(traceback.format_exc())
        verdict = scene.verdict(load)
    return verdict, faults, wrongs + failings(verdict)


def failings(verdict: Verdict) -> list[str]:
    found = [] if verdict.good else [str(verdict)]
    if verdict.answered < LEAST_ANSWERED * verdict.sent or not verdict.sent:
        found.append(f"only {verdict.answered} of {verdict.sent} requests were answered")
    if verdict.slowest_s > WAIT_S + LATE_S:
        found.append(f"an answer began {verdict.slowest_s - WAIT_S:.1f} s after its deadline")
    return found


def tell(verdict: Verdict, faults: Faults, wrongs: list[str]) -> None:
    for line in (*faults.done, *wrongs):
        print(line)
    for name in ("lost", "twice", "wrong"):
        for line in getattr(verdict, name)[:MAX_TOLD]:
            print(f"{name}: {line}")


if __name__ == "__main__":
    sys.exit(main())
