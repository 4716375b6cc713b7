"""For applications: turns an answer that is an error into an exception. Works with requests and httpx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from restpipe.errors import RestPipeError
from restpipe.http import PROBLEM_TYPE, RETURN_CODE


class Response(Protocol):
    """What is used of a response of requests or httpx."""

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def status_code(self) -> int: ...
    def json(self) -> Any: ...


class PipeFailError(RestPipeError):
    """The event handler on the other side failed, or answered with a code other than 0."""

    def __init__(
        self,
        message: str,
        traceback: str = "",
        fail_type: str = "",
        class_name: str = "",
        return_code: int = 251,
    ) -> None:
        super().__init__(f"({return_code}) [{fail_type or class_name}] {message}")
        self.message = message
        self.traceback = traceback
        """As text; empty if the answer has none."""
        self.class_name = class_name
        """Name of the exception's class, without its module; empty if there was no exception."""
        self.return_code = return_code
        """From the header `X-Event-Return-Code`."""
        self.error_type = fail_type or class_name

    @property
    def error_message(self) -> str:
        return self.message

    @property
    def error_traceback(self) -> str:
        return self.traceback

    @property
    def error_class_name(self) -> str:
        return self.class_name


class PipeProblemError(RestPipeError):
    """No event handler answered: the pipe says why, or something else than the pipe did."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        """HTTP status."""
        self.type = str(problem.get("type", "about:blank"))
        """The stable name of what went wrong, a URI."""
        self.title = str(problem.get("title", "the answer is not an event handler's"))
        self.detail = str(problem.get("detail", ""))
        self.delivered = str(problem.get("delivered", "unknown"))
        """Whether the event reached a handler: `no`, `yes` or `unknown`."""
        self.problem = dict(problem)
        super().__init__(f"HTTP {status}: {self.title}" + (f": {self.detail}" if self.detail else ""))


def raise_for_exception(response: Response) -> None:
    """Returns if an event handler answered with code 0.

    Otherwise `PipeFailError` (a handler failed or answered with another code) or `PipeProblemError` (no
    handler answered). The response's body must have been read, unless its code is 0.
    """
    given = response.headers.get(RETURN_CODE)
    if given is None:
        raise PipeProblemError(response.status_code, _problem(response))
    code = int(given)
    if code != 0:
        raise _failure(code, _document(response))


def _problem(response: Response) -> Mapping[str, Any]:
    content_type = response.headers.get("Content-Type", "")
    return _document(response) if content_type.partition(";")[0].strip().lower() == PROBLEM_TYPE else {}


def _failure(code: int, document: Mapping[str, Any]) -> PipeFailError:
    said = document.get("exception")
    if isinstance(said, Mapping):
        class_name = str(said.get("class", ""))
        message, traceback = str(said.get("message", "")), str(said.get("traceback", ""))
        return PipeFailError(message, traceback, str(said.get("type", class_name)), class_name, code)
    error = document.get("error")
    message = str(error.get("message", "")) if isinstance(error, Mapping) else ""
    return PipeFailError(message or "the event handler answered with this code", return_code=code)


def _document(response: Response) -> Mapping[str, Any]:
    """The JSON object in the body; empty if it is something else."""
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, Mapping) else {}
