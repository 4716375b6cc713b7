"""What a method learns about the event that it answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

_log = logging.getLogger("restpipe.handler.event")


class Headers(Mapping[str, str]):
    """Request headers, found whatever the case of their names. Repeated ones are joined with a comma."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, str] = {}
        for name, value in pairs:
            key = name.lower()
            before = self._values.get(key)
            self._values[key] = value if before is None else f"{before}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({self._values})"


class Deadline:
    """The moment by which the answer must have begun, on this host's monotonic clock."""

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        self.at = at
        """As `time.monotonic()` counts; infinity when there is none."""

    @classmethod
    def after(cls, span_s: float | None) -> Deadline:
        """Make the deadline so many seconds from now; None: never."""
        return cls(float("inf") if span_s is None else time.monotonic() + span_s)

    @property
    def remaining_s(self) -> float:
        """Seconds that are left, 0 when it has passed."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at

    def __repr__(self) -> str:
        return f"<Deadline in {self.remaining_s:.3f} s>"


class EventDeadline(Deadline):
    """A deadline as the queue of deadlines keeps it, maybe for long after its event has ended.

    While the body of the event comes, it counts from the last piece.
    """

    __slots__ = ("late", "waits")

    def __init__(self, at: float) -> None:
        self.at = at
        self.waits = True
        """The reply has not begun."""
        self.late: Callable[[], None] | None = None
        """Gives the event up; None once it has ended."""

    def reach(self) -> None:
        """The moment has come, and the reply has not begun."""
        if self.late is not None:
            self.late()


class EventLogger(logging.LoggerAdapter[logging.Logger]):
    """Names the event and its sender in each line."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        of_event = self.extra or {}
        kwargs["extra"] = {"peer": of_event["peer"], **(kwargs.get("extra") or {})}
        return f"[{of_event['peer']} {of_event['event_id']}] {msg}", kwargs


class Context:
    """One event, as its method sees it. May be read from any thread."""

    __slots__ = (
        "_cancelled",
        "_header_pairs",
        "_headers",
        "_logger",
        "deadline",
        "event_id",
        "participant_address",
        "peer",
        "query",
        "target",
        "traceparent",
        "tracestate",
        "verb",
    )

    def __init__(
        self,
        *,
        verb: str,
        target: str,
        event_id: str,
        peer: str = "",
        participant_address: tuple[str, int] = ("", 0),
        deadline: Deadline | None = None,
        headers: Iterable[tuple[str, str]] = (),
        query: Mapping[str, str | list[str]] | None = None,
        traceparent: str = "",
        tracestate: str = "",
    ) -> None:
        self.verb = verb
        self.target = target
        """Noun, arguments and query as they stood in the request line, still percent-encoded."""
        self.event_id = event_id
        """32 hexadecimal digits; the same when the event is sent again."""
        self.peer = peer
        """Name of the sender, from its certificate."""
        self.participant_address = participant_address
        """Host and port that the sender is connected from."""
        self.deadline = deadline or Deadline.after(None)
        self.query: Mapping[str, str | list[str]] = query or {}
        """Query parameters by name; a list where one was repeated."""
        self.traceparent = traceparent
        """W3C trace context, for code that continues the trace."""
        self.tracestate = tracestate
        self._header_pairs = headers
        self._headers: Headers | None = None
        self._logger: EventLogger | None = None
        self._cancelled = False

    @property
    def headers(self) -> Headers:
        """Those of the request's headers that cross the pipe."""
        if self._headers is None:
            self._headers = Headers(self._header_pairs)
        return self._headers

    @property
    def logger(self) -> EventLogger:
        if self._logger is None:
            self._logger = EventLogger(_log, {"peer": self.peer, "event_id": self.event_id})
        return self._logger

    @property
    def cancelled(self) -> bool:
        """The event was given up: `async def` methods are cancelled, plain ones should look here."""
        return self._cancelled

    def cancel(self) -> None:
        """Set `cancelled`. For the dispatcher."""
        self._cancelled = True
