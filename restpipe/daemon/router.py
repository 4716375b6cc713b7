"""Which link an event goes out on, and how its frames find their way.

No I/O: sessions are queues, time is passed in. An event has one `Route`, from the channel that opened it to
the channel that answers it. The route is set up when the EVENT frame comes, after which frames pass by their
fixed part alone, and it is gone once the reply has ended or either side has reset the event. Frames of a
stream without a route are late, and dropped. An event that is refused has no route.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from restpipe.daemon import mechanics
from restpipe.daemon.channel import NOTHING, PLACE, REPLYING, Channel, Route, Waiting
from restpipe.daemon.peers import Peer, PeerTable, canonical_address
from restpipe.daemon.pool import HandlerPool, Worker
from restpipe.daemon.waiting import WaitingQueue, give_up_at
from restpipe.errors import Code, Delivered, ProtocolError, Reset
from restpipe.protocol.frames import END, EVENT, HEADER, HEADER_SIZE, ORIGIN, REPLY, RESET, WINDOW, Frame
from restpipe.protocol.messages import encode_reset, read_message
from restpipe.protocol.schema_pb2 import Event
from restpipe.protocol.shares import may_take
from restpipe.protocol.streams import FRAME_COST, INITIAL_CREDIT, MAX_CREDIT

Resolve = Callable[[str, Channel, Callable[[frozenset[str] | Reset, float], None]], None]
"""Looks a host name up for a channel; calls back with its addresses, or why nobody can tell, and the time."""

SLACK: Final = 65536
"""Bytes of one stream that may wait beyond its credit: frames that cost no credit."""
FULL: Final = 2
"""Times `backlog_bytes` that may wait for a neighbour in all. Beyond it, streams in flight are reset."""
MAX_REFUSALS: Final = 8192
"""Refusals that may wait for a neighbour, beside a RESET of each stream, while it goes on opening events. Its
link stops reading from it long before.
"""

STOPS: Final = "the daemon stops"
TOO_MUCH_WAITS: Final = "the events that wait here are too much already"

_log = logging.getLogger(__name__)


class Limits(NamedTuple):
    max_streams: int
    """Events in flight with one neighbour."""
    backlog_bytes: int
    """Bytes that wait to be sent to one peer, or with events that wait; beyond it new events are refused."""


class Router:
    """Connects the channels of this daemon, event by event."""

    def __init__(
        self,
        peers: PeerTable,
        pool: HandlerPool,
        limits: Limits,
        resolve: Resolve,
        add_deadline: Callable[[float, Route], object],
        *,
        server: Peer | None,
    ) -> None:
        self.limits = limits
        """May be changed at any time, for events to come."""
        self.debug = False
        """Log what becomes of each event. May be changed at any time."""
        self.waiting_size = 0
        """Bytes of memory that all waiting events cost."""
        self._peers = peers
        self._pool = pool
        self._resolve = resolve
        self._add_deadline = add_deadline
        """Has `give_up` called for a route at some moment, if the route still waits then."""
        self._server = server
        """On a client: the peer that all events are for."""
        self._draining = False

    # Frames.

    def from_sender(self, channel: Channel, received: list[Frame], now: float) -> None:
        """Take stream frames of a web worker, in order. The events that it opens go to peers.

        Raises `ProtocolError` if it opens far too many and reads none of the refusals.
        """
        for frame in received:
            if frame.kind != EVENT:
                self._relay(channel, frame, now)
            elif self._may_open(channel, frame.stream):
                self._open_to_peer(channel, frame, now)

    def from_peer(self, peer: Peer, channel: Channel, received: list[Frame], now: float) -> None:
        """Take stream frames of another daemon, in order. The events that it opens go to handler workers.

        Raises `ProtocolError` as `from_sender` does.
        """
        for frame in received:
            if frame.kind != EVENT:
                self._relay(channel, frame, now)
            elif self._may_open(channel, frame.stream):
                self._open_to_worker(peer, channel, frame, now)

    def relay(self, channel: Channel, received: list[Frame], now: float) -> None:
        """Take stream frames of a handler worker, in order. It may open no events."""
        for frame in received:
            self._relay(channel, frame, now)

    def _relay(self, channel: Channel, frame: Frame, now: float) -> None:
        kind = frame.kind
        route = channel.routes.get(frame.stream)
        if route is None or kind < REPLY or kind > WINDOW:
            return
        if channel is route.opener:
            if route.waiting is not None:
                self._hold(route, route.waiting, frame)
                return
            far, number = route.answerer, route.answerer_number
            over = kind == RESET
        else:
            far, number = route.opener, route.opener_number
            over = kind == RESET or (frame.flags & END != 0 and kind != WINDOW)
            if kind == REPLY and not over and route.holds == PLACE:
                self._begin_reply(route, now)
        if far is None:
            return
        queue = far.session.queue
        if kind == RESET:
            # A reset overtakes what it makes pointless; it need not go where the event itself never went.
            if not queue.drop(number):
                far.session.send(number, frame.renumbered(number))
        elif queue.size > MAX_CREDIT and self._is_full(far, frame):
            self._break(route, Reset(Code.OVERLOADED, "too much waits to be sent"), now)
            return
        else:
            far.session.send(number, frame.renumbered(number))
        if over:
            if self.debug:
                mechanics.ends(route, frame)
            self._close(route, now)
        elif queue.size > MAX_CREDIT and queue.waiting(number) > MAX_CREDIT + SLACK:
            self._break(route, Reset(Code.FLOW_CONTROL, "more was sent than was granted"), now)

    def _is_full(self, channel: Channel, frame: Frame) -> bool:
        """Tell whether no frame of a stream in flight may wait there any more."""
        size = HEADER_SIZE + len(frame.payload) + FRAME_COST
        return channel.session.queue.size + size > FULL * self.limits.backlog_bytes

    def _begin_reply(self, route: Route, now: float) -> None:
        """The handler has done its work, or enough of it for a reply: its place is free for another event."""
        route.go_on(REPLYING)
        if self._pool.queue.count:
            self.feed_workers(now)

    def _hold(self, route: Route, waiting: Waiting, frame: Frame) -> None:
        """Keep a frame that follows an event that waits."""
        if frame.kind == RESET:
            if self.debug:
                mechanics.ends(route, frame)
            self._stop_waiting(route, waiting)
            del route.opener.routes[route.opener_number]
            return
        cost = waiting.hold(frame)
        self.waiting_size += cost
        route.opener.waiting_size += cost
        if waiting.held_size > INITIAL_CREDIT + SLACK:
            self._refuse(route, Code.FLOW_CONTROL, "more was sent than was granted")
        elif not may_take(route.opener.waiting_size, FULL * self.limits.backlog_bytes - self.waiting_size):
            self._refuse(route, Code.OVERLOADED, TOO_MUCH_WAITS)

    # Opening.

    def _may_open(self, channel: Channel, number: int) -> bool:
        if number in channel.routes or number % 2 == channel.next_number % 2:
            _log.debug("an event on a stream that is taken, or not its opener's to take, was dropped")
            return False
        queue, limits = channel.session.queue, self.limits
        if queue.resets > MAX_REFUSALS + limits.max_streams:
            # Each refusal is one more frame that waits, without bound if the neighbour does not read.
            raise ProtocolError(Code.FLOW_CONTROL, "it sends events without end, and does not read")
        if self._draining:
            self._turn_away(channel, number, Code.DRAINING, STOPS)
        elif len(channel.routes) >= limits.max_streams:
            self._turn_away(channel, number, Code.OVERLOADED, "too many events are in flight on this link")
        elif queue.size > FULL * limits.backlog_bytes:
            self._turn_away(channel, number, Code.OVERLOADED, "too much waits to be sent on this link")
        else:
            return True
        return False

    def _open_to_peer(self, opener: Channel, frame: Frame, now: float) -> None:
        peer = self._server
        event: Event | None = None
        if peer is None:
            event = self._read(opener, frame)
            if event is None:
                return
            peer = self._peers.get(event.to)
        # A client's events are all for the same peer: they need not be read.
        if peer is not None and peer.online and peer.channel is not None:
            full = self._full_for(peer.channel)
            if full:
                self._turn_away(opener, frame.stream, Code.OVERLOADED, full)
            else:
                self._send_to_peer(Route(opener, frame.stream), peer.channel, frame)
            return
        event = event or self._read(opener, frame)
        if event is None:
            return
        if peer is not None:
            self._open_waiting(opener, Waiting(event, frame, b"", now), peer.queue, now)
        elif event.to:
            self._find_by_address(opener, Waiting(event, frame, b"", now), now)
        else:
            no_name = "the event does not say which client it is for"
            self._turn_away(opener, frame.stream, Code.BAD_REQUEST, no_name)

    def _open_to_worker(self, peer: Peer, opener: Channel, frame: Frame, now: float) -> None:
        worker = self._pool.pick(opener, now, whole=frame.flags & END != 0)
        if worker is not None:
            self._send_to_worker(Route(opener, frame.stream), worker, peer.origin, frame)
            return
        event = self._read(opener, frame)
        if event is None:
            return
        queue = self._pool.queue
        if queue.is_too_long(opener, event.timeout_ms / 1000):
            self._turn_away(opener, frame.stream, Code.OVERLOADED, self._too_long())
        else:
            self._open_waiting(opener, Waiting(event, frame, peer.origin, now), queue, now)

    def _read(self, opener: Channel, frame: Frame) -> Event | None:
        """Return the event of a frame. None if it cannot be read: it has been refused."""
        try:
            return read_message(Event(), frame)
        except ProtocolError as fault:
            self._turn_away(opener, frame.stream, fault.code, fault.detail)
            return None

    def _full_for(self, channel: Channel) -> str:
        """Return why this peer may be sent no new event, empty if it may."""
        if len(channel.routes) >= self.limits.max_streams:
            return "too many events are in flight to this peer"
        if channel.session.queue.size >= self.limits.backlog_bytes:
            return "too much waits to be sent to this peer"
        return ""

    def _too_long(self) -> str:
        return f"{len(self._pool.queue)} events wait for a handler worker already"

    def _send_to_peer(self, route: Route, channel: Channel, frame: Frame) -> None:
        number = route.connect(channel)
        if self.debug:
            mechanics.goes(route, frame)
        channel.session.send(number, frame.renumbered(number))

    def _send_to_worker(self, route: Route, worker: Worker, origin: bytes, frame: Frame) -> None:
        number = route.connect(worker, PLACE)
        if self.debug:
            mechanics.goes(route, frame)
        # In one piece: if the event were taken back after its origin had left, that would stay there forever.
        header = HEADER.pack(ORIGIN, 0, len(origin), 0, number)
        worker.session.send(number, b"".join((header, origin, frame.renumbered(number))))

    # Finding a client by its address.

    def _find_by_address(self, opener: Channel, waiting: Waiting, now: float) -> None:
        route = self._start_waiting(opener, waiting, now)
        if route is None:
            return
        address = canonical_address(waiting.event.to)
        if address is not None:
            self._choose(route, waiting, self._peers.at((address,)), now)
        else:
            self._resolve(waiting.event.to, opener, partial(self._resolved, route, waiting))

    def _resolved(self, route: Route, waiting: Waiting, found: frozenset[str] | Reset, now: float) -> None:
        if route.waiting is not waiting:
            return
        if isinstance(found, Reset):
            self._refuse(route, found.code, found.detail)
        else:
            self._choose(route, waiting, self._peers.at(found), now)

    def _choose(self, route: Route, waiting: Waiting, matches: list[Peer], now: float) -> None:
        wanted = waiting.event.to
        if not matches:
            self._refuse(route, Code.UNKNOWN_PEER, f"no client has the name or the address {wanted!r}")
        elif len(matches) > 1:
            names = tuple(sorted(peer.name for peer in matches))
            self._refuse(route, Code.AMBIGUOUS_PEER, f"{wanted!r} could be {', '.join(names)}", names)
        elif matches[0].online:
            self._go_on_to_peer(route, matches[0], now)
        elif self._draining:
            self._refuse(route, Code.DRAINING, STOPS)
        elif self._make_room(route.opener, matches[0].queue):
            self._enqueue(route, waiting, matches[0].queue)
        else:
            self._refuse(route, Code.OVERLOADED, _full(matches[0].queue))

    # Waiting.

    def _open_waiting(
        self, opener: Channel, waiting: Waiting, queue: WaitingQueue[Channel, Route], now: float
    ) -> None:
        # Its memory first: no other's event may be displaced for one that is refused then.
        if self._has_memory(opener) and not self._make_room(opener, queue):
            self._turn_away(opener, waiting.frame.stream, Code.OVERLOADED, _full(queue))
            return
        route = self._start_waiting(opener, waiting, now)
        if route is not None:
            self._enqueue(route, waiting, queue)

    def _make_room(self, opener: Channel, queue: WaitingQueue[Channel, Route]) -> bool:
        """Tell whether an event of this opener may wait there. Another may have been refused for it."""
        if not queue.full:
            return True
        displaced = queue.displace(opener)
        if displaced is None:
            return False
        self._refuse(displaced, Code.OVERLOADED, _full(queue))
        return True

    def _start_waiting(self, opener: Channel, waiting: Waiting, now: float) -> Route | None:
        """Return the route of an event that waits. None if there is no room: the event has been refused."""
        if not self._has_memory(opener):
            self._turn_away(opener, waiting.frame.stream, Code.OVERLOADED, TOO_MUCH_WAITS)
            return None
        route = Route(opener, waiting.frame.stream)
        route.waiting = waiting
        self.waiting_size += waiting.size
        opener.waiting_size += waiting.size
        self._add_deadline(give_up_at(now, waiting.deadline - now), route)
        return route

    def _has_memory(self, opener: Channel) -> bool:
        """Tell whether one more event of this opener may wait, as far as memory goes."""
        return may_take(opener.waiting_size, self.limits.backlog_bytes - self.waiting_size)

    def _enqueue(self, route: Route, waiting: Waiting, queue: WaitingQueue[Channel, Route]) -> None:
        if self.debug:
            mechanics.waits(route, waiting.event, queue.detail)
        waiting.queue = queue
        queue.add(route.opener, route, waiting.deadline)

    def _stop_waiting(self, route: Route, waiting: Waiting) -> None:
        route.waiting = None
        self.waiting_size -= waiting.size
        route.opener.waiting_size -= waiting.size
        if waiting.queue is not None:
            waiting.queue.remove(route.opener, route)

    def peer_joined(self, peer: Peer, now: float) -> None:
        """The peer's link is up: what waited for it goes on."""
        if peer.channel is not None:
            self._pool.openers.add(peer.channel)
        while peer.online and peer.queue:
            self._go_on_to_peer(peer.queue.pop(), peer, now)

    def _go_on_to_peer(self, route: Route, peer: Peer, now: float) -> None:
        waiting, channel = route.waiting, peer.channel
        if waiting is None or channel is None:
            return
        full = self._full_for(channel)
        if full:
            self._refuse(route, Code.OVERLOADED, full)
            return
        self._stop_waiting(route, waiting)
        self._send_to_peer(route, channel, waiting.renewed(now))
        self._release(route, waiting, now)

    def feed_workers(self, now: float) -> None:
        """Give what waits for a handler worker the places that are free, to one opener after the other."""
        pool, queue = self._pool, self._pool.queue
        passed = 0
        while passed < queue.openers:
            opener, route = queue.turn()
            waiting = route.waiting
            if waiting is None:
                return
            worker = pool.pick(opener, now, whole=waiting.whole)
            if worker is None:
                if not pool.free:
                    return
                # Its share is used up. Another's is not.
                queue.pass_turn()
                passed += 1
                continue
            passed = 0
            queue.pop()
            queue.moved(now)
            self._stop_waiting(route, waiting)
            self._send_to_worker(route, worker, waiting.origin, waiting.renewed(now))
            self._release(route, waiting, now)
            while (last := queue.hopeless(opener, now)) is not None:
                self._refuse(last, Code.OVERLOADED, self._too_long())

    def _release(self, route: Route, waiting: Waiting, now: float) -> None:
        for frame in waiting.held:
            self._relay(route.opener, frame, now)

    def drain(self) -> None:
        """Take no new events from now on, and hand back those that wait."""
        self._draining = True
        for queue in (self._pool.queue, *(peer.queue for peer in self._peers)):
            while queue:
                self._refuse(queue.pop(), Code.DRAINING, STOPS)

    def give_up(self, route: Route) -> None:
        """The deadline of a route has come, and it still waits."""
        queue = route.waiting.queue if route.waiting is not None else None
        if queue is not None:
            self._refuse(route, queue.code, queue.detail)
        else:
            self._refuse(route, Code.UNREACHABLE, "the name was not resolved in time")

    # Ending.

    def _turn_away(self, opener: Channel, number: int, code: Code, detail: str) -> None:
        """Refuse an event that has no route."""
        reset = Reset(code, detail, Delivered.NO)
        if self.debug:
            mechanics.refused(opener, number, reset)
        _tell(opener, number, reset)

    def _refuse(self, route: Route, code: Code, detail: str, names: tuple[str, ...] = ()) -> None:
        """End an event that waits."""
        if route.waiting is not None:
            self._stop_waiting(route, route.waiting)
        opener, number = route.opener, route.opener_number
        del opener.routes[number]
        reset = Reset(code, detail, Delivered.NO, names)
        if self.debug:
            mechanics.refused(opener, number, reset)
        _tell(opener, number, reset)

    def _close(self, route: Route, now: float) -> None:
        route.opener.routes.pop(route.opener_number, None)
        answerer = route.answerer
        if answerer is not None:
            answerer.routes.pop(route.answerer_number, None)
            if route.holds != NOTHING:
                route.go_on(NOTHING)
                if self._pool.queue.count:
                    self.feed_workers(now)

    def _break(self, route: Route, reset: Reset, now: float) -> None:
        if self.debug:
            mechanics.breaks(route, reset)
        _tell(route.opener, route.opener_number, reset)
        if route.answerer is not None:
            _tell(route.answerer, route.answerer_number, reset)
        self._close(route, now)

    def lose(self, channel: Channel, detail: str, now: float) -> None:
        """A neighbour is gone for good, and with it every event that it opened or was to answer."""
        self._pool.openers.discard(channel)
        routes = list(channel.routes.values())
        for route in routes:
            # First of all: the places that become free are not for these.
            if route.waiting is not None:
                self._stop_waiting(route, route.waiting)
        for route in routes:
            if self.debug:
                mechanics.lost(route, channel, detail)
            if channel is not route.opener:
                self._lose_answerer(route, channel, detail)
            elif route.answerer is not None:
                _tell(route.answerer, route.answerer_number, Reset(Code.CANCELLED, detail))
            self._close(route, now)
        # Its share is for those that are left.
        self.feed_workers(now)

    def _lose_answerer(self, route: Route, answerer: Channel, detail: str) -> None:
        if answerer.session.queue.holds_opening(route.answerer_number):
            reset = Reset(Code.DRAINING, detail, Delivered.NO)
        else:
            reset = Reset(Code.OUTCOME_UNKNOWN, detail, Delivered.UNKNOWN)
        _tell(route.opener, route.opener_number, reset)


def _full(queue: WaitingQueue[Channel, Route]) -> str:
    return f"{queue.limit} events wait already: {queue.detail}"


def _tell(channel: Channel, number: int, reset: Reset) -> None:
    """Reset a stream towards one of its sides, unless that side has never heard of it."""
    if not channel.session.queue.drop(number):
        channel.session.send(number, encode_reset(number, reset))
