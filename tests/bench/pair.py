"""Two checkouts by turns: requests a second, CPU time by process, and the ratio of the second to the first.

Each is a server with its client, run by the checkout's own `.venv`; events go from the server to the client.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.failures import BenchError, cause
from tests.bench.interrupts import ending_in_good_order
from tests.bench.markdown import table
from tests.bench.measuring import (
    IN_FLIGHT,
    Sample,
    Subject,
    cpu_text,
    failures,
    measure,
    median_rate,
    median_ratio,
    rate_ratio,
    warm_up,
)
from tests.support.processes import clean_environment

HERE = Path(__file__).parent
STOP_S = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pair", description=__doc__)
    parser.add_argument(
        "checkouts", nargs=2, type=Path, metavar="CHECKOUT", help="each with a .venv of its own"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load takes (default 3)")
    parser.add_argument(
        "--noun", default="atime", help="atime (default), an async method, or time, a plain one"
    )
    arguments = parser.parse_args()
    with ending_in_good_order("bench pair") as ending:
        compare(arguments.checkouts, arguments.noun, max(1, arguments.rounds), arguments.seconds)
    return ending.status


def compare(checkouts: Sequence[Path], noun: str, rounds: int, seconds: float) -> None:
    with contextlib.ExitStack() as stack:
        names = ("A", "B")
        a, b = (
            stack.enter_context(started(name, checkout.resolve(), noun))
            for name, checkout in zip(names, checkouts, strict=True)
        )
        for name, checkout in zip(names, checkouts, strict=True):
            print(f"{name}: {checkout.resolve()} at {commit(checkout)}")
        print(f"`{noun}`, {rounds} rounds of {seconds:g} s\n", flush=True)
        for subject in (a, b):
            warm_up(subject)
        show({n: [by_turns(a, b, n, seconds, number) for number in range(rounds)] for n in IN_FLIGHT})


def by_turns(a: Subject, b: Subject, in_flight: int, seconds: float, number: int) -> tuple[Sample, Sample]:
    """Who is first changes from round to round, so that a drift of the machine favours no subject."""
    if number % 2:
        later = measure(b, in_flight, seconds)
        return measure(a, in_flight, seconds), later
    return measure(a, in_flight, seconds), measure(b, in_flight, seconds)


def show(rounds: dict[int, list[tuple[Sample, Sample]]]) -> None:
    rows: list[list[str]] = []
    for in_flight, samples in rounds.items():
        a, b = ([both[side] for both in samples] for side in (0, 1))
        rows.append([f"A, {in_flight} in flight", *cells(a), "", ""])
        cpu = median_ratio(b, a, lambda sample: sample.total_us)
        rows.append([f"B, {in_flight} in flight", *cells(b), f"{rate_ratio(b, a):.2f}", f"{cpu:.2f}"])
    print(table(("", "req/s", "failed", "CPU us a request", "B/A req/s", "B/A CPU"), rows))


def cells(samples: Sequence[Sample]) -> list[str]:
    return [f"{median_rate(samples):.0f}", str(failures(samples)), cpu_text(samples)]


@contextlib.contextmanager
def started(name: str, checkout: Path, noun: str) -> Iterator[Subject]:
    """The pair of a checkout, which ends with the block."""
    process = launch(name, checkout)
    try:
        yield described(name, process, noun)
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """In good order, by the end of its input; all that it has started dies with it."""
    try:
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            process.communicate(timeout=STOP_S)
    finally:
        process.kill()
        process.wait()


def launch(name: str, checkout: Path) -> subprocess.Popen[str]:
    python = checkout / ".venv" / "bin" / "python"
    if not python.exists():
        raise BenchError(f"{name}: there is no {python} (make venv)")
    path = os.pathsep.join([str(checkout), str(checkout / "ca")])
    return subprocess.Popen(
        [str(python), "-P", str(HERE / "checkout.py"), str(checkout), str(HERE / "handlers")],
        cwd=checkout,
        env=clean_environment({"PYTHONPATH": path}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def described(name: str, process: subprocess.Popen[str], noun: str) -> Subject:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if not line:
        raise BenchError(f"{name} did not start: {cause(process.stderr.read())}")
    told = json.loads(line)
    return Subject(name, Path(told["socket"]), f"/client/{told['client']}/{noun}", told["pids"])


def commit(checkout: Path) -> str:
    """Its short name, and whether files differ from it."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "no commit"
    return "no commit"


if __name__ == "__main__":
    sys.exit(main())
