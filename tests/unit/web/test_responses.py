from __future__ import annotations

import json

import pytest

from restpipe.errors import PROBLEMS, Code, Delivered, Reset
from restpipe.http import RETURN_CODE
from restpipe.protocol.schema_pb2 import Header, Reply
from restpipe.web import responses
from restpipe.web.responses import BadReply


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_problem(code: Code) -> None:
    document = responses.of_failure(Reset(code, "because", Delivered.NO), b"\x01" * 16)
    said = json.loads(document.body)
    headers = dict(document.headers)
    assert document.status == said["status"] == (PROBLEMS[code].status if code in PROBLEMS else 502)
    assert said["type"].startswith("urn:restpipe:problem:")
    assert said["title"]
    assert (said["detail"], said["delivered"], said["event_id"]) == ("because", "no", "01" * 16)
    assert headers["content-type"] == "application/problem+json"
    assert ("retry-after" in headers) is (document.status == 503)
    assert RETURN_CODE not in headers


def test_types_are_told_apart() -> None:
    slugs = [problem.slug for problem in PROBLEMS.values()]
    ours = [responses.UNKNOWN_PATH, responses.UNKNOWN_VERB, responses.INTERNAL, responses.GIVEN_UP]
    slugs += [problem.slug for problem in ours]
    assert len(set(slugs)) == len(slugs)


@pytest.mark.parametrize(
    ("delivered", "word"), [(Delivered.NO, "no"), (Delivered.YES, "yes"), (Delivered.UNKNOWN, "unknown")]
)
def test_delivered_is_a_word(delivered: Delivered, word: str) -> None:
    document = responses.of_failure(Reset(Code.DEADLINE, delivered=delivered))
    said = json.loads(document.body)
    assert said["delivered"] == word
    assert said["detail"] == said["title"]
    assert "event_id" not in said
    assert "names" not in said


def test_names_where_more_than_one_matches() -> None:
    reset = Reset(Code.AMBIGUOUS_PEER, delivered=Delivered.NO, names=("a", "b"))
    assert json.loads(responses.of_failure(reset).body)["names"] == ["a", "b"]


def test_a_reply() -> None:
    reply = Reply(code=7, status=404, content_type="text/a", body_length=3)
    reply.headers.add(name="ETag", value='"x"\t')
    assert responses.of_reply(reply) == (
        404,
        [
            ("x-event-return-code", "7"),
            ("content-type", "text/a"),
            ("etag", '"x"'),
            ("content-length", "3"),
        ],
    )


def test_a_reply_that_says_nothing_is_fine() -> None:
    assert responses.of_reply(Reply()) == (200, [("x-event-return-code", "0")])


@pytest.mark.parametrize(
    "name", ["Connection", "Keep-Alive", "TE", "Upgrade", "Date", "Server", "Content-Length"]
)
def test_headers_that_are_not_the_handlers(name: str) -> None:
    reply = Reply(headers=[Header(name=name, value="1")])
    assert responses.of_reply(reply).headers == [("x-event-return-code", "0")]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\n", "\xe4", "a\x00"])
def test_header_names_that_http_cannot_carry(name: str) -> None:
    with pytest.raises(BadReply):
        responses.of_reply(Reply(headers=[Header(name=name, value="1")]))


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\x00", "\u20ac", "\x7f"])
def test_header_values_that_http_cannot_carry(value: str) -> None:
    with pytest.raises(BadReply):
        responses.of_reply(Reply(headers=[Header(name="a", value=value)]))
    with pytest.raises(BadReply):
        responses.of_reply(Reply(content_type=value))


@pytest.mark.parametrize("status", [1, 100, 101, 199, 600, 4294967295])
def test_statuses_that_end_no_request(status: int) -> None:
    with pytest.raises(BadReply):
        responses.of_reply(Reply(status=status))


@pytest.mark.parametrize("status", [204, 304])
def test_no_length_where_there_is_no_body(status: int) -> None:
    assert "content-length" not in dict(responses.of_reply(Reply(status=status, body_length=4)).headers)
