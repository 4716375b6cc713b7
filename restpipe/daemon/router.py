"""Which link an event goes out on, and how its frames find their way.

No I/O: sessions are queues, time is passed in. An event has one `Route`, from the channel that opened it to
the channel that answers it. It is set up when the EVENT frame comes, after which frames pass by their fixed
part alone, and gone once the reply has ended or either side has reset it. Frames of a stream without a route
are late, and dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from restpipe.daemon import mechanics
from restpipe.daemon.channel import Channel
from restpipe.daemon.peers import Peer, PeerTable, canonical_address
from restpipe.daemon.pool import HandlerPool, Worker
from restpipe.daemon.waiting import Deadlines, WaitingLine, give_up_at
from restpipe.errors import Code, Delivered, ProtocolError, StreamReset
from restpipe.protocol import frames
from restpipe.protocol.frames import Frame, Kind
from restpipe.protocol.messages import encode_reset, read_message
from restpipe.protocol.schema_pb2 import Event
from restpipe.protocol.streams import INITIAL_CREDIT, MAX_CREDIT, SendQueue

Resolve = Callable[[str, Callable[[frozenset[str], float], None]], None]
"""Looks a host name up, then calls back with its addresses (none where there are none) and the time."""

_EVENT, _RESET, _WINDOW, _ORIGIN = Kind.EVENT, Kind.RESET, Kind.WINDOW, Kind.ORIGIN
"""Looking a member of an enumeration up takes longer than most of what is done with a frame."""
RELAYED = frozenset((Kind.REPLY, Kind.DATA, Kind.RESET, Kind.WINDOW))
SLACK = 65536
"""What may wait of one stream beyond its credit: frames that cost no credit."""

FULL = 2
"""Times `backlog_bytes`: past it, streams that were there before lose what waits of them."""
DEAF = 2 * FULL
"""Times `backlog_bytes`: past it, whoever still opens streams is cut off. Nobody who reads comes so far."""

STOPS = "the daemon stops"
TOO_MUCH_WAITS = "the events that wait here are too much already"

_log = logging.getLogger(__name__)


class Limits(NamedTuple):
    max_streams: int
    """Events under way with one neighbour."""
    backlog_bytes: int
    """Bytes that wait to be sent to one peer, or with events that wait; past it new events are refused."""


class Waiting:
    """What an event needs to go on later."""

    __slots__ = ("deadline", "event", "frame", "held", "held_size", "line", "origin", "size")

    def __init__(self, event: Event, frame: Frame, origin: bytes, now: float) -> None:
        self.event = event
        self.frame = frame
        self.origin = origin
        self.deadline = now + event.timeout_ms / 1000
        self.held: list[Frame] = []
        self.held_size = 0
        self.size = _size(frame)
        """Bytes of all its frames."""
        self.line: WaitingLine | None = None

    def hold(self, frame: Frame) -> int:
        """Keeps what follows the event; returns its bytes."""
        size = _size(frame)
        self.held.append(frame)
        self.held_size += size
        self.size += size
        return size

    def renewed(self, now: float) -> Frame:
        """The EVENT frame with the time that is left of its deadline."""
        # Never more than it was: the head must not grow beyond what a frame can carry.
        left_ms = max(1, int((self.deadline - now) * 1000))
        self.event.timeout_ms = min(self.event.timeout_ms, left_ms)
        head = self.event.SerializeToString()
        old = self.frame
        return Frame(old.kind, old.flags, len(head), old.stream, head + old.body)


def _size(frame: Frame) -> int:
    return frames.HEADER_SIZE + len(frame.payload)


class Route:
    """The way of one event."""

    __slots__ = ("answerer", "answerer_number", "opener", "opener_number", "waiting")

    def __init__(self, opener: Channel, number: int) -> None:
        self.opener = opener
        self.opener_number = number
        self.answerer: Channel | None = None
        self.answerer_number = 0
        self.waiting: Waiting | None = None
        opener.routes[number] = self

    @property
    def waits(self) -> bool:
        return self.waiting is not None


class Router:
    """Connects the channels of this daemon, event by event."""

    def __init__(
        self,
        peers: PeerTable,
        pool: HandlerPool,
        limits: Limits,
        resolve: Resolve,
        deadlines: Deadlines,
        *,
        server: Peer | None,
    ) -> None:
        self.deadlines = deadlines
        self._peers = peers
        self._pool = pool
        self.limits = limits
        """May be changed at any time, for events to come."""
        self._resolve = resolve
        self._server = server
        """On a client: whom every event is for."""
        self._draining = False
        self.debug = False
        """Tell in the log what becomes of each event. May be changed at any time."""
        self.waiting_size = 0
        """Bytes of all events that wait, for whomever."""

    # Frames.

    def from_sender(self, channel: Channel, received: list[Frame], now: float) -> None:
        """Stream frames of a web worker, in order. What it opens goes to a peer.

        `ProtocolError` when it opens far too much and reads nothing of what it is told.
        """
        for frame in received:
            if frame.kind == _EVENT:
                if self._may_open(channel, frame):
                    self._open_to_peer(channel, frame, now)
            else:
                self._relay(channel, frame, now)

    def from_peer(self, peer: Peer, channel: Channel, received: list[Frame], now: float) -> None:
        """Stream frames of another daemon, in order. What it opens goes to a handler worker.

        `ProtocolError` as for `from_sender`.
        """
        for frame in received:
            if frame.kind == _EVENT:
                if self._may_open(channel, frame):
                    self._open_to_worker(peer, channel, frame, now)
            else:
                self._relay(channel, frame, now)

    def relay(self, channel: Channel, received: list[Frame], now: float) -> None:
        """Stream frames of a neighbour that may open none, in order: a handler worker."""
        for frame in received:
            self._relay(channel, frame, now)

    def _may_open(self, channel: Channel, frame: Frame) -> bool:
        if not channel.may_open(frame.stream):
            _log.debug("an event on a stream that is taken, or not its opener's to take, was dropped")
            return False
        if channel.session.queue.size > DEAF * self.limits.backlog_bytes:
            # Each refusal is one more frame that waits: without end, for whoever reads none.
            raise ProtocolError(Code.FLOW_CONTROL, "it sends events without end, and does not read")
        if self._draining:
            self._turn_away(channel, frame, StreamReset(Code.DRAINING, STOPS, Delivered.NO))
            return False
        if len(channel.routes) >= self.limits.max_streams:
            reset = StreamReset(Code.OVERLOADED, "too many events are under way on this link", Delivered.NO)
            self._turn_away(channel, frame, reset)
            return False
        return True

    def _turn_away(self, channel: Channel, frame: Frame, reset: StreamReset) -> None:
        """Before it has a route."""
        if self.debug:
            mechanics.refused(channel, frame.stream, reset)
        _tell(channel, frame.stream, reset)

    def _relay(self, channel: Channel, frame: Frame, now: float) -> None:
        route = channel.routes.get(frame.stream)
        kind = frame.kind
        if route is None or kind not in RELAYED:
            return
        if channel is route.opener:
            if route.waiting is not None:
                self._hold(route, route.waiting, frame)
                return
            far, number = route.answerer, route.answerer_number
            over = kind == _RESET
        else:
            far, number = route.opener, route.opener_number
            over = kind == _RESET or (kind != _WINDOW and frame.ends)
        if far is None:
            return
        queue = far.session.queue
        # A reset overtakes what it makes pointless; it need not go where the event itself never went.
        if kind != _RESET or not queue.drop(number):
            far.session.send(number, frame.renumbered(number))
        if over:
            if self.debug:
                mechanics.ends(route, frame)
            self._close(route, now)
        elif queue.size > MAX_CREDIT:
            self._bound(route, queue, number, now)

    def _bound(self, route: Route, queue: SendQueue, number: int, now: float) -> None:
        """Ends a stream of which too much waits, or that would have too much wait of all streams together."""
        if queue.waiting(number) > MAX_CREDIT + SLACK:
            self._break(route, StreamReset(Code.FLOW_CONTROL, "more was sent than was granted"), now)
        elif queue.size > FULL * self.limits.backlog_bytes:
            self._break(route, StreamReset(Code.OVERLOADED, "too much waits to be sent"), now)

    def _hold(self, route: Route, waiting: Waiting, frame: Frame) -> None:
        """Keeps what follows an event that waits."""
        if frame.kind == _RESET:
            if self.debug:
                mechanics.ends(route, frame)
            self._stop_waiting(route, waiting)
            del route.opener.routes[route.opener_number]
            return
        self.waiting_size += waiting.hold(frame)
        if waiting.held_size > INITIAL_CREDIT + SLACK:
            self._refuse(route, Code.FLOW_CONTROL, "more was sent than was granted")
        elif self.waiting_size > FULL * self.limits.backlog_bytes:
            self._refuse(route, Code.OVERLOADED, TOO_MUCH_WAITS)

    # Opening.

    def _open_to_peer(self, channel: Channel, frame: Frame, now: float) -> None:
        route = Route(channel, frame.stream)
        server = self._server
        if server is not None and server.online and server.channel is not None:
            # A client's events are all for the same: this one need not be read.
            self._send_to_peer(route, server.channel, frame)
            return
        try:
            event = read_message(Event(), frame)
        except ProtocolError as fault:
            self._refuse(route, fault.code, fault.detail)
            return
        peer = server or self._peers.get(event.to)
        if peer is not None and peer.online and peer.channel is not None:
            self._send_to_peer(route, peer.channel, frame)
            return
        waiting = self._start_waiting(route, Waiting(event, frame, b"", now), now)
        if waiting is None:
            return
        if peer is not None:
            self._stand_in_line(route, waiting, peer.line)
        elif event.to:
            self._find_by_address(route, waiting, now)
        else:
            self._refuse(route, Code.BAD_REQUEST, "the event does not say which client it is for")

    def _open_to_worker(self, peer: Peer, channel: Channel, frame: Frame, now: float) -> None:
        route = Route(channel, frame.stream)
        worker = self._pool.pick(now)
        if worker is not None:
            self._send_to_worker(route, worker, peer.origin, frame)
            return
        try:
            event = read_message(Event(), frame)
        except ProtocolError as fault:
            self._refuse(route, fault.code, fault.detail)
            return
        line = self._pool.line
        if line.is_too_long(event.timeout_ms / 1000):
            self._refuse(route, Code.OVERLOADED, f"{len(line)} events wait for a handler worker already")
            return
        waiting = self._start_waiting(route, Waiting(event, frame, peer.origin, now), now)
        if waiting is not None:
            self._stand_in_line(route, waiting, line)

    def _send_to_peer(self, route: Route, channel: Channel, frame: Frame) -> None:
        if len(channel.routes) >= self.limits.max_streams:
            self._refuse(route, Code.OVERLOADED, "too many events are under way to this peer")
        elif channel.session.queue.size >= self.limits.backlog_bytes:
            self._refuse(route, Code.OVERLOADED, "too much waits to be sent to this peer")
        else:
            number = self._connect(route, channel)
            if self.debug:
                mechanics.goes(route, frame)
            channel.session.send(number, frame.renumbered(number))

    def _send_to_worker(self, route: Route, worker: Worker, origin: bytes, frame: Frame) -> None:
        number = self._connect(route, worker)
        if self.debug:
            mechanics.goes(route, frame)
        # In one piece: were the event taken back after its origin had left, that would stay there for ever.
        worker.session.send(number, frames.encode(_ORIGIN, number, origin) + frame.renumbered(number))

    def _connect(self, route: Route, answerer: Channel) -> int:
        number = answerer.new_number()
        route.answerer = answerer
        route.answerer_number = number
        answerer.routes[number] = route
        return number

    # Finding a client by where it is connected from.

    def _find_by_address(self, route: Route, waiting: Waiting, now: float) -> None:
        address = canonical_address(waiting.event.to)
        if address is not None:
            self._choose(route, waiting, self._peers.at((address,)), now)
            return

        def resolved(addresses: frozenset[str], later: float) -> None:
            if route.waiting is waiting:
                self._choose(route, waiting, self._peers.at(addresses), later)

        self._resolve(waiting.event.to, resolved)

    def _choose(self, route: Route, waiting: Waiting, matches: list[Peer], now: float) -> None:
        wanted = waiting.event.to
        if not matches:
            self._refuse(route, Code.UNKNOWN_PEER, f"no client has the name or the address {wanted!r}")
        elif len(matches) > 1:
            names = tuple(sorted(peer.name for peer in matches))
            self._refuse(route, Code.AMBIGUOUS_PEER, f"{wanted!r} could be {', '.join(names)}", names)
        elif matches[0].online:
            self._go_on_to_peer(route, matches[0], now)
        else:
            self._stand_in_line(route, waiting, matches[0].line)

    # Waiting.

    def _start_waiting(self, route: Route, waiting: Waiting, now: float) -> Waiting | None:
        """None when there is no room for it: it has been refused."""
        if self.waiting_size >= self.limits.backlog_bytes:
            self._refuse(route, Code.OVERLOADED, TOO_MUCH_WAITS)
            return None
        self.waiting_size += waiting.size
        route.waiting = waiting
        self.deadlines.add(give_up_at(now, waiting.deadline - now), route)
        return waiting

    def _stand_in_line(self, route: Route, waiting: Waiting, line: WaitingLine) -> None:
        if self._draining:
            self._refuse(route, Code.DRAINING, STOPS)
        elif line.full:
            self._refuse(route, Code.OVERLOADED, f"{line.limit} events wait already: {line.detail}")
        else:
            if self.debug:
                mechanics.waits(route, waiting.event, line.detail)
            waiting.line = line
            line.add(route)

    def _stop_waiting(self, route: Route, waiting: Waiting) -> None:
        route.waiting = None
        self.waiting_size -= waiting.size
        if waiting.line is not None:
            waiting.line.remove(route)

    def peer_joined(self, peer: Peer, now: float) -> None:
        """Its link is up: what waited for it goes on."""
        while peer.online and peer.line:
            self._go_on_to_peer(peer.line.pop(), peer, now)

    def _go_on_to_peer(self, route: Route, peer: Peer, now: float) -> None:
        waiting, channel = route.waiting, peer.channel
        if waiting is not None and channel is not None:
            self._stop_waiting(route, waiting)
            self._send_to_peer(route, channel, waiting.renewed(now))
            self._release(route, waiting, now)

    def feed_workers(self, now: float) -> None:
        """A worker has room: what waited for one goes on."""
        line = self._pool.line
        while line and (worker := self._pool.pick(now)) is not None:
            route = line.pop()
            line.moved(now)
            waiting = route.waiting
            if waiting is not None:
                self._stop_waiting(route, waiting)
                self._send_to_worker(route, worker, waiting.origin, waiting.renewed(now))
                self._release(route, waiting, now)
        while (last := line.hopeless(now)) is not None:
            self._refuse(last, Code.OVERLOADED, f"{len(line)} events wait for a handler worker already")

    def _release(self, route: Route, waiting: Waiting, now: float) -> None:
        for frame in waiting.held:
            self._relay(route.opener, frame, now)

    def drain(self) -> None:
        """Takes no new events from now on, and hands back those that wait."""
        self._draining = True
        for line in (self._pool.line, *(peer.line for peer in self._peers)):
            while line:
                self._refuse(line.pop(), Code.DRAINING, STOPS)

    def expire(self, now: float) -> None:
        """To be called when `deadlines.next_at` has come: tells those who waited in vain."""
        for route in self.deadlines.pop_due(now):
            line = route.waiting.line if route.waiting is not None else None
            code = line.code if line is not None else Code.UNREACHABLE
            self._refuse(
                route, code, line.detail if line is not None else "the name was not resolved in time"
            )

    # Ending.

    def _refuse(self, route: Route, code: Code, detail: str, names: tuple[str, ...] = ()) -> None:
        """Ends an event that has not left this daemon."""
        if route.waiting is not None:
            self._stop_waiting(route, route.waiting)
        del route.opener.routes[route.opener_number]
        reset = StreamReset(code, detail, Delivered.NO, names)
        if self.debug:
            mechanics.refused(route.opener, route.opener_number, reset)
        _tell(route.opener, route.opener_number, reset)

    def _close(self, route: Route, now: float) -> None:
        route.opener.routes.pop(route.opener_number, None)
        answerer = route.answerer
        if answerer is not None:
            answerer.routes.pop(route.answerer_number, None)
            if isinstance(answerer, Worker) and self._pool.line:
                self.feed_workers(now)

    def _break(self, route: Route, reset: StreamReset, now: float) -> None:
        if self.debug:
            mechanics.breaks(route, reset)
        _tell(route.opener, route.opener_number, reset)
        if route.answerer is not None:
            _tell(route.answerer, route.answerer_number, reset)
        self._close(route, now)

    def lose(self, channel: Channel, detail: str, now: float) -> None:
        """A neighbour is gone for good, and with it every event that it opened or was to answer."""
        for route in list(channel.routes.values()):
            if self.debug:
                mechanics.lost(route, channel, detail)
            if channel is not route.opener:
                self._lose_answerer(route, channel, detail)
            elif route.waiting is not None:
                self._stop_waiting(route, route.waiting)
            elif route.answerer is not None:
                _tell(route.answerer, route.answerer_number, StreamReset(Code.CANCELLED, detail))
            self._close(route, now)

    def _lose_answerer(self, route: Route, answerer: Channel, detail: str) -> None:
        if answerer.session.queue.holds_opening(route.answerer_number):
            reset = StreamReset(Code.DRAINING, detail, Delivered.NO)
        else:
            reset = StreamReset(Code.OUTCOME_UNKNOWN, detail, Delivered.UNKNOWN)
        _tell(route.opener, route.opener_number, reset)


def _tell(channel: Channel, number: int, reset: StreamReset) -> None:
    """Resets a stream towards one of its sides, unless that side has never heard of it."""
    if not channel.session.queue.drop(number):
        channel.session.send(number, encode_reset(number, reset))
