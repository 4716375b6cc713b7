"""An exchange, as the side that answers sees it, and the request's body in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from restpipe.errors import Code, Delivered, StreamReset
from restpipe.handler.post_data import decode_body, mime_type
from restpipe.handler.registry import Method
from restpipe.handler.streaming import AsyncBodyReader, BodyReader
from restpipe.host.limits import Budget
from restpipe.protocol.schema_pb2 import Event, Origin, Reply

HELD_BODIES = 16
"""Of the largest size that is taken, or many more of usual size: what all methods hold at once."""


class IncomingEvent(Protocol):
    """What is used here of restpipe.transport.exchange.Exchange."""

    event: Event
    origin: Origin | None

    async def read(self) -> bytes: ...
    async def write(self, data: bytes, *, end: bool = False) -> None: ...
    def reset(self, code: Code, detail: str = "", delivered: Delivered = ...) -> object: ...
    def on_reset(self, callback: Callable[[StreamReset], None]) -> None: ...
    def start_reply(self, reply: Reply, body: bytes = b"", *, end: bool) -> None: ...


class PostData(NamedTuple):
    """The request's body as it came in."""

    content_type: str
    body: bytes | AsyncBodyReader | BodyReader
    none: bool = False
    """The head says already that there is no body, which nobody has read yet."""

    @property
    def size(self) -> int:
        """Bytes that are still to be decoded."""
        return len(self.body) if isinstance(self.body, bytes) else 0

    def decode(self) -> tuple[str, Any]:
        """What the method gets. `StreamReset` (BAD_REQUEST) when the body is not what its type says."""
        if isinstance(self.body, bytes):
            return decode_body(self.content_type, self.body)
        return "" if self.none else mime_type(self.content_type), self.body


class Bodies:
    """How large a body may be, and all that are held whole together."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.room = Budget(HELD_BODIES * max_bytes)

    def release(self, post_data: PostData) -> None:
        """To be called once for each body that was received, when its method is through with it."""
        self.room.give_back(post_data.size)


async def receive_body(exchange: IncomingEvent, method: Method, bodies: Bodies) -> PostData:
    """All of the body, or a reader for a method that wants one.

    `StreamReset` when it is too large or breaks off, or when too much is held already.
    """
    event = exchange.event
    content_type = event.content_type
    if not method.streamed:
        return PostData(content_type, await _read_all(exchange, bodies))
    none = event.HasField("body_length") and not event.body_length
    if method.is_async:
        return PostData(content_type, AsyncBodyReader(exchange), none)
    return PostData(content_type, BodyReader(exchange, asyncio.get_running_loop()), none)


async def _read_all(exchange: IncomingEvent, bodies: Bodies) -> bytes:
    _check_size(exchange.event.body_length, bodies)
    gathered: list[bytes] = []
    size = 0
    try:
        while piece := await exchange.read():
            _check_size(size + len(piece), bodies)
            if not bodies.room.take(len(piece)):
                detail = "the handler worker holds as many bodies as it may"
                raise StreamReset(Code.OVERLOADED, detail, Delivered.NO)
            size += len(piece)
            gathered.append(piece)
    except BaseException:
        bodies.room.give_back(size)
        raise
    return gathered[0] if len(gathered) == 1 else b"".join(gathered)


def _check_size(size: int, bodies: Bodies) -> None:
    if size > bodies.max_bytes:
        detail = f"the handler takes at most {bodies.max_bytes} bytes"
        raise StreamReset(Code.BODY_TOO_LARGE, detail, Delivered.NO)
