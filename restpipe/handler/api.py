"""What an event handler is made of: the class to inherit from, what its methods get, what they may return."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from restpipe.errors import RestPipeError
from restpipe.handler.state_events import ClientStateHooks, ServerStateHooks
from restpipe.http import BODILESS

UNHANDLED_EXCEPTION_CODE = 251
"""`X-Event-Return-Code` of an event whose method raised."""
UNHANDLED_EVENT_CODE = 255
"""`X-Event-Return-Code` of an event that no method handles."""

_STREAMED = "__restpipe_streamed__"
_CODES = range(-(2**31), 2**31)
MethodT = TypeVar("MethodT", bound=Callable[..., Any])


class EventHandler:
    """Inherit, and write one method for each verb and noun; either end of the pipe can use it.

    `get_time_utc` answers GET of `time/utc` (and of `time_utc`: a slash and an underscore are the same).
    A method is called with a `Context`, with `(mime type, data)` of the request's body (two empty
    strings where there is none), and with the arguments that stood behind `//`; query parameters come
    as keyword arguments. `async def` methods run on the worker's event loop and must not block it; plain
    ones run in threads, several at once: guard what they share. One object serves all events of a worker.

    Every public method whose name begins with a verb and an underscore, and that takes these two
    arguments, can be called from the other end. Names that begin otherwise cannot: call helpers `_get_x`.

    What a method may return:

    - anything that JSON can say: sent as `application/json` with code 0;
    - a str: taken to be JSON already and sent as it is; bytes: `application/octet-stream`; None: nothing;
    - `(mime type, code, data)`: `code` becomes `X-Event-Return-Code`. The data is encoded if the type is
      JSON and it is neither str nor bytes; otherwise it must be one of these two, or a stream;
    - a `Reply`, for HTTP status and headers as well;
    - in place of data, a stream: a generator, an async generator, an iterator of bytes, or a file opened in
      binary mode, which is closed afterwards. It is read no faster than the caller takes it.

    Each call has a context (`contextvars`) of its own. A generator runs in that of the call that made it, and
    in its thread, so that it may hold a cursor of a database. While more than 128 generators of one worker
    wait for their readers, those that have waited longest go on in other threads.

    What a method raises is the answer too: code 251, or that of an `EventError`, and HTTP status 500.
    """

    def start_hook(self) -> Awaitable[None] | None:
        """Called once in each worker before its first event. May be `async def`."""
        return None

    def stop_hook(self) -> Awaitable[None] | None:
        """Called once in each worker after its last event. May be `async def`."""
        return None


class ServerEventHandler(EventHandler, ServerStateHooks):
    """An event handler for a server, with hooks for clients that come and go."""


class ClientEventHandler(EventHandler, ClientStateHooks):
    """An event handler for a client, with hooks for its connection."""


class Reply:
    """An answer with all that HTTP can say.

    `data` as an event method returns it; `content_type` None means the one that belongs to the data.
    """

    __slots__ = ("code", "content_type", "data", "headers", "status")

    def __init__(
        self,
        data: Any = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        content_type: str | None = None,
        code: int = 0,
    ) -> None:
        self.data = data
        self.status = status
        self.headers = list(headers.items() if isinstance(headers, Mapping) else headers)
        self.content_type = content_type
        self.code = code

    def __repr__(self) -> str:
        return f"Reply(status={self.status}, code={self.code}, content_type={self.content_type!r})"


class EventError(RestPipeError):
    """Raise it to answer with a code of your own in place of 251, and a status in place of 500.

    The caller gets the same document as for any exception. `code` is an integer of 32 bits, but not 0;
    `status` is one from 200 to 599 whose response has content. Raises TypeError or ValueError for any other.
    """

    def __init__(self, code: int, message: str = "", *, status: int = 500) -> None:
        super().__init__(message)
        self.code = check_code(code)
        self.status = check_status(status)
        if self.code == 0:
            raise ValueError("code 0 says that all went well")
        if self.status in BODILESS:
            raise ValueError(f"status {self.status} has no content, and an error says what is wrong")


def check_code(code: Any) -> int:
    """Return a code as an int. Raises TypeError or ValueError if it is none of 32 bits."""
    if not hasattr(code, "__index__"):
        raise TypeError(f"a code is an integer of 32 bits, not {code!r}")
    number = operator.index(code)
    if number not in _CODES:
        raise ValueError(f"a code is an integer of 32 bits, not {code!r}")
    return number


def check_status(status: Any) -> int:
    """Return an HTTP status as an int. Raises TypeError or ValueError if it is none that can be sent."""
    if not hasattr(status, "__index__"):
        raise TypeError(f"a status is an integer from 200 to 599, not {status!r}")
    number = operator.index(status)
    if not 200 <= number <= 599:
        raise ValueError(f"a status is an integer from 200 to 599, not {status!r}")
    return number


def streamed(method: MethodT) -> MethodT:
    """Marks a method that reads the request's body piece by piece, however large it is.

    The data in its `post_data` is then a reader: `read(size)`, or iterate over it for pieces of bytes. In
    `async def` methods it is `await reader.read(size)` and `async for`. Without a body the mime type is
    empty, as ever, and the reader has nothing; of a chunked body that is known only by reading.
    """
    setattr(method, _STREAMED, True)
    return method


def is_streamed(method: Callable[..., Any]) -> bool:
    """Whether `streamed` marked it."""
    return getattr(method, _STREAMED, False) is True
