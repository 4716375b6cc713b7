"""More than can be done: the excess is refused at once, the rest is answered in time, no memory piles up."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from tests.faults.flood import Flood
from tests.faults.scene import Scene
from tests.support import http
from tests.support.conditions import wait_for
from tests.support.processes import rss_bytes

MakeScene = Callable[..., Scene]

MIB = 1 << 20
THREADS = 4
WORK_S = 0.05
CALLERS = 1200
WAIT_S = 8.0
GRACE_S = 3.0


def test_ten_times_more_than_handlers_can_take(scene: MakeScene) -> None:
    with scene({"handlers": {"threads": THREADS}, "web": {"max_in_flight": 1000}}) as made:
        pids = {pid: f"{node.role} {part}" for node in made.nodes for pid, part in node.pids().items()}
        most: dict[str, int] = dict.fromkeys(pids.values(), 0)
        before = _latencies(made, 20)
        target = f"/client/{made.pair.client_name}/work//{WORK_S}"
        flood = Flood(made.server.sockets / "web.sock", target, callers=CALLERS, wait_s=WAIT_S, pause_s=0.2)
        with flood:

            def enough() -> bool:
                for pid, name in pids.items():
                    most[name] = max(most[name], rss_bytes(pid))
                return flood.count(200) >= 600

            wait_for(enough, "the handlers go on at their pace", timeout_s=90)
        answered = [response for response in flood.responses if response.status == 200]
        others = [response for response in flood.responses if response.status != 200]
        assert len(others) > len(answered)
        assert {response.status for response in others} == {503}
        assert all(int(response.retry_after) > 0 for response in others)
        assert max(response.seconds for response in answered) < WAIT_S + GRACE_S
        # Once the pace of the handlers is known, nobody waits in vain.
        refused = [response for response in others if response.problem == "overloaded"]
        assert len(refused) > 0.98 * len(others)
        assert median(response.seconds for response in refused) < 1.0
        assert max(most.values()) < 250 * MIB, most
        # The callers have hung up: what they had asked for is forgotten.
        hung_up = time.monotonic()
        wait_for(lambda: max(_latencies(made, 5)) < 20 * max(max(before), 0.01), "latency is back to normal")
        assert time.monotonic() - hung_up < 15


def _latencies(made: Scene, count: int) -> list[float]:
    found = []
    with http.client(made.server.sockets / "web.sock") as client:
        for _ in range(count):
            began = time.monotonic()
            client.get(f"/client/{made.pair.client_name}/pid")
            found.append(time.monotonic() - began)
    return found


def test_requests_that_wait_leave_others_as_quick_as_before(scene: MakeScene) -> None:
    """For a slow handler, and for a client that is away."""
    with scene({"handlers": {"concurrency": 600}}) as made:
        away = made.pair.new_client("client-2", {"pipe": {"heartbeat_interval_s": 1.0}})
        with away:
            away.start("pipe")
            made.server.pipe.wait_log("client-2 at .* is connected")
        path = made.server.sockets / "web.sock"
        before = sorted(_latencies(made, 50))
        targets = ("/client/client-1/item//x/1/50", "/client/client-2/item//x/1/0")
        for target in targets:
            with Flood(path, target, callers=500, wait_s=60) as flood:
                waiting = f"/client/client-1/item//probe-{target[8:16]}/1/0"
                with http.client(path) as client:
                    wait_for(lambda ask=client, to=waiting: ask.get(to).status_code == 200, "an answer")
                time.sleep(1.0)
                after = sorted(_latencies(made, 50))
            assert flood.responses == []
            assert after[25] < 5 * max(before[25], 0.005), (before[25], after[25])


def test_a_caller_that_stops_reading_pins_no_more_than_its_window(scene: MakeScene) -> None:
    with scene() as made:
        pids = {pid: f"{node.role} {part}" for node in made.nodes for pid, part in node.pids().items()}
        size = 50 * MIB
        wait_for(lambda: made.server.http.get("/client/client-1/pid").status == 200, "an answer")
        before = {pid: rss_bytes(pid) for pid in pids}
        readers = [http.connect(made.server.sockets / "web.sock") for _ in range(4)]
        try:
            for number, reader in enumerate(readers):
                target = f"/client/client-1/stream//slow-{number}/{size}"
                reader.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert reader.recv(9) == b"HTTP/1.1 "
            wait_for(_is_steady(list(pids)), "nothing grows any more")
            for pid, name in pids.items():
                # The handler worker has the whole contents; everybody else a window for each reader.
                if name != "client handlers":
                    assert rss_bytes(pid) - before[pid] < 40 * MIB, name
            assert made.server.http.get("/client/client-1/pid").status == 200
        finally:
            for reader in readers:
                reader.close()


def _is_steady(pids: list[int]) -> Callable[[], bool]:
    def steady() -> bool:
        before = sum(map(rss_bytes, pids))
        time.sleep(1.0)
        return abs(sum(map(rss_bytes, pids)) - before) < MIB

    return steady
