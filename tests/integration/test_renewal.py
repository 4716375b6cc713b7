"""New code in a handler worker, by a signal: nobody waits for it, and nothing under way is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import client_of
from tests.support.conditions import wait_for
from tests.support.identities import Authority
from tests.support.nodes import Pair

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
