"""More than can be done: the excess is refused at once, the rest is answered in time, no memory piles up.

Nothing here is measured against a clock, which would prove nothing on a busy machine: what is quick is so
beside what the handlers do meanwhile. A minute of overload: `OVERLOAD_SECONDS=60 make faults`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
from collections import Counter
from collections.abc import Callable, Iterator
from statistics import median

from tests.faults.flood import Flood, Response
from tests.faults.scene import Scene
from tests.support import http
from tests.support.conditions import wait_for
from tests.support.processes import is_steady, rss_bytes

MakeScene = Callable[..., Scene]

MIB = 1 << 20
THREADS = 4
WORK_S = 0.1
ANSWERS_PER_S = THREADS / WORK_S
SECONDS = float(os.environ.get("OVERLOAD_SECONDS", "15"))
"""How long the handlers are at their limit at least: so many answers take no less."""
CALLERS = 1200
IN_FLIGHT = 1000
WAIT_S = 8.0
COLD_ANSWERS = 50
"""Of the handlers, before the daemon knows how fast they are."""
IN_VAIN = ("no-handler", "deadline")
"""What those are told who came before that, and stood too far behind in the line: the daemon's word, or the
web worker's own where that comes too late."""
MOST = 120 * MIB
"""A process may have so much, in a whole minute too."""
ROUNDS = 5


def test_ten_times_more_than_handlers_can_take(scene: MakeScene) -> None:
    with scene({"handlers": {"threads": THREADS}, "web": {"max_in_flight": IN_FLIGHT}}) as made:
        memory = Memory(made)
        target = f"/client/{made.pair.client_name}/work//{WORK_S}"
        path = made.server.sockets / "web.sock"
        with Flood(path, target, callers=CALLERS, wait_s=WAIT_S, pause_s=0.2) as flood:

            def enough() -> bool:
                memory.look()
                return flood.answered >= SECONDS * ANSWERS_PER_S

            wait_for(enough, "the handlers go on at their pace", timeout_s=60 + 5 * SECONDS)
        answered = [response for response in flood.responses if response.status == 200]
        refused = [response for response in flood.responses if response.problem == "overloaded"]
        in_vain = [response for response in flood.responses if response.problem in IN_VAIN]
        told = Counter((r.status, r.problem, r.delivered) for r in flood.responses)
        print(
            f"\n{flood.asked} asked, {len(answered)} answered in time, {len(refused)} refused at once, "
            f"{len(in_vain)} waited in vain; memory at most {memory}"
        )
        # What a handler has taken is answered by its deadline: nobody else is told anything but "not now".
        assert len(answered) + len(refused) + len(in_vain) == len(flood.responses), told
        assert all((r.status, r.delivered) == (503, "no") for r in refused), told
        assert all(int(r.retry_after) > 0 for r in refused)
        assert len(refused) >= 9 * len(answered), "ten times more than can be done"
        _refused_at_once(refused, answered)
        assert all(response.asked_at <= COLD_ANSWERS for response in in_vain)
        assert max(memory.most.values()) < MOST, str(memory)
        # The callers have hung up: what they had asked for is forgotten.
        assert any(_is_quick(made, "after") for _ in range(ROUNDS)), "latency is back to normal"


def _refused_at_once(refused: list[Response], answered: list[Response]) -> None:
    """Far sooner than those were answered who came at the same time and had to wait for it."""
    wait = median(response.answers_meanwhile for response in answered)
    waits = sorted(response.answers_meanwhile for response in refused)
    assert waits[len(waits) // 2] * 4 < wait
    assert waits[len(waits) * 98 // 100] < wait


class Memory:
    """The most that each process has had."""

    def __init__(self, made: Scene) -> None:
        self._pids = {pid: f"{node.role} {part}" for node in made.nodes for pid, part in node.pids().items()}
        self.most: dict[str, int] = dict.fromkeys(self._pids.values(), 0)

    def look(self) -> None:
        for pid, name in self._pids.items():
            self.most[name] = max(self.most[name], rss_bytes(pid))

    def __str__(self) -> str:
        return ", ".join(f"{name} {size // MIB} MiB" for name, size in self.most.items())


_numbers = itertools.count()


def _is_quick(made: Scene, name: str, *, count: int = 20, seconds: float = 2.0) -> bool:
    """Whether so many requests, one after the other, are all answered while a handler sleeps over another."""
    client, number = made.pair.client_name, f"slow-{name}-{next(_numbers)}"
    with http.connect(made.server.sockets / "web.sock") as slow:
        target = f"/client/{client}/item//{number}/1/{seconds:g}"
        slow.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        statuses = [made.server.http.get(f"/client/{client}/pid").status for _ in range(count)]
        quick = not select.select([slow], [], [], 0)[0]
        # However it went: the next round has an idle handler.
        answered = slow.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    return quick and answered and set(statuses) == {200}


def test_requests_that_wait_leave_others_as_quick_as_before(scene: MakeScene) -> None:
    """For a slow handler, and for a client that is away."""
    with scene({"handlers": {"concurrency": 600}}) as made:
        away = made.pair.new_client("client-2", {"pipe": {"heartbeat_interval_s": 1.0}})
        with away:
            away.start("pipe")
            made.server.pipe.wait_log("client-2 at .* is connected")
        path = made.server.sockets / "web.sock"
        with Flood(path, "/client/client-1/item//x/1/500", callers=500, wait_s=600) as flood:
            wait_for(lambda: made.runs("x") == 500, "all are with the handler")
            assert any(_is_quick(made, "500") for _ in range(ROUNDS))
        assert flood.responses == []
        with Flood(path, "/client/client-2/item//x/1/0", callers=500, wait_s=600) as flood:
            wait_for(lambda: flood.asked == 500, "all have asked")
            assert any(_is_quick(made, "away") for _ in range(ROUNDS))
        assert flood.responses == []


def test_a_caller_that_stops_reading_pins_no_more_than_its_window(scene: MakeScene) -> None:
    with scene() as made:
        pids = {pid: f"{node.role} {part}" for node in made.nodes for pid, part in node.pids().items()}
        size = 50 * MIB
        wait_for(lambda: made.server.http.get("/client/client-1/pid").status == 200, "an answer")
        before = {pid: rss_bytes(pid) for pid in pids}
        with _readers(made, size):
            wait_for(is_steady(list(pids)), "nothing grows any more")
            for pid, name in pids.items():
                # The handler worker has the whole contents; everybody else a window for each reader.
                if name != "client handlers":
                    assert rss_bytes(pid) - before[pid] < 40 * MIB, name
            assert made.server.http.get("/client/client-1/pid").status == 200


@contextlib.contextmanager
def _readers(made: Scene, size: int) -> Iterator[None]:
    """Four who ask for much, and read no more than the first of it."""
    with contextlib.ExitStack() as stack:
        for number in range(4):
            reader = stack.enter_context(http.connect(made.server.sockets / "web.sock"))
            target = f"/client/client-1/stream//slow-{number}/{size}"
            reader.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert reader.recv(9) == b"HTTP/1.1 "
        yield
