"""Errors are values too: they are copied, and sent to other processes."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from restpipe import EventError, PipeFailError, PipeProblemError, RestPipeError
from restpipe.errors import (
    Code,
    ConfigError,
    Delivered,
    ProtocolError,
    Reset,
    StreamReset,
    exit_status,
    message_of,
)


class Own(EventError):
    """A user's, with arguments of its own."""

    def __init__(self, article: str, *, left: int) -> None:
        super().__init__(17, f"no {article}", status=404)
        self.left = left


def pickled() -> Iterator[Callable[[Any], Any]]:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))  # noqa: S301


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, *pickled()])
@pytest.mark.parametrize(
    "error",
    [
        EventError(7, "gone", status=404),
        Own("4711", left=2),
        StreamReset(Reset(Code.DEADLINE, "late", Delivered.NO, ("a", "b"))),
        ProtocolError(Code.BAD_FRAME, "odd"),
        PipeFailError("message", "trace", "type", "Class", 9),
        PipeProblemError(503, {"title": "none", "delivered": "no"}),
        ConfigError("one line"),
        RestPipeError("a", 1),
    ],
)
def test_errors_can_be_copied_and_sent(
    error: RestPipeError, again: Callable[[RestPipeError], RestPipeError]
) -> None:
    error.more = "added by others"  # type: ignore[attr-defined]
    made = again(error)
    assert made is not error
    assert type(made) is type(error)
    assert (made.args, str(made), vars(made)) == (error.args, str(error), vars(error))


class Odd(Exception):
    def __init__(self, raised: BaseException) -> None:
        self.raised = raised

    def __str__(self) -> str:
        raise self.raised


@pytest.mark.parametrize("raised", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_what_cannot_say_what_it_means_stops_nobody(raised: BaseException) -> None:
    assert message_of(Odd(raised)) == "(Odd; its message cannot be read)"
    assert message_of(ValueError("plain")) == "plain"


def test_exit_status() -> None:
    assert [exit_status(error) for error in (ConfigError(), RestPipeError(), KeyError())] == [
        os.EX_CONFIG,
        1,
        1,
    ]
