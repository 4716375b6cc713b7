"""A pair of one checkout, for as long as standard input is open. Says as a line of JSON where it is.

Run as a file by that checkout's own Python, and it imports nothing but what is in that checkout.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import restpipe
from tests.support.identities import Authority
from tests.support.nodes import Options, Pair


def main(checkout: str, handlers: str) -> int:
    if not Path(restpipe.__file__).is_relative_to(checkout):
        print(f"imports {restpipe.__file__} instead of what is in {checkout}", file=sys.stderr)
        return 1
    options: Options = {"handlers": {"path": handlers, "event_class": "timing.Timing"}}
    with (
        tempfile.TemporaryDirectory(prefix="rp-") as name,
        Pair(Path(name), Authority(Path(name)), options, options) as pair,
    ):
        pair.start()
        print(json.dumps(description(pair)), flush=True)
        sys.stdin.read()
    return 0


def description(pair: Pair) -> dict[str, object]:
    parts = [
        (node, part, process)
        for node in (pair.server, pair.client)
        for part, process in node.processes.items()
    ]
    return {
        "socket": str(pair.server.sockets / "web.sock"),
        "client": pair.client_name,
        "pids": {f"{node.role} {part}": process.pid for node, part, process in parts},
    }


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
