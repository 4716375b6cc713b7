"""What frames carry in their heads, and the names and addresses in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from google.protobuf.message import Message

from restpipe.daemon.peers import PeerTable, canonical_address
from restpipe.errors import ProtocolError
from restpipe.names import canonical, spellings
from restpipe.protocol import frames, schema_pb2
from restpipe.protocol.frames import Frame
from restpipe.protocol.messages import encode_reset, read_message, read_reset
from restpipe.transport.handshakes import network_of
from tests.fuzz.target import Target

_MESSAGES: tuple[type[Message], ...] = (
    schema_pb2.Event,
    schema_pb2.Reply,
    schema_pb2.Origin,
    schema_pb2.Hello,
    schema_pb2.Welcome,
    schema_pb2.Goaway,
    schema_pb2.Notice,
)
_PARSERS = (frames.decode_turn, frames.decode_count, frames.decode_credit)


def check(data: bytes) -> None:
    head, fixed = Frame(frames.RESET, 0, len(data), 1, data), Frame(frames.ACK, 0, 0, 1, data)
    for message in _MESSAGES:
        with contextlib.suppress(ProtocolError):
            read_message(message(), head)
    with contextlib.suppress(ProtocolError):
        encode_reset(1, read_reset(head))
    for parser in _PARSERS:
        with contextlib.suppress(ProtocolError):
            parser(fixed)
    check_name(data.decode("utf-8", "replace"))


def check_name(name: str) -> None:
    kept = canonical(name)
    assert canonical(kept) == kept == spellings(name)[0]
    peers = PeerTable(2, 2)
    assert peers.add(kept) is peers.get(name)
    address = canonical_address(name)
    assert address is None or canonical_address(address) == address
    network_of(name)


def seeds() -> Iterator[bytes]:
    yield schema_pb2.Event(id=bytes(16), verb="GET", target="/x", to="a", timeout_ms=1000).SerializeToString()
    yield schema_pb2.Reset(code=3, detail="x", names=("a", "b")).SerializeToString()
    yield schema_pb2.Hello(major=1, session=bytes(16), received=7, software="x").SerializeToString()
    yield schema_pb2.Notice(peer="a", peer_address="::1", attempts=1, since=1.5).SerializeToString()
    for name in ("WEB1.example.", "bücher.example", "spiffe://Example.org/A", "::ffff:10.0.0.1", "[::1]"):
        yield name.encode()
    yield bytes(8)


TARGETS = {"heads": Target(check, seeds)}
