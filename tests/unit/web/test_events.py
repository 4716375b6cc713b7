from __future__ import annotations

from restpipe.web.events import EventIds, of_request
from restpipe.web.paths import Destination

ID = bytes(range(16))
TO = Destination("a", "/time//x")


def test_ids_are_never_given_twice() -> None:
    mine, others = EventIds(), EventIds()
    given = [ids.next() for ids in (mine, others) for _ in range(100)]
    assert len(set(given)) == 200
    assert {len(each) for each in given} == {16}


def test_what_the_event_says() -> None:
    fields = [
        (b"host", b"localhost"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"5"),
        (b"traceparent", b"00-1-2-01"),
        (b"tracestate", b"a=1"),
        (b"tracestate", b"b=2"),
        (b"accept", b"*/*"),
        (b"x-twice", b"1"),
        (b"x-twice", b"2"),
        (b"x-latin", b" caf\xe9 "),
    ]
    event, prefer, has_key = of_request(ID, "PUT", TO, fields, 5)
    assert (event.id, event.verb, event.to, event.target) == (ID, "PUT", "a", "/time//x")
    assert (event.content_type, event.traceparent, event.tracestate) == ("text/plain", "00-1-2-01", "a=1,b=2")
    assert event.body_length == 5
    assert [(header.name, header.value) for header in event.headers] == [
        ("accept", "*/*"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("x-latin", "caf\xe9"),
    ]
    assert (prefer, has_key) == ([], False)


def test_a_body_of_unknown_length() -> None:
    assert not of_request(ID, "PUT", TO, [], None)[0].HasField("body_length")
    assert of_request(ID, "PUT", TO, [], 0)[0].HasField("body_length")


def test_headers_of_this_hop_stay_here() -> None:
    fields = [
        (b"connection", b"close, X-One"),
        (b"connection", b"x-two"),
        (b"x-one", b"1"),
        (b"x-two", b"2"),
        (b"x-three", b"3"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"keep-alive", b"5"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"proxy-authorization", b"secret"),
        (b"proxy-connection", b"close"),
        (b"expect", b"100-continue"),
    ]
    event, _, _ = of_request(ID, "GET", TO, fields, 0)
    assert [header.name for header in event.headers] == ["x-three"]


def test_what_the_web_worker_itself_needs_to_know() -> None:
    fields = [(b"prefer", b"wait=5"), (b"prefer", b"respond-async"), (b"idempotency-key", b'"k"')]
    event, prefer, has_key = of_request(ID, "POST", TO, fields, 0)
    assert prefer == ["wait=5", "respond-async"]
    assert has_key
    assert [header.name for header in event.headers] == ["prefer", "prefer", "idempotency-key"]
