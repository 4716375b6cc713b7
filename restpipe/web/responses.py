"""From a reply, or from a failure, to an HTTP response. Pure."""

from __future__ import annotations

import functools
import json
from typing import Any, Final, NamedTuple

from restpipe.errors import PROBLEMS, Code, Delivered, Problem, Reset
from restpipe.http import (
    BODILESS,
    PROBLEM_TYPE,
    RESERVED,
    RETURN_CODE,
    TYPE_PREFIX,
    VERBS,
    is_field_value,
    is_token,
)
from restpipe.protocol.schema_pb2 import Reply

UNKNOWN_PATH: Final = Problem("unknown-path", 404, "There is nothing at this path")
UNKNOWN_VERB: Final = Problem("unknown-verb", 501, "This verb is not served")
MALFORMED: Final = Problem("bad-request", 400, "The request cannot be understood")
HEAD_TOO_SLOW: Final = Problem("head-too-slow", 408, "The request's head did not come in time")
HEAD_TOO_LARGE: Final = Problem("head-too-large", 431, "The request's headers are too large")
TARGET_TOO_LONG: Final = Problem("target-too-long", 414, "The request's target is too long")
UNKNOWN_VERSION: Final = Problem("unknown-version", 505, "This version of HTTP is not served")
UNKNOWN_CODING: Final = Problem("unknown-coding", 501, "This transfer coding is not served")
INTERNAL: Final = Problem("internal", 500, "The web worker failed")
GIVEN_UP: Final = Problem("given-up", 502, "The event was given up inside the pipe")

RETRY_AFTER_S: Final = {Code.UNREACHABLE: 5}
SHORT_RETRY_S: Final = 1

Headers = list[tuple[str, str]]


class BadReply(ValueError):
    """HTTP cannot carry what a handler answered."""


class Document(NamedTuple):
    """A problem as it goes to the caller."""

    status: int
    headers: Headers
    body: bytes


OF_THE_SERVER: Final = Document(204, [("allow", ", ".join(VERBS))], b"")
"""The answer to `OPTIONS *` (RFC 9110, section 9.3.7)."""


class Head(NamedTuple):
    """Everything of a response that comes before its body."""

    status: int
    headers: Headers


def of_failure(reset: Reset, event_id: bytes = b"") -> Document:
    """Return the problem document of an event that ended without a reply."""
    problem = PROBLEMS.get(reset.code, GIVEN_UP)
    retry_after_s = RETRY_AFTER_S.get(reset.code, SHORT_RETRY_S)
    more: dict[str, Any] = {"names": list(reset.names)} if reset.names else {}
    return of_problem(problem, reset.detail, reset.delivered, event_id, retry_after_s=retry_after_s, **more)


def of_problem(
    problem: Problem,
    detail: str = "",
    delivered: Delivered = Delivered.NO,
    event_id: bytes = b"",
    *,
    retry_after_s: int = SHORT_RETRY_S,
    **more: Any,
) -> Document:
    """Return a problem document (RFC 9457); `more` are further members of it."""
    members: dict[str, Any] = {
        "type": TYPE_PREFIX + problem.slug,
        "title": problem.title,
        "status": problem.status,
        "detail": detail or problem.title,
        "delivered": delivered.name.lower(),
    }
    if event_id:
        members["event_id"] = event_id.hex()
    headers = [("content-type", PROBLEM_TYPE)]
    if problem.status == 503:
        headers.append(("retry-after", str(retry_after_s)))
    elif problem.status == 415:
        # RFC 9110, section 15.5.16.
        headers.append(("accept-encoding", "identity"))
    return Document(problem.status, headers, json.dumps(members | more).encode())


def of_reply(reply: Reply) -> Head:
    """Return status and headers of a handler's reply. Raises `BadReply` if HTTP cannot carry them.

    Nothing that a handler writes can end a header early or forge one of RestPipe's own: hop-by-hop headers
    and those that RestPipe sets are left out, anything else that is malformed makes the whole reply a fault.
    """
    status = reply.status or 200
    if not 200 <= status <= 599:
        raise BadReply(f"the handler answered with HTTP status {status}")
    headers = [(RETURN_CODE, str(reply.code))]
    if reply.content_type:
        headers.append(("content-type", _content_type(reply.content_type)))
    if reply.headers:
        headers += _passed_on(reply)
    if reply.HasField("body_length") and status not in BODILESS:
        headers.append(("content-length", str(reply.body_length)))
    return Head(status, headers)


def _passed_on(reply: Reply) -> Headers:
    listed = {
        token.strip().lower()
        for header in reply.headers
        if header.name.lower() == "connection"
        for token in header.value.split(",")
    }
    return [
        (name, _checked(name, header.value))
        for header in reply.headers
        if (name := header.name.lower()) not in RESERVED and name not in listed
    ]


@functools.lru_cache(maxsize=64)
def _content_type(value: str) -> str:
    """Nearly every reply has one, and there are few different ones."""
    return _checked("content-type", value)


def _checked(name: str, value: str) -> str:
    if not is_token(name):
        raise BadReply(f"the handler answered with a header whose name is no token: {name[:100]!r}")
    if not is_field_value(value):
        raise BadReply(f"the handler answered with a header {name!r} whose value HTTP cannot carry")
    # Older HTTP servers refuse a tab where the standard allows one.
    return value.replace("\t", " ").strip()
