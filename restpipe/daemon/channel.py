"""One neighbour of the router, which is a local worker or another host's daemon, and its events in flight."""

from __future__ import annotations

from typing import Final

from restpipe.daemon.waiting import WaitingQueue
from restpipe.protocol.connection import Side
from restpipe.protocol.frames import END, HEADER_SIZE, WINDOW, Frame
from restpipe.protocol.schema_pb2 import Event
from restpipe.protocol.session import Session
from restpipe.protocol.streams import FRAME_COST

WAITING_COST: Final = 2048
"""Bytes of memory that a waiting event costs beside its frames: parsed head, route, entries in tables."""

NOTHING: Final = 0
PLACE: Final = 1
REPLYING: Final = 2


class Channel:
    """A session and the events in flight over it, in either direction."""

    def __init__(self, session: Session, side: Side, name: str = "") -> None:
        self.session = session
        self.name = name
        """What the log calls the neighbour."""
        self.routes: dict[int, Route] = {}
        self.places = 0
        """Places of handler workers that are taken: by events that it opened, or (a worker's own) by any."""
        self.replies = 0
        """Replies that handler workers are sending: to events that it opened, or (a worker's own) to any."""
        self.waiting_size = 0
        """Bytes of memory that events which it opened cost while they wait."""
        self.next_number = 1 if side is Side.DIALER else 2
        """Of the next stream that this side opens. The neighbour's own are odd where these are even."""


class Waiting:
    """What an event needs to go on later."""

    __slots__ = ("deadline", "event", "frame", "held", "held_size", "origin", "queue", "size", "whole")

    def __init__(self, event: Event, frame: Frame, origin: bytes, now: float) -> None:
        self.event = event
        self.frame = frame
        self.origin = origin
        self.deadline = now + event.timeout_ms / 1000
        self.held: list[Frame] = []
        self.held_size = 0
        """Bytes of what followed the event, as its sender's credit counts them."""
        # The head is here twice: in its frame, and parsed.
        self.size = WAITING_COST + frame.head_size + len(frame.payload)
        """Bytes of memory that all of it costs."""
        self.whole = frame.flags & END != 0
        """All of its body is here."""
        self.queue: WaitingQueue[Channel, Route] | None = None
        """None while a name is looked up."""

    def hold(self, frame: Frame) -> int:
        """Keep a frame that follows the event. Return the bytes of memory that it costs."""
        size = len(frame.payload)
        self.held.append(frame)
        self.held_size += HEADER_SIZE + size
        self.size += FRAME_COST + size
        if frame.flags & END and frame.kind != WINDOW:
            self.whole = True
        return FRAME_COST + size

    def renewed(self, now: float) -> Frame:
        """Return the EVENT frame with the time that is left of its deadline."""
        # While more of the body is to come, the time counts from the last piece.
        if self.whole:
            # Never more than it was: the head must not grow beyond what a frame can carry.
            left_ms = max(1, int((self.deadline - now) * 1000))
            self.event.timeout_ms = min(self.event.timeout_ms, left_ms)
        head = self.event.SerializeToString()
        old = self.frame
        return Frame(old.kind, old.flags, len(head), old.stream, head + old.body)


class Route:
    """The way of one event: from the channel that opened it to the channel that answers it."""

    __slots__ = ("answerer", "answerer_number", "holds", "opener", "opener_number", "waiting")

    def __init__(self, opener: Channel, number: int) -> None:
        self.opener = opener
        self.opener_number = number
        self.answerer: Channel | None = None
        self.answerer_number = 0
        self.waiting: Waiting | None = None
        self.holds = NOTHING
        """What it has of a handler worker: NOTHING, a PLACE, or the worker is REPLYING to it."""
        opener.routes[number] = self

    @property
    def waits(self) -> bool:
        return self.waiting is not None

    def connect(self, answerer: Channel, holds: int = NOTHING) -> int:
        """Have `answerer` answer the event, in a PLACE or without one. Return the stream's number there."""
        number = answerer.next_number
        answerer.next_number = number + 2
        self.answerer = answerer
        self.answerer_number = number
        answerer.routes[number] = self
        if holds == PLACE:
            self.holds = PLACE
            self.opener.places += 1
            answerer.places += 1
        return number

    def go_on(self, what: int) -> None:
        """Give back the PLACE of the answerer: it is REPLYING from now on, or does NOTHING more."""
        opener, answerer = self.opener, self.answerer
        if answerer is None:
            return
        if self.holds == PLACE:
            opener.places -= 1
            answerer.places -= 1
        elif self.holds == REPLYING:
            opener.replies -= 1
            answerer.replies -= 1
        if what == REPLYING:
            opener.replies += 1
            answerer.replies += 1
        self.holds = what
