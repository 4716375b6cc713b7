"""`make bench-peers`: RestPipe side by side with ssh -R, NATS and the least that could do the same.

All on this machine, in one run, by turns, the load included: ratios and CPU time mean something where
requests a second do not. Run it alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.failures import BenchError
from tests.bench.interrupts import ending_in_good_order
from tests.bench.peers import beside, bulk, events, handshakes
from tests.bench.peers.outcome import Outcome, Ratio, ratios_table
from tests.bench.peers.scene import Settings
from tests.bench.peers.ssh import program
from tests.bench.peers.versions import heading
from tests.support.processes import CHECKOUT

SECTIONS: Mapping[str, Callable[[Settings], Outcome]] = {
    "events": events.run,
    "bulk": bulk.run,
    "beside": beside.run,
    "handshakes": handshakes.run,
}
TOOLS = ("curl", "h2load", "nats-server", "openssl", "setpriv", "ssh", "ssh-keygen", "sshd")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    known = ", ".join(SECTIONS)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {known} (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load takes (default 3)")
    parser.add_argument("--peers", type=Path, default=CHECKOUT / ".venv" / "peers", help="their venv")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    settings = Settings(max(1, arguments.rounds), max(0.1, arguments.seconds), arguments.peers.absolute())
    with ending_in_good_order("bench peers") as ending:
        report(arguments.sections or list(SECTIONS), settings)
    return ending.status


def report(sections: Sequence[str], settings: Settings) -> None:
    check(settings)
    print(heading(settings.peers, settings.rounds, settings.seconds), flush=True)
    ratios: list[Ratio] = []
    for section in sections:
        outcome = SECTIONS[section](settings)
        for table in outcome.tables:
            print(f"\n{table}", flush=True)
        ratios += outcome.ratios
    print(f"\n{ratios_table(ratios)}")


def check(settings: Settings) -> None:
    for tool in TOOLS:
        program(tool)
    if not (settings.peers / "bin" / "gunicorn").exists():
        raise BenchError(f"the peers are not installed in {settings.peers} (make bench-peers)")


if __name__ == "__main__":
    sys.exit(main())
