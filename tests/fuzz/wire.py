"""A hostile daemon at the other end of a link: connection, session, router and pool."""

from __future__ import annotations

from collections.abc import Iterator

from restpipe.daemon.channel import Channel
from restpipe.daemon.peers import Peer
from restpipe.daemon.pool import Worker
from restpipe.errors import Code, ProtocolError, Reset
from restpipe.protocol import frames
from restpipe.protocol.connection import Connection, Side
from restpipe.protocol.frames import Frame
from restpipe.protocol.messages import encode_goaway, encode_reset, read_message
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Event, Goaway, Hello, Reply, Welcome
from restpipe.protocol.session import Session
from tests.fuzz.target import Target
from tests.unit.daemon.kit import Bench, event, reply, taken

BUFFER = 1 << 16
ID = bytes(16)


class _End:
    """A daemon whose one peer sends what the fuzzer says."""

    def __init__(self, side: Side) -> None:
        self.bench = Bench(client=side is Side.DIALER)
        self.connection = Connection(side, heartbeat_s=5.0, handshake_s=10.0, now=self.bench.now)
        if side is Side.DIALER:
            self.connection.say_hello(ROLE_PIPE, buffer_size=BUFFER)
        self.peer: Peer | None = None
        self.worker: Worker = self.bench.worker(capacity=3)
        self.caller = self.bench.sender()
        self.bench.know("alpha", "10.0.0.1")
        self.bench.send(self.caller, *(event(number, "alpha", b"x") for number in (1, 3, 5, 7)))

    def take(self, data: bytes) -> None:
        connection, bench = self.connection, self.bench
        bench.now += 0.1
        streams = connection.receive(data, bench.now, 8)
        received, connection.link_frames = connection.link_frames, []
        for frame in received:
            self._link_frame(frame)
        peer = self.peer
        if peer is not None and peer.channel is not None and streams:
            bench.router.from_peer(peer, peer.channel, streams, bench.now)
        for opened in taken(self.worker):
            if opened.kind == frames.EVENT:
                bench.answer(self.worker, reply(opened.stream, b"answer", end=opened.stream % 4 == 0))
        taken(self.caller)
        connection.data_to_send(BUFFER)
        if bench.now >= connection.next_tick:
            connection.tick(bench.now)

    def _link_frame(self, frame: Frame) -> None:
        connection, bench = self.connection, self.bench
        if frame.kind == frames.HELLO:
            connection.accept(Session(ID, BUFFER), read_message(Hello(), frame), now=bench.now)
        elif frame.kind == frames.GOAWAY:
            read_message(Goaway(), frame)
        elif frame.kind == frames.TURN:
            frames.decode_turn(frame)
        if connection.session is not None and self.peer is None:
            self.peer = bench.server or bench.peers.add("alpha")
            assert self.peer is not None
            self.peer.joined(Channel(connection.session, connection.side, "alpha"), "10.0.0.1", 4000)
            bench.router.peer_joined(self.peer, bench.now)

    def leave(self) -> None:
        """Whatever came before, nothing is left once all have gone."""
        bench = self.bench
        for peer in bench.peers:
            bench.lose_peer(peer)
        bench.pass_time(3600)
        assert not self.worker.routes
        assert (self.worker.places, self.worker.replies) == (0, 0)
        assert not self.caller.routes
        assert bench.waiting == 0
        assert bench.router.waiting_size == 0


def check(data: bytes) -> None:
    how, stream = data[:2].ljust(2, b"\0"), data[2:]
    end = _End(Side.DIALER if how[0] % 2 else Side.LISTENER)
    size = how[1] + 1 if how[1] < 128 else 1 << 16
    try:
        for at in range(0, len(stream), size):
            end.take(stream[at : at + size])
        while end.connection.behind:
            end.take(b"")
    except ProtocolError as error:
        encode_goaway(error.code, error.detail)
    end.leave()


def _frames_of(first: bytes) -> Iterator[bytes]:
    head = Event(id=ID, verb="POST", target="/time", to="", timeout_ms=30_000).SerializeToString()
    answer = Reply(status=200).SerializeToString()
    yield first
    for number in (1, 2, 3, 4):
        yield frames.encode(frames.EVENT, number, head, b"body")
        yield frames.encode(frames.DATA, number, b"", b"more", flags=frames.END)
        yield frames.encode(frames.REPLY, number, answer, b"reply", flags=frames.END)
        yield frames.encode_credit(frames.WINDOW, number, 1000)
        yield encode_reset(number, Reset(Code.CANCELLED, "hung up"))
    for kind in (frames.PING, frames.PONG, frames.ACK):
        yield frames.encode_count(kind, 1)
    yield frames.encode_turn(1.0, 5.0)
    yield encode_goaway(Code.DRAINING, "the daemon stops")


def seeds() -> Iterator[bytes]:
    hello = Hello(major=1, role=ROLE_PIPE, software="x")
    again = Hello(major=1, role=ROLE_PIPE, session=ID, received=0)
    for greeting in (hello, again):
        yield b"\0\xff" + b"".join(_frames_of(frames.encode(frames.HELLO, head=greeting.SerializeToString())))
    welcome = Welcome(major=1, session=ID, software="x", name="alpha").SerializeToString()
    yield b"\1\x10" + b"".join(_frames_of(frames.encode(frames.WELCOME, head=welcome)))


TARGETS = {"wire": Target(check, seeds)}
