"""What a method learns of its event."""

from __future__ import annotations

import time

from restpipe.handler.context import Context, Deadline, Headers


def test_headers_are_found_in_any_case_and_joined() -> None:
    headers = Headers([("X-One", "1"), ("x-two", "2"), ("X-ONE", "3")])
    assert headers["x-one"] == headers["X-One"] == "1, 3"
    assert "X-TWO" in headers
    assert 5 not in headers
    assert (list(headers), len(headers)) == (["x-one", "x-two"], 2)
    assert repr(headers) == "Headers({'x-one': '1, 3', 'x-two': '2'})"


def test_a_deadline() -> None:
    assert not Deadline.after(None).passed
    assert Deadline.after(None).remaining_s == float("inf")
    assert Deadline.after(-1).passed
    assert Deadline.after(-1).remaining_s == 0
    assert 0 < Deadline.after(60).remaining_s <= 60
    assert Deadline.after(60).at > time.monotonic()
    assert repr(Deadline.after(-1)) == "<Deadline in 0.000 s>"


def test_an_author_can_make_a_context_for_tests() -> None:
    context = Context(verb="GET", target="/x", event_id="0" * 32, headers=[("A", "b")])
    assert (context.peer, context.participant_address, dict(context.query)) == ("", ("", 0), {})
    assert context.headers["a"] == "b"
    assert not context.deadline.passed
    assert not context.cancelled
    context.cancel()
    assert context.cancelled
