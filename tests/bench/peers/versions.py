"""Which versions a run has measured, and on what."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import restpipe
from tests.bench.peers.ssh import program
from tests.support.processes import CHECKOUT

OURS = ("uvloop", "gunicorn", "uvicorn", "uvicorn-worker", "httptools", "falcon", "protobuf", "cryptography")
PEERS = ("nats-py", "falcon", "gunicorn", "uvicorn", "uvicorn-worker", "uvloop", "httptools", "protobuf")
TOOLS = (("nats-server", "--version"), ("ssh", "-V"), ("h2load", "--version"), ("openssl", "version"))
ASKED = """
import sys
from importlib.metadata import version
for name in sys.argv[1:]:
    print(name, version(name))
"""


def heading(peers: Path, rounds: int, seconds: float) -> str:
    """Lines for the top of a report."""
    now = datetime.datetime.now(datetime.UTC)
    return "\n".join(
        (
            f"{now:%Y-%m-%d}, {rounds} rounds of {seconds:g} s a load, medians; {os.cpu_count()} cores, "
            f"Linux {platform.release()}, Python {platform.python_version()}",
            f"- RestPipe {restpipe.__version__} ({_commit()}) with {', '.join(map(_ours, OURS))}",
            f"- peers: {', '.join(_peers(peers))}",
            f"- {', '.join(_tool(*command) for command in TOOLS)}",
        )
    )


def _ours(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def _peers(peers: Path) -> list[str]:
    return _output(str(peers / "bin" / "python"), "-c", ASKED, *PEERS).splitlines()


def _tool(name: str, option: str) -> str:
    return _output(program(name), option).partition(",")[0].partition("(")[0].strip()


def _commit() -> str:
    return _output("git", "-C", str(CHECKOUT), "describe", "--always", "--dirty").strip()


def _output(*command: str) -> str:
    with contextlib.suppress(OSError):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout
    return ""
