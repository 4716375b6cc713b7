"""Links that break in every way, under load: each request is answered, and each handler ran exactly once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.ledger import Verdict
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene
from tests.support.conditions import wait_for

MakeScene = Callable[..., Scene]


def all_answered(verdict: Verdict) -> None:
    assert verdict.failed == [], f"{verdict}: {verdict.failed}"
    assert verdict.answered == verdict.sent > 0
    assert verdict.never_sent == 0, "the socket was always there to take a connection"


@pytest.mark.parametrize("verb", [Proxy.cut, Proxy.reset, lambda proxy: proxy.truncate(5_000)])
def test_a_link_that_breaks_again_and_again_costs_nobody_anything(
    scene: MakeScene, verb: Callable[[Proxy], None]
) -> None:
    with scene() as made:
        with made.load(seed=1) as load:
            for _ in range(8):
                dialed = len(made.link.dialed)
                verb(made.link)
                wait_for(lambda n=dialed: len(made.link.dialed) > n, "the client dials again")
                wait_for(load.more(20), "requests go on")
        all_answered(made.verdict(load))


def test_a_link_that_hangs_is_found_from_both_ends(scene: MakeScene) -> None:
    """Nothing is closed and nothing passes: only heartbeats can tell. Both daemons let go of the link."""
    with scene() as made:
        with made.load(seed=2) as load:
            wait_for(load.more(20), "requests")
            made.link.hang()
            made.server.pipe.wait_log("nothing heard for")
            made.client.pipe.wait_log("nothing heard for")
            made.link.heal()
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))


def test_a_slow_and_narrow_link_only_takes_longer(scene: MakeScene) -> None:
    with scene() as made:
        with made.load(seed=3, callers=3) as load:
            made.link.delay_s = 0.2
            wait_for(load.more(30), "requests")
            made.link.delay_s = 0.0
            made.link.bytes_per_s = 300_000
            wait_for(load.more(30), "requests")
            made.link.heal()
        all_answered(made.verdict(load))


def test_a_link_that_is_away_for_a_while(scene: MakeScene) -> None:
    with scene() as made:
        with made.load(seed=4) as load:
            wait_for(load.more(20), "requests")
            made.link.refuse()
            tried = len(made.link.dialed)
            wait_for(lambda: len(made.link.dialed) > tried + 5, "the client tries again and again")
            made.link.heal()
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))


def test_connections_that_arrive_in_another_order(scene: MakeScene) -> None:
    """What the client has long given up reaches the server behind what came after it, and harms nobody."""
    with scene({"pipe": {"handshake_timeout_s": 1.0}}) as made:
        with made.load(seed=5) as load:
            for number in range(1, 4):
                wait_for(load.more(20), "requests")
                made.link.reorder()
                made.link.reset()
                wait_for(lambda n=number: made.link.overtaken >= n, "a connection is overtaken")
                wait_for(load.more(20), "requests go on")
                made.link.heal()
        all_answered(made.verdict(load))
