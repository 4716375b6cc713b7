"""Processes that die, restart and stand still under load: nothing is lost, and nobody is lied to."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tests.faults.scene import Scene
from tests.faults.test_links import all_answered
from tests.faults.workload import GET, LARGE_GET, POST, SLOW_GET, SLOW_POST, STREAMED_GET, Kind, Way, Workload
from tests.support.conditions import wait_for

MakeScene = Callable[..., Scene]

SIX = [(role, part) for role in ("server", "client") for part in ("pipe", "web", "handlers")]


@pytest.mark.parametrize(("role", "part"), SIX)
def test_killing_any_process_loses_nothing_but_what_is_told(scene: MakeScene, role: str, part: str) -> None:
    with scene() as made:
        node = getattr(made, role)
        with made.load(seed=5) as load:
            for _ in range(3):
                wait_for(load.more(30), "requests")
                made.kill(node, part)
            wait_for(load.more(30), "requests go on")
        verdict = made.verdict(load)
        assert verdict.good, f"{verdict}: {verdict.failed}"
        assert verdict.refused == []


@pytest.mark.parametrize(
    ("how", "kinds"),
    [(Scene.restart, [GET, GET, SLOW_GET, LARGE_GET, STREAMED_GET]), (Scene.kill, [GET, GET, SLOW_GET])],
    ids=["in good order", "killed"],
)
@pytest.mark.parametrize("role", ["server", "client"])
def test_no_get_fails_when_a_pipe_daemon_is_restarted(
    scene: MakeScene, role: str, how: Callable[[Scene, object, str], None], kinds: list[Kind]
) -> None:
    """Of long replies those that have begun break off with a daemon that is killed."""
    with scene() as made:
        with made.load(kinds, seed=6) as load:
            for _ in range(3):
                wait_for(load.more(30), "requests")
                how(made, getattr(made, role), "pipe")
            wait_for(load.more(30), "requests go on")
        all_answered(made.verdict(load))


@pytest.mark.parametrize("role", ["server", "client"])
def test_nothing_at_all_fails_when_a_pipe_daemon_stops_in_good_order(scene: MakeScene, role: str) -> None:
    """Not even what must not run twice: what is under way finishes, what comes is told to come again."""
    with scene() as made:
        with made.load(seed=7, pause_s=0.005) as load:
            for _ in range(3):
                wait_for(load.more(30), "requests")
                made.restart(getattr(made, role), "pipe")
            wait_for(load.more(30), "requests go on")
        all_answered(made.verdict(load))


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_daemon_that_stops_while_its_link_is_down_is_as_good_as_dead(scene: MakeScene, role: str) -> None:
    """What was under way then cannot be told apart from what has run: no worse than that is said."""
    with scene() as made:
        with made.load([GET, SLOW_GET, POST, SLOW_POST], seed=12) as load:
            wait_for(load.more(30), "requests")
            made.link.refuse()
            for node in made.nodes:
                node.pipe.wait_log("the link to .* is gone")
            made.restart(getattr(made, role), "pipe")
            made.link.heal()
            wait_for(load.more(50), "requests go on")
        verdict = made.verdict(load)
        assert verdict.good, f"{verdict}: {verdict.failed}"
        assert verdict.refused == []
        assert all(line.startswith("POST ") and " 502 outcome-unknown " in line for line in verdict.unknown)


def test_what_waits_in_a_daemon_that_stops_is_sent_again(scene: MakeScene) -> None:
    """It was not delivered, so even a POST may be; and the daemon does not wait for it to end."""
    with scene() as made:
        made.link.refuse()
        made.server.pipe.wait_log("the link to client-1 .* is gone")
        with Workload(made.ways[1:], [POST], callers=20) as load:
            wait_for(lambda: _nobody_new(load), "all wait for the client")
            made.restart(made.server, "pipe")
            assert "still under way" not in (made.server.folder / "pipe.log").read_text()
            made.link.heal()
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))


def test_what_waits_for_a_handler_in_a_daemon_that_stops_is_sent_again(scene: MakeScene) -> None:
    with scene() as made:
        made.client.stop("handlers")
        with Workload(made.ways[1:], [POST], callers=20) as load:
            wait_for(lambda: len(load.outcomes) == 20, "requests that wait")
            wait_for(lambda: _nobody_new(load), "all wait for a handler")
            made.restart(made.client, "pipe")
            assert "still under way" not in (made.client.folder / "pipe.log").read_text()
            made.client.start("handlers")
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))


def _nobody_new(load: Workload) -> bool:
    before = len(load.outcomes)
    time.sleep(0.5)
    return len(load.outcomes) == before


@pytest.mark.parametrize("role", ["server", "client"])
def test_handler_workers_are_replaced_one_by_one_and_nobody_notices(scene: MakeScene, role: str) -> None:
    with scene() as made:
        node = getattr(made, role)
        node.start("handlers.2")
        with made.load(seed=8, pause_s=0.005) as load:
            for part in ("handlers", "handlers.2") * 2:
                wait_for(load.more(30), "requests")
                made.restart(node, part)
            wait_for(load.more(30), "requests go on")
        all_answered(made.verdict(load))


@pytest.mark.parametrize("role", ["server", "client"])
def test_web_workers_are_replaced_under_load_and_nobody_notices(scene: MakeScene, role: str) -> None:
    """SIGHUP: new workers are started, the old ones finish what they have."""
    with scene({"web": {"workers": 2}}) as made:
        web = getattr(made, role).web
        with made.load(seed=9, pause_s=0.005) as load:
            for _ in range(3):
                before = set(web.pids())
                web.send(signal.SIGHUP)
                wait_for(lambda old=before: len(set(web.pids()) & old) == 1, "all workers are new")
                wait_for(load.more(30), "requests go on")
        all_answered(made.verdict(load))


@pytest.mark.parametrize(("role", "part"), SIX)
def test_a_process_that_stands_still_for_a_while(scene: MakeScene, role: str, part: str) -> None:
    """SIGSTOP: longer than its neighbours are patient. What hangs in it may take until it goes on again."""
    with scene() as made:
        node = getattr(made, role)
        (far,) = (way for way in made.ways if way.node is not node)
        with made.load(seed=10) as load:
            wait_for(load.more(30), "requests")
            node.processes[part].stop()
            if part == "pipe":
                far.node.pipe.wait_log("nothing heard for")
            elif part == "web":
                wait_for(load.more(200, far.node.role), "others go on all the while")
            else:
                wait_for(lambda: _nobody_is_free(far), "the worker is given nothing more")
                wait_for(load.more(200, node.role), "others go on all the while")
            node.processes[part].cont()
            wait_for(load.more(100), "requests go on")
        all_answered(made.verdict(load))


def _nobody_is_free(way: Way) -> bool:
    """What is with a worker that stands still would be told that its outcome is unknown."""
    answer = way.node.http.get(f"{way.prefix}/pid", {"Prefer": "wait=0.5"})
    return answer.status == 503 and answer.json["type"].endswith((":no-handler", ":overloaded"))


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_handler_worker_that_stands_still_for_too_long_is_given_up(scene: MakeScene, role: str) -> None:
    """As if it had died: what it had is told so, or sent again; it is back as soon as it goes on."""
    with scene() as made:
        node = getattr(made, role)
        with made.load([GET, SLOW_GET, POST, SLOW_POST], seed=11) as load:
            wait_for(load.more(30), "requests")
            with made.death(node, "handlers"):
                node.handlers.stop()
                node.pipe.wait_log("a handler worker has left: nothing heard for")
                node.handlers.cont()
            wait_for(load.more(100), "requests go on")
        verdict = made.verdict(load)
        assert verdict.good, f"{verdict}: {verdict.failed}"
        assert verdict.refused == []
        assert verdict.unknown, "it had something when it stood still"
        assert all(line.startswith("POST ") and " 502 outcome-unknown " in line for line in verdict.unknown)
