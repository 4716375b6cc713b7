"""Configuration read anew by processes that run: no connection is dropped, no request fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import client_of
from tests.support.conditions import wait_for
from tests.support.identities import Authority
from tests.support.nodes import Pair, free_port


@pytest.fixture
def pair(authority: Authority, folder: Path) -> Iterator[Pair]:
    with Pair(folder, authority) as pair:
        yield pair.start()


def reload(pair: Pair, part: str, said: str) -> None:
    process = pair.server.processes[part]
    before = process.log_text().count(said)
    os.kill(process.pid, signal.SIGHUP)
    wait_for(lambda: process.log_text().count(said) > before, f"{said!r} in the log of {part}")


def test_the_daemon_goes_on_with_other_values(pair: Pair) -> None:
    port = free_port()
    pair.server.configure({"pipe": {"port": port, "max_clients": 1}})
    reload(pair, "pipe", "lists reloaded")
    log = pair.server.pipe.log_text()
    assert log.count("only after a restart: pipe.port") == 1
    pair.client.wait_answer("/server/time")
    # The link stayed: one session, begun once, and one client has room.
    assert log.count("is connected") == 1
    with pair.new_client("late") as late:
        late.start("pipe")
        wait_for(lambda: "1 clients are connected already" in pair.server.pipe.log_text(), "a refusal")
        pair.server.configure({"pipe": {"port": pair.port, "max_clients": 5}})
        reload(pair, "pipe", "lists reloaded")
        wait_for(lambda: "late at" in pair.server.pipe.log_text(), "the other to be let in")
    assert pair.server.pipe.log_text().count("only after a restart") == 1


def test_a_file_that_cannot_be_used_changes_nothing(pair: Pair) -> None:
    good = pair.server.config.read_text()
    pair.server.config.write_text(good + "\n[web]\nwait_s = 'soon'\n")
    reload(pair, "pipe", "not reloaded, going on as before")
    reload(pair, "web", "not reloaded, going on with the configuration as it was")
    for part in ("pipe", "web"):
        (line,) = (li for li in pair.server.processes[part].log_text().splitlines() if "not reloaded" in li)
        assert "wait_s must be a number" in line
    pair.client.wait_answer("/server/time")
    pair.server.wait_answer("/client/client-1/time")


def test_web_workers_come_anew_with_other_values(pair: Pair) -> None:
    with client_of(pair.server) as http:
        assert http.post("/client/client-1/cat", content=b"x" * 100).status_code != 413
        pair.server.configure({"web": {"max_body_bytes": 10}})
        os.kill(pair.server.web.pid, signal.SIGHUP)

        def refused() -> bool:
            return http.post("/client/client-1/cat", content=b"x" * 100).status_code == 413

        wait_for(refused, "the new limit")


def test_a_client_dials_where_it_is_told(pair: Pair) -> None:
    moved = free_port()
    pair.client.configure({"pipe": {"servers": [f"127.0.0.1:{moved}"]}, "log": {"debug": True}})
    os.kill(pair.client.pipe.pid, signal.SIGHUP)
    wait_for(lambda: "lists reloaded" in pair.client.pipe.log_text(), "a reload")
    pair.client.wait_answer("/server/time")
    pair.server.stop("pipe")
    # Told once as a warning, and again and again to whoever debugs.
    wait_for(lambda: " DEBUG " in pair.client.pipe.log_text(), "the mechanics")
    pair.server.configure({"pipe": {"port": moved}})
    pair.server.start("pipe")
    pair.client.wait_answer("/server/time")
