"""A child does not outlive its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

CHILD = """
import os, signal, sys
from restpipe.host.parent import die_with
die_with(int(sys.argv[1]))
print("ready", flush=True)
signal.pause()
"""

PARENT = f"""
import os, subprocess, sys, signal
subprocess.Popen([sys.executable, "-c", {CHILD!r}, str(os.getpid())], start_new_session=True)
signal.pause()
"""


def test_the_child_ends_when_the_parent_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        try:
            assert parent.stdout.readline() == b"ready\n"
        finally:
            parent.send_signal(signal.SIGKILL)
        # Only the child holds the other end now: the end of what can be read is the child's end.
        assert parent.stdout.read() == b""


def test_a_parent_that_is_gone_already_ends_it_at_once() -> None:
    command = [sys.executable, "-c", CHILD, str(os.getppid())]  # not the parent that it will have
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
