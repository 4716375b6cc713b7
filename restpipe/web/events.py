"""From the head of an HTTP request to the event that it asks for."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable

from restpipe.http import HOP_BY_HOP
from restpipe.protocol.schema_pb2 import Event
from restpipe.web.paths import Destination

_LEFT_OUT = frozenset(
    # Host is the near end of the pipe, and the length has a field of its own in the event.
    {name.encode() for name in HOP_BY_HOP} | {b"host", b"content-length", b"expect"}
) - {b"connection"}


class EventIds:
    """Identifiers for events, 16 bytes each: half drawn by chance once a process, half a count."""

    def __init__(self) -> None:
        self._process = os.urandom(8)
        self._count = itertools.count(1)

    def next(self) -> bytes:
        return self._process + next(self._count).to_bytes(8, "big")


def of_request(
    event_id: bytes,
    verb: str,
    destination: Destination,
    fields: Iterable[tuple[bytes, bytes]],
    length: int | None,
) -> tuple[Event, list[str], bool]:
    """Build the event. `fields` have lower-case names; end-to-end headers go with the event.

    Returns the event and what its headers ask of the web worker itself: the values of Prefer, and whether
    there is an Idempotency-Key, by which the far end can tell when the event runs twice.
    """
    event = Event(id=event_id, verb=verb, target=destination.target, to=destination.to)
    if length is not None:
        event.body_length = length
    prefer: list[str] = []
    connection: list[str] = []
    key = False
    for name, raw in fields:
        if name in _LEFT_OUT:
            continue
        value = raw.decode("latin-1").strip()
        if name == b"content-type":
            event.content_type = value
        elif name == b"traceparent":
            event.traceparent = value
        elif name == b"tracestate":
            event.tracestate = f"{event.tracestate},{value}" if event.tracestate else value
        elif name == b"connection":
            connection.append(value)
        else:
            event.headers.add(name=name.decode("ascii"), value=value)
            if name == b"prefer":
                prefer.append(value)
            elif name == b"idempotency-key":
                key = True
    if connection:
        _drop_listed(event, connection)
    return event, prefer, key


def _drop_listed(event: Event, connection: list[str]) -> None:
    """Drop the headers that Connection lists: they concern this hop only (RFC 9110, section 7.6.1)."""
    listed = {token.strip().lower() for token in ",".join(connection).split(",")}
    kept = [header for header in event.headers if header.name not in listed]
    if len(kept) < len(event.headers):
        del event.headers[:]
        event.headers.extend(kept)
