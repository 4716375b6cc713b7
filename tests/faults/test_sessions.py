"""What a session may cost: how long it lives without a link, how many a peer has, how much waits in one."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.peer import SilentPeer
from tests.faults.scene import Scene
from tests.support import http
from tests.support.conditions import TIMEOUT_S, wait_for
from tests.support.http import Answer
from tests.support.identities import Authority
from tests.support.nodes import Node, free_port
from tests.support.processes import is_steady, rss_bytes

MakeScene = Callable[..., Scene]

MIB = 1 << 20
NAME = "client-1"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def post(pool: ThreadPoolExecutor, node: Node, target: str, wait_s: float = 600) -> Future[Answer]:
    """One request beside the test. Its deadline is far away."""
    headers = {"Prefer": f"wait={wait_s:g}"}
    return pool.submit(node.http.request, "POST", target, headers, b"x")


def told(answer: Answer) -> tuple[int, str, str]:
    document = answer.json
    return answer.status, document["type"].rpartition(":")[2], document["delivered"]


def test_a_session_without_a_link_ends_and_everybody_is_told(
    scene: MakeScene, pool: ThreadPoolExecutor
) -> None:
    with scene({"pipe": {"session_life_s": 1.0}}) as made:
        under_way = [
            post(pool, way.node, f"{way.prefix}/item//{way.node.role}-{number}/1/600")
            for way in made.ways
            for number in range(3)
        ]
        for node in made.nodes:
            for number in range(3):
                wait_for(lambda who=f"{node.role}-{number}": made.runs(who) == 1, "a handler runs")
        made.link.refuse()
        for node in made.nodes:
            node.pipe.wait_log("did not come back within 1 s; its session is given up")
        for request in under_way:
            assert told(request.result()) == (502, "outcome-unknown", "unknown")
        for way in made.ways:
            late = post(pool, way.node, f"{way.prefix}/item//late/1/0", wait_s=1).result()
            assert told(late) == (503, "unreachable", "no")
            assert late.headers["Retry-After"]
        made.link.heal()
        made.server.pipe.wait_log(f"{NAME} at .* is connected and begins a session")
        for way in made.ways:
            way.node.wait_answer(f"{way.prefix}/pid")
        assert made.runs("late") == 0


@pytest.mark.parametrize("role", ["server", "client"])
def test_what_outlasts_the_drain_of_the_other_side_is_answered_for_at_once(
    scene: MakeScene, pool: ThreadPoolExecutor, role: str
) -> None:
    with scene({"pipe": {"drain_timeout_s": 1.0}}) as made:
        node = getattr(made, role)
        (far,) = (way for way in made.ways if way.node is not node)
        under_way = post(pool, far.node, f"{far.prefix}/item//outlasts/1/600")
        wait_for(lambda: made.runs("outlasts") == 1, "a handler runs")
        node.pipe.send(signal.SIGTERM)
        far.node.pipe.wait_log("goes: the daemon stops")
        waiting = post(pool, far.node, f"{far.prefix}/item//waits/1")
        assert node.pipe.wait_end() == 0
        assert told(under_way.result(TIMEOUT_S)) == (502, "outcome-unknown", "unknown")
        assert not waiting.done()
        node.start("pipe")
        assert waiting.result(TIMEOUT_S).status == 200
        assert (made.runs("outlasts"), made.runs("waits")) == (1, 1)


@pytest.mark.parametrize("before", [False, True], ids=["it breaks meanwhile", "it is broken before"])
@pytest.mark.parametrize("role", ["server", "client"])
def test_a_link_that_breaks_as_a_daemon_stops_costs_no_event(
    scene: MakeScene, pool: ThreadPoolExecutor, role: str, before: bool
) -> None:
    """Not repeated, and not told as unknown, though it is none that may run twice."""
    with scene() as made:
        node = getattr(made, role)
        (far,) = (way for way in made.ways if way.node is not node)
        under_way = post(pool, far.node, f"{far.prefix}/item//goes-on/1/1.5")
        wait_for(lambda: made.runs("goes-on") == 1, "a handler runs")
        if before:
            made.link.refuse()
            node.pipe.wait_log("the link to .* is gone")
        node.pipe.send(signal.SIGTERM)
        if before:
            made.link.heal()
        else:
            far.node.pipe.wait_log("goes: the daemon stops")
            made.link.cut()
        assert under_way.result(TIMEOUT_S).status == 200
        assert node.pipe.wait_end() == 0
        assert made.runs("goes-on") == 1


class Server:
    """A server whose client is played by the test."""

    def __init__(self, folder: Path, authority: Authority, **pipe: float) -> None:
        self.port = free_port()
        self.identity = authority.client(NAME)
        self.node = Node("server", folder / "server", authority.server())
        self.node.configure(
            {"pipe": {"bind": "127.0.0.1", "port": self.port, "drain_timeout_s": 1.0, **pipe}}
        )

    @contextlib.contextmanager
    def started(self) -> Iterator[Node]:
        with self.node:
            yield self.node.start("pipe", "web")

    @contextlib.contextmanager
    def peer(self, former: SilentPeer | None = None) -> Iterator[SilentPeer]:
        """A link that stands; with the session of a former one, where the server agrees."""
        with SilentPeer(self.identity, self.port, former.session if former is not None else None) as peer:
            wait_for(lambda: peer.session, "the link stands")
            yield peer


def test_a_peer_has_one_session_and_what_was_in_the_one_before_is_answered_for(
    folder: Path, authority: Authority, pool: ThreadPoolExecutor
) -> None:
    server = Server(folder, authority)
    with server.started() as node:
        former = None
        for number in range(5):
            with server.peer() as peer:
                assert not peer.resumed
                request = post(pool, node, f"/client/{NAME}/item//{number}")
                wait_for(lambda at=peer: at.events == 1, "the event is with the peer")
            wait_for(lambda n=number: _breaks(node) == n + 1, "the link is missed")
            if former is not None:
                assert told(former.result()) == (502, "outcome-unknown", "unknown")
            assert not request.done()
            former = request
        with server.peer(peer) as again:
            assert again.resumed
            assert not request.done()
        wait_for(lambda: _breaks(node) == 6, "the link is missed")
        with server.peer():
            assert told(request.result()) == (502, "outcome-unknown", "unknown")
        wait_for(lambda: _breaks(node) == 7, "the link is missed")
        with server.peer(again) as too_late:
            assert not too_late.resumed


def _breaks(node: Node) -> int:
    return node.pipe.log_text().count(f"the link to {NAME}")


STREAMS = 48
BODY = 2 * MIB
BACKLOG = 4 * MIB
PINNED = 2 * BACKLOG
"""Far less than what was granted to the streams: past it, each that would have more wait is ended."""
ROOM = 24 * MIB
"""Beside it: what is sent and not acknowledged, the kernel's part, what memory falls into pieces by."""


def test_a_peer_that_stops_reading_pins_little_whatever_credit_it_gave(
    folder: Path, authority: Authority
) -> None:
    server = Server(folder, authority, heartbeat_interval_s=60.0, session_life_s=0.0, backlog_bytes=BACKLOG)
    with server.started() as node, server.peer() as peer, contextlib.ExitStack() as stack:
        callers = [stack.enter_context(http.connect(node.sockets / "web.sock")) for _ in range(STREAMS)]
        head = f"POST /client/{NAME}/item HTTP/1.1\r\nHost: x\r\nPrefer: wait=600\r\n"
        for caller in callers:
            caller.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n".encode())
        wait_for(lambda: peer.events == STREAMS, "all events are with the peer")
        before = rss_bytes(node.pipe.pid)
        peer.stop_reading()
        for caller in callers:
            caller.setblocking(False)
        rest = dict.fromkeys(callers, memoryview(f"{BODY:x}\r\n".encode() + bytes(BODY)))
        steady = is_steady([node.pipe.pid])

        def pushed() -> bool:
            for caller, data in rest.items():
                # Nothing more fits; or this one has been answered, and is no more listened to.
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    rest[caller] = data[caller.send(data) :] if data else data
            return steady() and refused()

        def refused() -> bool:
            probe = node.http.get(f"/client/{NAME}/pid", {"Prefer": "wait=1"})
            return told(probe) == (503, "overloaded", "no")

        wait_for(pushed, "nothing grows any more, and newcomers are refused")
        grown = rss_bytes(node.pipe.pid) - before
        print(f"\n{STREAMS} streams of 1 MiB each: the daemon has grown by {grown / MIB:.1f} MiB")
        assert grown < PINNED + ROOM
