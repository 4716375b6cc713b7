"""What a forked child has of its own, and what it has no more."""

from __future__ import annotations

import subprocess
import sys

PYTHON = [sys.executable, "-W", "ignore", "-c"]
"""Newer ones warn of each fork where there are threads."""

PROGRAM = """
import os, signal, threading
from restpipe.host import loop

def told():
    raise AssertionError("the parent is told of its child's signal")

def fork():
    ready, tell = os.pipe()
    pid = os.fork()
    if not pid:
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)] == [signal.SIG_DFL] * 2
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        os.write(tell, b"x")
        signal.pause()
    os.close(tell)
    assert os.read(ready, 1) == b"x"
    os.kill(pid, signal.SIGTERM)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM

async def main():
    loop.on_signal(signal.SIGHUP, told)
    fork()
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()

loop.run(main(), on_stop=told)
"""


def test_a_signal_to_a_child_is_its_own() -> None:
    done = subprocess.run([*PYTHON, PROGRAM], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


CONNECTION = """
import os, socket, sys
from restpipe.host import forks

ours, theirs = socket.socketpair()
ready, tell = os.pipe()
with forks.own_connection(ours.fileno), forks.own_connection(lambda: -1):
    pid = os.fork()
    if not pid:
        os.read(ready, 1)
        os._exit(0)
ours.close()
theirs.settimeout(10)
assert theirs.recv(1) == b"", "the child keeps the connection open"
os.write(tell, b"x")
assert os.waitpid(pid, 0)[1] == 0
pid = os.fork()
if not pid:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_child_keeps_no_connection_open() -> None:
    done = subprocess.run([*PYTHON, CONNECTION], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


AT_ONCE = """
import os, signal
from restpipe.host import loop

def told():
    raise AssertionError("the parent is told of its child's signal")

async def main():
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    for _ in range(100):
        pid = os.fork()
        if not pid:
            signal.pause()
        os.kill(pid, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked

loop.run(main(), on_stop=told)
"""


def test_a_signal_that_comes_at_once_is_the_childs_too() -> None:
    done = subprocess.run([*PYTHON, AT_ONCE], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


RETURNING = """
import asyncio, os
from restpipe.host import loop

async def main():
    pid = os.fork()
    await asyncio.sleep(0)
    if not pid:
        print("the child goes on", flush=True)
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 1

loop.run(main())
"""


def test_a_child_does_not_go_on_in_the_loop_of_its_parent() -> None:
    done = subprocess.run([*PYTHON, RETURNING], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
