"""A router with neighbours in memory: nothing moves but by the test's hand, and the clock is a number."""

from __future__ import annotations

from collections.abc import Callable

from restpipe.daemon.channel import Channel, Route, Waiting
from restpipe.daemon.peers import Peer, PeerTable
from restpipe.daemon.pool import HandlerPool, Worker
from restpipe.daemon.router import Limits, Router
from restpipe.errors import Code, Reset
from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.deadlines import Deadlines
from restpipe.protocol.frames import END, Frame, FrameDecoder
from restpipe.protocol.messages import encode_reset, read_message, read_reset
from restpipe.protocol.schema_pb2 import Event, Origin, Reply
from restpipe.protocol.session import Session

MAX_WAITING = 5
LIMITS = Limits(max_streams=50, backlog_bytes=1_000_000)
CANCELLED = Reset(Code.CANCELLED, "hung up")


def session() -> Session:
    return Session(bytes(16), 0)


def opener() -> Channel:
    """A neighbour that opens streams of odd numbers."""
    return Channel(session(), Side.LISTENER)


def taken(channel: Channel, budget: int = 1 << 30) -> list[Frame]:
    """What a neighbour is sent now."""
    return FrameDecoder().feed(b"".join(channel.session.take(budget)))


def frame(kind: int, stream: int, head: bytes = b"", body: bytes = b"", *, end: bool = False) -> Frame:
    return Frame(kind, END if end else 0, len(head), stream, head + body)


def event(
    stream: int, to: str = "", body: bytes = b"", *, timeout_s: float = 30.0, end: bool = True
) -> Frame:
    head = Event(id=bytes(16), verb="GET", target="/x", to=to, timeout_ms=int(timeout_s * 1000))
    return frame(frames.EVENT, stream, head.SerializeToString(), body, end=end)


def reply(stream: int, body: bytes = b"", *, end: bool = True) -> Frame:
    return frame(frames.REPLY, stream, Reply(status=200).SerializeToString(), body, end=end)


def data(stream: int, body: bytes = b"", *, end: bool = False) -> Frame:
    return frame(frames.DATA, stream, b"", body, end=end)


def reset(stream: int, why: Reset) -> Frame:
    (made,) = FrameDecoder().feed(encode_reset(stream, why))
    return made


def window(stream: int, credit: int = 1000) -> Frame:
    return frame(frames.WINDOW, stream, b"", credit.to_bytes(4, "big"))


def numbers(received: list[Frame]) -> list[int]:
    return [one.stream for one in received]


def resets(received: list[Frame]) -> list[Reset]:
    return [read_reset(one) for one in received if one.kind == frames.RESET]


def the_reset(channel: Channel) -> Reset:
    """The one reset that a neighbour is sent, and nothing else."""
    (one,) = taken(channel)
    assert one.kind == frames.RESET, one
    return read_reset(one)


def event_of(one: Frame) -> Event:
    return read_message(Event(), one)


def origin_of(one: Frame) -> Origin:
    return read_message(Origin(), one)


def waiting_route(number: int = 1) -> Route:
    """An event that waits, in no queue yet."""
    route = Route(opener(), number)
    route.waiting = Waiting(Event(timeout_ms=1000), event(number), b"", 0.0)
    return route


class Bench:
    """A router and the neighbours that the test adds."""

    def __init__(
        self, *, client: bool = False, limits: Limits = LIMITS, max_waiting: int = MAX_WAITING
    ) -> None:
        self.now = 100.0
        self.lookups: dict[str, Callable[[frozenset[str] | None, float], None]] = {}
        self.peers = PeerTable(100, max_waiting)
        self.pool = HandlerPool(max_waiting)
        self.deadlines: Deadlines[Route] = Deadlines()
        self.server = Peer("server", max_waiting) if client else None
        if self.server is not None:
            self.peers.put(self.server)
        self.router = Router(
            self.peers, self.pool, limits, self._look_up, self.deadlines.add, server=self.server
        )

    def _look_up(
        self, name: str, asker: Channel, answer: Callable[[frozenset[str] | None, float], None]
    ) -> None:
        self.lookups[name] = answer

    # Neighbours.

    def sender(self) -> Channel:
        return opener()

    def know(self, name: str, address: str = "") -> Peer:
        """A client that was connected once."""
        peer = self.peers.add(name)
        assert peer is not None
        peer.address = address
        return peer

    def join(self, name: str = "alpha", address: str = "10.0.0.1") -> tuple[Peer, Channel]:
        """A client's link comes up, with a new session or the one that it still has."""
        peer = self.server or self.peers.add(name)
        assert peer is not None
        channel = peer.channel or opener()
        peer.joined(channel, address, 4000)
        self.router.peer_joined(peer, self.now)
        return peer, channel

    def worker(self, capacity: int = 10) -> Worker:
        connection = Connection(Side.LISTENER, heartbeat_s=5.0, handshake_s=5.0, now=self.now)
        worker = Worker(session(), connection, capacity)
        self.pool.workers.add(worker)
        self.router.feed_workers(self.now)
        return worker

    # Moves.

    def send(self, sender: Channel, *received: Frame) -> None:
        self.router.from_sender(sender, list(received), self.now)

    def arrive(self, peer: Peer, *received: Frame) -> None:
        assert peer.channel is not None
        self.router.from_peer(peer, peer.channel, list(received), self.now)

    def answer(self, worker: Worker, *received: Frame) -> None:
        self.router.relay(worker, list(received), self.now)

    def pass_time(self, seconds: float) -> None:
        """The clock goes on; what is due is done, as the daemon's timer would do it."""
        until = self.now + seconds
        while (at := self.deadlines.next_at) is not None and at <= until:
            self.now = max(self.now, at)
            for route in self.deadlines.pop_due(self.now):
                self.router.give_up(route)
        self.now = until

    def lose_worker(self, worker: Worker) -> None:
        self.pool.workers.discard(worker)
        self.router.lose(worker, "the worker is gone", self.now)

    def lose_peer(self, peer: Peer) -> None:
        """Its session is given up."""
        channel, peer.channel = peer.channel, None
        peer.online = False
        if channel is not None:
            self.router.lose(channel, "the peer is gone", self.now)

    # What must be empty when all is over.

    @property
    def waiting(self) -> int:
        return len(self.pool.queue) + sum(len(peer.queue) for peer in self.peers)
