"""The daemon that runs is found by its socket, and nobody else is signalled."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from restpipe.identity.running import reload
from tests.support.conditions import TIMEOUT_S

DAEMON = textwrap.dedent(
    """
    import os, signal, socket, sys
    # Not print: the signal may come while "up" is being printed.
    signal.signal(signal.SIGHUP, lambda *_: os.write(1, b"reloaded\\n"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        print("up", flush=True)
        sys.stdin.read()
    """
)


@pytest.mark.parametrize("words", [("/usr/bin/restpipe", "pipe"), ("something", "else")])
def test_only_a_daemon_is_told(short_path: Path, words: tuple[str, str]) -> None:
    address = short_path / "events.sock"
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(address), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "up\n"
        told = reload(address)
        if words[1] == "pipe":
            assert told == process.pid
            assert process.stdout.readline() == "reloaded\n"
        else:
            assert told is None
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(TIMEOUT_S) == 0


def test_nobody_runs(short_path: Path) -> None:
    assert reload(short_path / "events.sock") is None
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(short_path / "events.sock"))
    assert reload(short_path / "events.sock") is None
