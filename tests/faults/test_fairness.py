"""What one client does, the others do not feel: neither one that is gone, nor one that means harm."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.peer import FloodingPeer, GreedyPeer
from tests.faults.scene import Scene
from tests.support.conditions import wait_for
from tests.support.processes import rss_bytes

MakeScene = Callable[..., Scene]

MIB = 1 << 20
THREADS = 8
BACKLOG = 4 * MIB
BUFFER = MIB
DOWNLOAD = 4 * MIB
QUICK_S = 5.0
"""A request that waits for others here waits for minutes."""


def _answered(made: Scene) -> None:
    """The good client's requests of a plain method are answered, each at once."""
    for number in range(20):
        answer = made.client.http.get("/server/work//0", {"Prefer": f"wait={QUICK_S:g}"})
        assert answer.status == 200, (number, answer)


def test_downloads_that_stand_still_leave_the_handlers_to_others(scene: MakeScene) -> None:
    """Their reader does not read, and then its host is gone: its session waits for minutes."""
    with scene({"handlers": {"threads": THREADS}}, proxied=False) as made:
        with GreedyPeer(made.pair.authority.client("client-2"), made.pair.port) as slow:
            wait_for(lambda: slow.session, "it is connected")
            slow.ask(f"/stream//slow/{DOWNLOAD}", 4 * THREADS)
            wait_for(lambda: slow.begun == 4 * THREADS, "all have begun")
            _answered(made)
        made.server.pipe.wait_log("the link to client-2 at .* is gone")
        _answered(made)


def test_uploads_that_stand_still_leave_handlers_to_others(scene: MakeScene) -> None:
    with scene({"handlers": {"threads": THREADS}}, proxied=False) as made:
        with GreedyPeer(made.pair.authority.client("client-2"), made.pair.port) as slow:
            wait_for(lambda: slow.session, "it is connected")
            slow.ask("/work//0", 4 * THREADS, end=False)
            _answered(made)
        made.server.pipe.wait_log("the link to client-2 at .* is gone")
        _answered(made)


def test_a_client_that_sends_and_does_not_read_costs_little_memory(scene: MakeScene) -> None:
    limits = {"pipe": {"backlog_bytes": BACKLOG, "session_buffer_bytes": BUFFER}}
    with scene(limits, proxied=False) as made:
        pid = made.server.pipe.pid
        before = most = rss_bytes(pid)
        with FloodingPeer(made.pair.authority.client("client-2"), made.pair.port, "/nothing") as hostile:

            def stopped() -> bool:
                nonlocal most
                most = max(most, rss_bytes(pid))
                return hostile.cut_off

            wait_for(lambda: hostile.sent > 1000, "it sends")
            _answered(made)
            # It is not read from, and so shows no sign of life.
            wait_for(stopped, "its link is given up", timeout_s=60)
            _answered(made)
        grown = most - before
        print(f"\n{hostile.sent} events were sent; the daemon grew by {grown / MIB:.0f} MiB")
        assert grown < 2 * BACKLOG + BUFFER + 32 * MIB
