"""New code in a handler worker, by a signal: nobody waits for it, and nothing under way is lost."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import client_of
from tests.support.conditions import wait_for
from tests.support.identities import Authority
from tests.support.nodes import Node, Pair
from tests.support.processes import clean_environment, runs

CODE = """
import os
import time
from restpipe import EventHandler

class Code(EventHandler):
    def get_version(self, ctx, post_data):
        return {version}

    def get_slow(self, ctx, post_data, flag, until):
        open(flag, "w").close()

        while not os.path.exists(until):
            time.sleep(0.01)
        return {version}
"""
SLOW_TO_LOAD = """

    def start_hook(self):
        with open({loading!r}, "w") as file:
            file.write(str(os.getpid()))
        while not os.path.exists({until!r}):
            time.sleep(0.01)
"""


@pytest.fixture
def pair(authority: Authority, folder: Path) -> Iterator[Pair]:
    (folder / "versions.py").write_text(CODE.format(version=1))
    options = {"handlers": {"path": str(folder), "event_class": "versions.Code"}}
    with Pair(folder, authority, server=options) as pair:
        yield _start(pair)


def _start(pair: Pair) -> Pair:
    pair.server.start()
    pair.client.start()
    pair.client.wait_answer("/server/version")
    return pair


def test_the_new_code_answers_and_the_old_finishes(pair: Pair, folder: Path) -> None:
    started, go = folder / "started", folder / "go"
    answers: list[int] = []

    def ask() -> None:
        with client_of(pair.client) as http:
            path = f"/server/slow//{str(started).replace('/', '%2F')}/{str(go).replace('/', '%2F')}"
            answers.append(http.get(path).json())

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(started.exists, "the slow event to be under way")
    (folder / "versions.py").write_text(CODE.format(version=2))
    old = pair.server.handlers.pid
    os.kill(old, signal.SIGHUP)
    with client_of(pair.client) as http:

        def version() -> int:
            # Every answer on the way is one, of the old code or of the new.
            response = http.get("/server/version")
            assert response.status_code == 200, response.text
            return int(response.json())

        wait_for(lambda: version() == 2, "the new code")
        assert pair.server.handlers.alive
        # systemd waits at a stop for the end of its own children only.
        assert [old] == pair.server.handlers.pids()
        go.touch()
        asking.join(30)
        assert answers == [1]
        pair.server.handlers.wait_end()
        assert http.get("/server/version").json() == 2
    notices = pair.server.handlers.notices
    assert any(line.startswith("MAINPID=") and line != f"MAINPID={old}" for line in notices)
    assert "STOPPING=1" not in notices


def test_code_that_cannot_be_loaded_changes_nothing(pair: Pair, folder: Path) -> None:
    (folder / "versions.py").write_text("import nowhere_to_be_found\n")
    os.kill(pair.server.handlers.pid, signal.SIGHUP)
    pair.server.handlers.wait_log("nowhere_to_be_found")
    pair.server.handlers.wait_log("the old goes on")
    with client_of(pair.client) as http:
        assert http.get("/server/version").json() == 1


class Slow:
    """Version 2, which is ready once `loaded` is called, and no sooner."""

    def __init__(self, folder: Path) -> None:
        self._loading, self._until = folder / "loading", folder / "until"
        more = SLOW_TO_LOAD.format(loading=str(self._loading), until=str(self._until))
        (folder / "versions.py").write_text(CODE.format(version=2) + more)

    def wait_loading(self) -> int:
        """The number of the process that loads it."""
        return int(wait_for(lambda: self._loading.exists() and self._loading.read_text(), "it to be loading"))

    def loaded(self) -> None:
        self._until.touch()


def limit_handlers(pair: Pair, *, load_timeout_s: float) -> None:
    pair.server.configure({"handlers": {"load_timeout_s": load_timeout_s}})
    pair.server.start("handlers")


def wait_version(pair: Pair, version: int) -> None:
    with client_of(pair.client) as http:

        def answers() -> bool:
            response = http.get("/server/version")
            assert response.status_code == 200, response.text
            return bool(response.json() == version)

        wait_for(answers, f"version {version}\n{pair.server.handlers.log_text()}")


def test_a_reload_that_comes_while_another_loads_is_not_lost(pair: Pair, folder: Path) -> None:
    slow = Slow(folder)
    handlers = pair.server.handlers
    handlers.send(signal.SIGHUP)
    slow.wait_loading()
    (folder / "versions.py").write_text(CODE.format(version=3))
    handlers.send(signal.SIGHUP)
    slow.loaded()
    wait_version(pair, 3)
    assert handlers.wait_end() == 0


def test_a_reload_reaches_whoever_has_taken_the_place(pair: Pair, folder: Path) -> None:
    """The old process has not finished yet, and is the one that is signalled."""
    started, go = folder / "started", folder / "go"

    def ask() -> None:
        with client_of(pair.client) as http:
            http.get(f"/server/slow//{str(started).replace('/', '%2F')}/{str(go).replace('/', '%2F')}")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        wait_for(started.exists, "the slow event to be under way")
        for version in (2, 3):
            (folder / "versions.py").write_text(CODE.format(version=version))
            pair.server.handlers.send(signal.SIGHUP)
            wait_version(pair, version)
            if version == 2:
                (folder / "versions.py").write_text("import nowhere_to_be_found\n")
                done = reload(pair.server)
                assert done.returncode == 1
                assert "the old goes on: it ended before it served" in done.stderr
        assert pair.server.handlers.alive
    finally:
        go.touch()
        asking.join(30)
    assert pair.server.handlers.wait_end() == 0


def test_code_that_never_loads_is_given_up_and_the_next_is_tried(pair: Pair, folder: Path) -> None:
    limit_handlers(pair, load_timeout_s=5.0)
    slow = Slow(folder)
    handlers = pair.server.handlers
    handlers.send(signal.SIGHUP)
    loading = slow.wait_loading()
    handlers.wait_log("the old goes on: it was not ready within 5 s")
    wait_for(lambda: not runs(loading), "it to be gone")
    wait_version(pair, 1)
    (folder / "versions.py").write_text(CODE.format(version=3))
    handlers.send(signal.SIGHUP)
    wait_version(pair, 3)


def test_new_code_does_not_wait_for_an_absent_daemon_for_ever(pair: Pair, folder: Path) -> None:
    limit_handlers(pair, load_timeout_s=1.0)
    pair.server.stop("pipe")
    (folder / "versions.py").write_text(CODE.format(version=2))
    pair.server.handlers.send(signal.SIGHUP)
    pair.server.handlers.wait_log("the old goes on: it was not ready within 1 s")
    pair.server.start("pipe")
    wait_version(pair, 1)


def test_a_stop_ends_what_is_still_loading(pair: Pair, folder: Path) -> None:
    slow = Slow(folder)
    pair.server.handlers.send(signal.SIGHUP)
    loading = slow.wait_loading()
    pair.server.handlers.send(signal.SIGTERM)
    assert pair.server.handlers.wait_end() == 0
    wait_for(lambda: not runs(loading), "it to be gone, too")


# Where nobody follows to another process, a worker begins anew in place.

HELD_STOP = """

    def stop_hook(self):
        open({stopping!r}, "w").close()
        while not os.path.exists({until!r}):
            time.sleep(0.01)
"""


@pytest.fixture
def in_place(authority: Authority, folder: Path) -> Iterator[Node]:
    """A server's handler worker alone, which has no service manager."""
    more = HELD_STOP.format(stopping=str(folder / "stopping"), until=str(folder / "until"))
    (folder / "versions.py").write_text(CODE.format(version=1) + more)
    options = {"handlers": {"path": str(folder), "event_class": "versions.Code"}}
    with Node("server", folder / "server", authority.server(), options) as node:
        node.prefix = ["env", "--unset=NOTIFY_SOCKET"]
        node.start("handlers")
        node.handlers.wait_log("answers events with")
        yield node


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_heard_while_a_worker_ends_to_begin_anew(
    in_place: Node, folder: Path, number: signal.Signals
) -> None:
    worker = in_place.handlers
    worker.send(signal.SIGHUP)
    wait_for((folder / "stopping").exists, "the stop hook")
    worker.send(number)
    (folder / "until").touch()
    assert worker.wait_end() == 0
    assert len(re.findall("answers events with", worker.log_text())) == 1


# The command that waits for the outcome.

HOLDS = """

    def start_hook(self):
        self.held = socket.socket(socket.AF_UNIX)
        self.held.bind({address!r})
        print("score", open("/proc/self/oom_score_adj").read(), flush=True)
"""


def reload(node: Node) -> subprocess.CompletedProcess[str]:
    """As systemd does."""
    command = [*node.command("handlers"), "--reload", str(node.handlers.pid)]
    folder = node.folder
    return subprocess.run(
        command, env=clean_environment(), cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_a_reload_says_that_the_new_code_serves(pair: Pair, folder: Path) -> None:
    more = HOLDS.format(address="\0" + str(folder))
    (folder / "versions.py").write_text("import socket\n" + CODE.format(version=2) + more)
    old = pair.server.handlers
    done = reload(pair.server)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"worker {old.pid}: the new code serves\n"
    wait_version(pair, 2)
    assert old.wait_end() == 0
    (pid,) = (line.removeprefix("MAINPID=") for line in old.notices if line.startswith("MAINPID="))
    own = score("self")
    # While it loaded, it would have gone first; now that it serves, no longer.
    assert f"score {min(1000, int(own) + 500)}" in old.log_text()
    wait_for(lambda: score(pid) == own, "the successor to be as the old was")


def score(process: str) -> str:
    return Path(f"/proc/{process}/oom_score_adj").read_text().strip()


def test_a_reload_says_that_the_new_code_does_not_serve(pair: Pair, folder: Path) -> None:
    more = HOLDS.format(address="\0" + str(folder))
    with socket.socket(socket.AF_UNIX) as held:
        held.bind("\0" + str(folder))
        (folder / "versions.py").write_text("import socket\n" + CODE.format(version=2) + more)
        done = reload(pair.server)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "restpipe: the new code is not used, the old goes on: it ended before it served"
    )
    assert "a restart in place of a reload" in done.stderr
    wait_version(pair, 1)


def test_a_reload_that_has_to_wait_for_another_is_told_of_its_own_code(pair: Pair, folder: Path) -> None:
    slow = Slow(folder)
    pair.server.handlers.send(signal.SIGHUP)
    slow.wait_loading()
    (folder / "versions.py").write_text("import nowhere_to_be_found\n")
    done: list[subprocess.CompletedProcess[str]] = []
    asking = threading.Thread(target=lambda: done.append(reload(pair.server)))
    asking.start()
    try:
        pair.server.handlers.wait_log("new code is being loaded already")
    finally:
        slow.loaded()
        asking.join(60)
    assert done[0].returncode == 1
    assert "the new code is not used, the old goes on: it ended before it served" in done[0].stderr
    wait_version(pair, 2)


def test_a_reload_in_place_says_no_more_than_is_known(in_place: Node, folder: Path) -> None:
    (folder / "until").touch()
    done = reload(in_place)
    said = "the new code can be loaded: the worker begins anew with it once it has finished its events"
    assert (done.returncode, done.stdout) == (0, f"worker {in_place.handlers.pid}: {said}\n")
    wait_for(
        lambda: len(re.findall("answers events with", in_place.handlers.log_text())) == 2, "the new code"
    )


def test_what_the_old_code_has_changed_does_not_reach_the_new(pair: Pair, folder: Path) -> None:
    changing = """
    def stop_hook(self): ...

    def get_change(self, ctx, post_data):
        os.chdir("/")
        os.environ.clear()
        return [os.environ.get("NOTIFY_SOCKET")]
"""
    (folder / "versions.py").write_text(CODE.format(version=1) + changing)
    assert reload(pair.server).returncode == 0
    pair.server.handlers.wait_end()
    (pid,) = (n.removeprefix("MAINPID=") for n in pair.server.handlers.notices if n.startswith("MAINPID="))
    with client_of(pair.client) as http:
        assert http.get("/server/change").json() == [None]
    (folder / "versions.py").write_text(CODE.format(version=2))
    os.kill(int(pid), signal.SIGHUP)
    wait_version(pair, 2)


def test_a_worker_that_is_not_there_cannot_be_reloaded(pair: Pair) -> None:
    pair.server.handlers.terminate()
    done = reload(pair.server)
    assert done.returncode == 1
    assert "cannot be asked to reload: [Errno 3]" in done.stderr
