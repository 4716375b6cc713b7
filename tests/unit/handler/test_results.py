"""From what a method returns or raises to the reply."""

from __future__ import annotations

import collections
import decimal
import enum
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe import EventError, Reply
from restpipe.handler import results
from restpipe.handler.results import Stream
from restpipe.http import BODILESS, RESERVED
from restpipe.protocol import schema_pb2

JSON = "application/json"
BYTES = "application/octet-stream"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
Pair = collections.namedtuple("Pair", "a b")


class Answer(NamedTuple):
    """An answer whose head has been read."""

    head: schema_pb2.Reply
    body: bytes | Stream


def read(answer: results.Answer) -> Answer:
    return Answer(schema_pb2.Reply.FromString(answer[0]), answer[1])


def answer_of(result: Any) -> Answer:
    return read(results.answer_of(result))


def answer_of_exception(exc: BaseException) -> Answer:
    return read(results.answer_of_exception(exc))


@pytest.mark.parametrize(
    ("result", "content_type", "code", "body"),
    [
        ({"a": 1}, JSON, 0, b'{"a": 1}'),
        ([], JSON, 0, b"[]"),
        (0, JSON, 0, b"0"),
        (False, JSON, 0, b"false"),
        ("\u00e9", JSON, 0, b"\xc3\xa9"),
        ({"a": "\u00e9\ud800"}, JSON, 0, b'{"a": "\\u00e9\\ud800"}'),
        ('{"ready": 1}', JSON, 0, b'{"ready": 1}'),
        (b"\0\xff", BYTES, 0, b"\0\xff"),
        (bytearray(b"x"), BYTES, 0, b"x"),
        (memoryview(b"xy")[1:], BYTES, 0, b"y"),
        (None, "", 0, b""),
        ((None, 7, {"a": 1}), JSON, 7, b'{"a": 1}'),
        ((JSON, 7, '{"ready": 1}'), JSON, 7, b'{"ready": 1}'),
        (("application/problem+json; x=y", -1, [1]), "application/problem+json; x=y", -1, b"[1]"),
        (("text/plain", 0, "hello"), "text/plain", 0, b"hello"),
        (("text/plain", 2**31 - 1, None), "text/plain", 2**31 - 1, b""),
        (("image/png", 0, b"\x89"), "image/png", 0, b"\x89"),
    ],
)
def test_results(result: Any, content_type: str, code: int, body: bytes) -> None:
    answer = answer_of(result)
    assert answer.head.content_type == content_type
    assert answer.head.code == code
    assert answer.head.status == 200
    assert answer.body == body
    assert answer.head.body_length == len(body)
    assert answer.head.HasField("body_length")


@given(JSON_VALUES.filter(lambda value: value is not None and not isinstance(value, str)))
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    body = answer_of(value).body
    assert isinstance(body, bytes)
    assert json.loads(body) == value


def test_reply_says_all_that_http_can() -> None:
    answer = answer_of(Reply({"a": 1}, status=201, headers={"Location": "/x"}, code=3))
    assert (answer.head.status, answer.head.code, answer.head.content_type) == (201, 3, JSON)
    assert [(header.name, header.value) for header in answer.head.headers] == [("Location", "/x")]


def test_reply_may_repeat_a_header() -> None:
    answer = answer_of(Reply(headers=[("Link", "<a>"), ("Link", "<b>")]))
    assert [header.value for header in answer.head.headers] == ["<a>", "<b>"]


@pytest.mark.parametrize("status", sorted(BODILESS))
def test_some_statuses_have_no_body(status: int) -> None:
    answer = answer_of(Reply(status=status))
    assert answer.body == b""
    assert not answer.head.HasField("body_length")
    with pytest.raises(ValueError, match="has no body"):
        answer_of(Reply("x", status=status))
    with pytest.raises(ValueError, match="has no body"):
        answer_of(Reply(iter([b"x"]), status=status))


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_headers_that_restpipe_sets_are_not_a_handlers(name: str) -> None:
    for spelt in (name, name.title()):
        with pytest.raises(ValueError, match=f"^the header {spelt} cannot be set by a handler$"):
            answer_of(Reply(headers={spelt: "x"}))


@pytest.mark.parametrize(
    "result",
    [
        (),
        (1, 2),
        Pair(1, 2),
        (JSON, 0),
        (JSON, 0, {}, "more"),
        (1, 0, {}),
        (JSON, "0", {}),
        (JSON, None, {}),
        (JSON, 2**31, {}),
        ("text/plain", 0, {"a": 1}),
        ("text/plain", 0, 5),
        ("text/plain\r\nX: y", 0, "x"),
        object(),
        {1, 2},
        {"a": object()},
        float("nan"),
        [float("inf")],
        "\ud800",
        io.StringIO("text"),
        Reply(status=99),
        Reply(status=100),
        Reply(status=600),
        Reply(status="200"),  # type: ignore[arg-type]
        Reply(headers={"A B": "x"}),
        Reply(headers={"A": "x\r\nB: y"}),
        Reply(headers={"A": "\u20ac"}),
        Reply(headers={"A": 1}),  # type: ignore[arg-type]
        Reply(headers={"": "x"}),
        Reply(headers={"Transfer-Encoding": "chunked"}),
        Reply(headers={"content-length": "5"}),
        Reply(headers={"Content-Type": "text/plain"}),
        Reply(headers={"X-Event-Return-Code": "0"}),
    ],
)
def test_what_cannot_be_sent_is_an_error(result: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        answer_of(result)


def test_the_length_of_a_file_is_known(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.seek(4)
        answer = answer_of(file)
        assert isinstance(answer.body, Stream)
        assert answer.head.body_length == 6
        assert file.tell() == 4
    with path.open("rb", buffering=0) as raw:
        assert answer_of(raw).head.body_length == 10


def test_the_length_of_what_unpacks_is_not() -> None:
    packed = io.BytesIO(gzip.compress(b"0" * 1000))
    with gzip.open(packed) as file:
        for result in (file, io.BufferedReader(file)):
            answer = answer_of(result)
            assert isinstance(answer.body, Stream)
            assert not answer.head.HasField("body_length")


def test_generators_and_iterators_are_streams() -> None:
    for source in ((x for x in [b""]), iter([b"a"]), map(str, [1]), io.BytesIO(b"abc")):
        answer = answer_of(source)
        assert isinstance(answer.body, Stream)
        assert answer.body.source is source
        assert answer.head.content_type == BYTES
    assert answer.head.body_length == 3


def test_an_exception_becomes_a_document() -> None:
    try:
        raise KeyError("missing")
    except KeyError as exc:
        answer = answer_of_exception(exc)
    assert (answer.head.code, answer.head.status, answer.head.content_type) == (251, 500, JSON)
    assert isinstance(answer.body, bytes)
    said = json.loads(answer.body)["exception"]
    assert said["class"] == "KeyError"
    assert said["message"] == "'missing'"
    assert "test_results.py" in said["traceback"]


def test_an_exception_that_cannot_be_shown_is_still_answered() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    answer = answer_of_exception(Mute())
    assert b"Mute" in bytes(answer.body)  # type: ignore[arg-type]


def test_authors_choose_code_and_status() -> None:
    answer = answer_of_exception(EventError(17, "no such file", status=404))
    assert (answer.head.code, answer.head.status) == (17, 404)
    with pytest.raises(ValueError, match="code 0"):
        EventError(0)


class Careless(EventError):
    def __init__(self) -> None:
        pass


def changed(**more: Any) -> EventError:
    error = EventError(7, "x")
    vars(error).update(more)
    return error


@pytest.mark.parametrize(
    "error", [Careless(), changed(code="7"), changed(code=0), changed(status=204), changed(status="404")]
)
def test_an_error_that_cannot_be_sent_is_one_all_the_same(error: EventError) -> None:
    answer = answer_of_exception(error)
    assert (answer.head.code, answer.head.status) == (251, 500)
    assert json.loads(answer.body)["exception"]["class"] == type(error).__name__  # type: ignore[arg-type]


class Index:
    """An integer, as numpy has them."""

    def __index__(self) -> int:
        return 9


class Number(enum.IntEnum):
    NINE = 9


@pytest.mark.parametrize("code", [9, Number.NINE, Index()])
def test_codes_are_integers_of_any_kind(code: Any) -> None:
    assert answer_of(("text/plain", code, "x")).head.code == 9
    assert answer_of_exception(EventError(code)).head.code == 9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"code": "no such article"}, "a code is an integer of 32 bits, not 'no such article'"),
        ({"code": 2**40}, "a code is an integer of 32 bits, not 1099511627776"),
        ({"code": 7.0}, "a code is an integer"),
        ({"code": decimal.Decimal(7)}, "a code is an integer"),
        ({"code": None}, "a code is an integer"),
        ({"code": False}, "code 0 says that all went well"),
        ({"code": 7, "status": "404"}, "a status is an integer from 200 to 599, not '404'"),
        ({"code": 7, "status": 100}, "a status is an integer from 200 to 599, not 100"),
        ({"code": 7, "status": 204}, "status 204 has no content"),
    ],
)
def test_a_mistake_is_told_where_it_is_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(said)):
        EventError(**options)


class Unshowable(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError


def test_an_exception_without_a_traceback_is_still_answered() -> None:
    assert answer_of_exception(Unshowable()).head.code == 251


@pytest.mark.parametrize("numbers", [(0.1, 0.2, 0.3), (1, 2, 3)])
def test_a_tuple_of_numbers_is_told_what_would_be_right(numbers: tuple[float, ...]) -> None:
    with pytest.raises(TypeError, match="JSON wants a list"):
        answer_of(numbers)


def test_the_answer_of_a_method_for_head_need_not_know_a_length() -> None:
    assert not read(results.of_head(results.answer_of(None))).head.HasField("body_length")
    assert read(results.of_head(results.answer_of(("text/plain", 0, "x")))).head.body_length == 1


def test_unhandled() -> None:
    answer = read(results.answer_unhandled("PUT", "time", ["GET"]))
    assert (answer.head.code, answer.head.status) == (255, 404)
    assert json.loads(answer.body)["error"]["allow"] == ["GET"]  # type: ignore[arg-type]
