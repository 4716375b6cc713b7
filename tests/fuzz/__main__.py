"""`python -m tests.fuzz [--seconds S] [--jobs N] [TARGET...]`: each target for S seconds, N at once.

Ends with status 1 if anything is wrong, and says which input shows it: `python -m tests.fuzz.one TARGET FILE`
tries that again. Needs atheris.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import TARGETS

FOUND = Path("build/fuzz")
GRACE_S = 60.0
"""For imports, which are instrumented, and for the last input."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(sorted(TARGETS)))
    given = parser.parse_args(arguments)
    names = given.targets or sorted(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    FOUND.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        results = list(pool.map(lambda name: _fuzz(name, given.seconds), names))
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 0 if all(results) else 1


def _fuzz(name: str, seconds: int) -> bool:
    """Tell whether nothing was found."""
    with tempfile.TemporaryDirectory(prefix="restpipe-fuzz.") as corpus:
        for number, seed in enumerate(TARGETS[name].seeds()):
            Path(corpus, f"seed{number}").write_bytes(seed)
        limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=16384"]
        command = [sys.executable, "-m", "tests.fuzz.one", name]
        done = subprocess.run(
            [*command, *limits, f"-artifact_prefix={FOUND}/{name}-", corpus],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds + GRACE_S,
        )
    lines = done.stdout.splitlines()
    if done.returncode == 0:
        print(
            f"{name}: {next((line for line in lines if line.startswith('Done ')), 'nothing found')}",
            flush=True,
        )
        return True
    print(f"{name}: status {done.returncode}", *lines[-60:], sep="\n", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
