"""Every way in which RestPipe can fail: one code on the wire, one problem type and status over HTTP."""

from __future__ import annotations

import copyreg
import enum
import os
from typing import Any, NamedTuple


class Code(enum.IntEnum):
    """Why a stream was reset or a link closed. The numbers are part of the wire protocol."""

    UNSPECIFIED = 0
    # Of one stream (Reset).
    CANCELLED = 1
    DEADLINE = 2
    UNREACHABLE = 3
    UNKNOWN_PEER = 4
    AMBIGUOUS_PEER = 5
    NO_HANDLER = 6
    OVERLOADED = 7
    OUTCOME_UNKNOWN = 8
    BODY_TOO_LARGE = 9
    BAD_MESSAGE = 10
    FLOW_CONTROL = 11
    DRAINING = 12
    REPLY_BROKEN = 13
    BAD_REQUEST = 14
    UNSUPPORTED_CODING = 15
    # Of a whole link (Goaway).
    SHUTDOWN = 64
    VERSION = 65
    NAME_IN_USE = 66
    REVOKED = 67
    BAD_FRAME = 68
    HEARTBEAT = 69
    HANDSHAKE = 70
    TOO_MANY_LINKS = 71
    REPLACED = 72
    AUTHORITY_GONE = 73


class Problem(NamedTuple):
    """How a code looks to an HTTP caller (RFC 9457)."""

    slug: str
    """Last part of the problem's stable `type`."""
    status: int
    title: str


PROBLEMS: dict[Code, Problem] = {
    Code.DEADLINE: Problem("deadline", 504, "No answer came before the deadline"),
    Code.UNREACHABLE: Problem("unreachable", 503, "The peer's link stayed down until the deadline"),
    Code.UNKNOWN_PEER: Problem("unknown-peer", 404, "No such client"),
    Code.AMBIGUOUS_PEER: Problem("ambiguous-peer", 409, "More than one client matches"),
    Code.NO_HANDLER: Problem("no-handler", 503, "No handler worker was free before the deadline"),
    Code.OVERLOADED: Problem("overloaded", 503, "Too many events are under way"),
    Code.OUTCOME_UNKNOWN: Problem("outcome-unknown", 502, "The event may or may not have run"),
    Code.BODY_TOO_LARGE: Problem("body-too-large", 413, "The body is larger than allowed"),
    Code.BAD_MESSAGE: Problem("bad-message", 502, "The other side sent what cannot be read"),
    Code.FLOW_CONTROL: Problem("flow-control", 502, "The other side sent more than it may"),
    Code.DRAINING: Problem("draining", 503, "The pipe is shutting down"),
    Code.REPLY_BROKEN: Problem("reply-broken", 502, "The reply broke off"),
    Code.BAD_REQUEST: Problem("bad-request", 400, "The request cannot be understood"),
    Code.UNSUPPORTED_CODING: Problem(
        "unsupported-coding", 415, "The body's content coding is not understood"
    ),
}
"""The codes that a caller can meet. Others end inside the pipe."""


class RestPipeError(Exception):
    """Root of all errors that RestPipe raises on purpose. They can be copied, and sent to other processes."""

    def __reduce__(self) -> tuple[Any, ...]:
        # As it is, not by a call of its class: that takes other arguments than those that are kept.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class ConfigError(RestPipeError):
    """Configuration that cannot be used: says the file, the key and what is allowed, in one line."""


def message_of(error: BaseException) -> str:
    """Return what an exception says, whatever its `__str__` does."""
    try:
        return str(error)
    except BaseException:
        return f"({type(error).__name__}; its message cannot be read)"


def exit_status(error: BaseException) -> int:
    """Return the status of a process that ends by `error`: EX_CONFIG where starting again is in vain."""
    return os.EX_CONFIG if isinstance(error, ConfigError) else 1


class ProtocolError(RestPipeError):
    """The other end broke the protocol: the stream that it concerns, else the whole link, is over."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class NotConnected(RestPipeError):
    """There is no link to write to at this moment."""


class Delivered(enum.IntEnum):
    """Whether an event reached a handler, as far as can be known. Numbers as in the wire protocol."""

    UNKNOWN = 0
    NO = 1
    YES = 2


class Reset(NamedTuple):
    """Why one event came to its end without a whole reply. A value: queued, stored and sent as it is."""

    code: Code
    detail: str = ""
    delivered: Delivered = Delivered.UNKNOWN
    names: tuple[str, ...] = ()
    """The peers that matched, if more than one did."""

    def __str__(self) -> str:
        return self.detail or self.code.name.lower().replace("_", " ")


class StreamReset(RestPipeError):
    """One event came to its end without a (whole) reply. Made where it is raised, and not kept."""

    def __init__(self, reset: Reset) -> None:
        super().__init__(str(reset))
        self.reset = reset

    @property
    def code(self) -> Code:
        return self.reset.code
