"""What becomes of each event in the daemon, a log line a step (`Router.debug`)."""

from __future__ import annotations

import logging

from restpipe.daemon.channel import Channel, Route
from restpipe.errors import ProtocolError, Reset
from restpipe.protocol.frames import RESET, Frame
from restpipe.protocol.messages import read_message, read_reset
from restpipe.protocol.schema_pb2 import Event

MAX_TARGET = 200

_log = logging.getLogger(__name__)


def goes(route: Route, frame: Frame) -> None:
    """It is sent to its answerer."""
    _log.debug("%s: %s goes on", _way(route), _event_of(frame))


def waits(route: Route, event: Event, in_vain: str) -> None:
    """`in_vain` is what it will be told at its deadline."""
    most_s = event.timeout_ms / 1000
    _log.debug("%s: %s waits at most %.3f s, or: %s", _way(route), _in_words(event), most_s, in_vain)


def refused(channel: Channel, number: int, reset: Reset) -> None:
    """Its opener is told that it was not delivered."""
    _log.debug("%s#%d: refused: %s", channel.name, number, _why(reset))


def ends(route: Route, frame: Frame) -> None:
    """A frame of one of its sides ends it."""
    _log.debug("%s: %s", _way(route), f"reset: {_reset_of(frame)}" if frame.kind == RESET else "over")


def breaks(route: Route, reset: Reset) -> None:
    """Both sides are told that it is over."""
    _log.debug("%s: broken off: %s", _way(route), _why(reset))


def lost(route: Route, channel: Channel, detail: str) -> None:
    """One of its sides is gone."""
    _log.debug("%s: lost with %s: %s", _way(route), channel.name, detail)


def _way(route: Route) -> str:
    opener = f"{route.opener.name}#{route.opener_number}"
    answerer = route.answerer
    return f"{opener} > {answerer.name}#{route.answerer_number}" if answerer is not None else opener


def _event_of(frame: Frame) -> str:
    try:
        return _in_words(read_message(Event(), frame))
    except ProtocolError as fault:
        return fault.detail


def _in_words(event: Event) -> str:
    return f"event {event.id.hex()} ({event.verb} {event.target[:MAX_TARGET]})"


def _reset_of(frame: Frame) -> str:
    try:
        return _why(read_reset(frame))
    except ProtocolError as fault:
        return fault.detail


def _why(reset: Reset) -> str:
    return f"{reset.code.name.lower()}: {reset.detail}" if reset.detail else reset.code.name.lower()
