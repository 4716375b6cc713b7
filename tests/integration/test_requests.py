"""What a caller can ask and is answered, through real processes in both directions."""

from __future__ import annotations

import hashlib
import socket
import time
import uuid
from collections.abc import Iterator

import httpx
import pytest
import requests

import restpipe
from tests.integration.conftest import client_of
from tests.support import http
from tests.support.conditions import wait_for
from tests.support.nodes import Node, Pair

TO_SERVER = "/server"
TO_CLIENT = "/client/client-1"


@pytest.fixture(params=["client asks", "server asks"])
def caller(request: pytest.FixtureRequest, pair: Pair) -> Iterator[tuple[httpx.Client, str]]:
    """An HTTP client at one end of the pipe, and the path that leads to the other."""
    node, path = (pair.client, TO_SERVER) if request.param == "client asks" else (pair.server, TO_CLIENT)
    with client_of(node) as client:
        yield client, path


def near(pair: Pair, path: str) -> Node:
    return pair.client if path == TO_SERVER else pair.server


Caller = tuple[httpx.Client, str]


@pytest.mark.parametrize("verb", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_verb_reaches_its_method(pair: Pair, caller: Caller, verb: str) -> None:
    client, path = caller
    response = client.request(verb, f"{path}/told")
    assert response.status_code == 200
    assert response.headers["X-Event-Return-Code"] == "0"
    assert response.json()["peer"] == (pair.client_name if path == TO_SERVER else "server")


def test_head_has_the_headers_of_get_and_no_body(caller: Caller) -> None:
    client, path = caller
    response = client.head(f"{path}/binary")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Length"] == "256"


def test_arguments_and_query_are_handed_over_exactly(caller: Caller) -> None:
    client, path = caller
    target = f"{path}/told//a%2Fb/%C3%A4/hello%20//%25?x=1&y=%26&x=2"
    told = client.get(httpx.URL(f"http://localhost{target}")).json()
    assert told["arguments"] == ["a/b", "ä", "hello ", "", "%"]
    assert told["query"] == {"x": ["1", "2"], "y": "&"}


def test_bodies_come_as_their_type_says(caller: Caller) -> None:
    client, path = caller
    told = client.post(f"{path}/told", json={"a": [1, "ü"]}).json()
    assert (told["mime"], told["data"]) == ("application/json", {"a": [1, "ü"]})
    told = client.post(f"{path}/told", content="grün".encode(), headers={"Content-Type": "text/plain"}).json()
    assert (told["kind"], told["data"]) == ("str", "grün")
    binary = bytes(range(256))
    told = client.put(
        f"{path}/told", content=binary, headers={"Content-Type": "application/octet-stream"}
    ).json()
    assert (told["kind"], bytes.fromhex(told["data"])) == ("bytes", binary)
    told = client.get(f"{path}/told").json()
    assert (told["mime"], told["data"]) == ("", "")


def test_request_headers_reach_the_handler_but_those_of_the_hop(caller: Caller) -> None:
    client, path = caller
    headers = {"X-Wanted": "ja", "Connection": "keep-alive, X-Hop", "X-Hop": "nein"}
    seen = {name.lower() for name in client.get(f"{path}/told", headers=headers).json()["headers"]}
    assert "x-wanted" in seen
    assert not seen & {"connection", "x-hop", "transfer-encoding"}


def test_replies_of_all_kinds(caller: Caller) -> None:
    client, path = caller
    nothing = client.get(f"{path}/nothing")
    assert (nothing.status_code, nothing.content, nothing.headers["X-Event-Return-Code"]) == (200, b"", "0")
    triple = client.get(f"{path}/tuple")
    assert (triple.status_code, triple.headers["X-Event-Return-Code"]) == (200, "7")
    assert triple.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert triple.text == "sieben: ü"
    assert client.get(f"{path}/binary").content == bytes(range(256))
    reply = client.get(f"{path}/reply")
    assert (reply.status_code, reply.headers["Location"], reply.json()) == (201, "/here", {"made": True})


@pytest.mark.parametrize("noun", ["pieces", "async/pieces"])
def test_generators_are_streamed_byte_for_byte(caller: Caller, noun: str) -> None:
    client, path = caller
    content = client.get(f"{path}/{noun}//300/9999").content
    assert content == b"".join(bytes([number % 256]) * 9999 for number in range(300))


def test_a_chunked_upload_is_streamed_byte_for_byte(caller: Caller) -> None:
    client, path = caller
    pieces = [bytes([number % 251]) * 70_001 for number in range(200)]
    told = client.post(f"{path}/digest", content=iter(pieces)).json()
    whole = b"".join(pieces)
    assert told == {"sha256": hashlib.sha256(whole).hexdigest(), "size": len(whole)}


def test_the_deadline_is_the_callers(caller: Caller) -> None:
    client, path = caller
    response = client.get(f"{path}/slow//60", headers={"Prefer": "wait=0.3"})
    assert response.status_code == 504
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["type"] == "urn:restpipe:problem:deadline"
    assert response.json()["delivered"] == "unknown"
    assert "X-Event-Return-Code" not in response.headers


@pytest.mark.parametrize("noun", ["digest", "told"])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_that_moves_is_not_late(caller: Caller, noun: str, chunked: bool) -> None:
    client, path = caller
    pieces = [bytes(100), bytes(90_000), bytes(100), bytes(100)]

    def upload() -> Iterator[bytes]:
        for piece in pieces:
            time.sleep(0.4)
            yield piece

    headers = {"Prefer": "wait=1"}
    if not chunked:
        headers["Content-Length"] = str(sum(map(len, pieces)))
    response = client.post(f"{path}/{noun}", content=upload(), headers=headers)
    assert response.status_code == 200


def test_an_upload_that_stands_still_is_late(pair: Pair, caller: Caller) -> None:
    _, path = caller
    head = f"POST {path}/digest HTTP/1.1\r\nHost: x\r\nPrefer: wait=0.3\r\nContent-Length: 9\r\n\r\nabc"
    with http.connect(near(pair, path).sockets / "web.sock") as sock:
        sock.sendall(head.encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize("noun", ["slow//60", "endless/"])
def test_a_callers_hang_up_cancels_the_handler(pair: Pair, caller: Caller, noun: str) -> None:
    client, path = caller
    mark = uuid.uuid4().hex
    with http.connect(near(pair, path).sockets / "web.sock") as sock:
        sock.sendall(f"GET {path}/{noun}/{mark} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        if noun == "endless/":
            assert sock.recv(65536)
        else:
            wait_for(lambda: client.get(f"{path}/pid").status_code == 200, "an answer beside it")
    wait_for(lambda: client.get(f"{path}/cancelled//{mark}").json(), "the handler hears of it")


def test_an_exception_comes_back_as_in_the_original(pair: Pair, caller: Caller) -> None:
    client, path = caller
    response = client.get(f"{path}/error")
    assert (response.status_code, response.headers["X-Event-Return-Code"]) == (500, "251")
    failure = response.json()["exception"]
    assert failure["class"] == "KeyError"
    assert "ünfortunate" in failure["message"]
    assert "get_error" in failure["traceback"]
    with pytest.raises(restpipe.PipeFailError) as caught:
        restpipe.raise_for_exception(response)
    assert (caught.value.return_code, caught.value.class_name) == (251, "KeyError")


def test_the_error_of_the_pipe_is_raised_for_requests_too(pair: Pair) -> None:
    """`requests` speaks no Unix sockets: a response of its own class is filled from a real answer."""
    with client_of(pair.client) as client:
        answer = client.get("/server/error")
    response = requests.Response()
    response.status_code = answer.status_code
    response.headers.update(answer.headers)
    response._content = answer.content
    with pytest.raises(restpipe.PipeFailError) as caught:
        restpipe.raise_for_exception(response)
    assert caught.value.class_name == "KeyError"


def test_a_reply_that_breaks_off_never_looks_whole(caller: Caller) -> None:
    client, path = caller
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(f"{path}/late/error")


def test_unknown_noun_client_and_path(pair: Pair) -> None:
    with client_of(pair.server) as client:
        noun = client.get("/client/client-1/nope")
        assert (noun.status_code, noun.headers["X-Event-Return-Code"]) == (404, "255")
        name = client.get("/client/nobody.invalid/time")
        assert (name.status_code, name.json()["type"]) == (404, "urn:restpipe:problem:unknown-peer")
        assert client.get("/server/time").status_code == 404
        assert client.request("BREW", "/client/client-1/told").status_code in (400, 405, 501)
    # Not all versions of httpx would send this as it is.
    malformed = http.raw(pair.server.http.path, b"GET /client/client-1/told//%zz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert malformed.startswith(b"HTTP/1.1 400 ")


def test_a_client_is_found_by_where_it_is_connected_from(pair: Pair) -> None:
    with client_of(pair.server) as client:
        for address in ("localhost", "127.0.0.1"):
            assert client.get(f"/client/{address}/told").status_code == 200


def test_a_body_over_the_handlers_limit_is_413(caller: Caller) -> None:
    client, path = caller
    response = client.post(
        f"{path}/length",
        content=b"x" * (17 << 20),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert response.status_code == 413
    assert response.json()["type"] == "urn:restpipe:problem:body-too-large"


def test_a_thousand_events_in_flight_over_one_link(pair: Pair) -> None:
    """The handler answers none before all have come."""
    count = 1000
    socks: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = http.connect(pair.server.sockets / "web.sock")
            socks.append(sock)
            target = f"/client/client-1/gathered//{count}"
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        for sock in socks:
            assert http.read_all(sock).endswith(b"\r\n\r\n1000")
    finally:
        for sock in socks:
            sock.close()


def test_a_body_that_does_not_come_is_said_to_be_missing(pair: Pair) -> None:
    head = b"POST /server/length HTTP/1.1\r\nHost: x\r\nPrefer: wait=0.3\r\nContent-Length: 2000\r\n\r\n"
    with http.connect(pair.client.sockets / "web.sock") as sock:
        sock.sendall(head + b"abc")
        answer = sock.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 504 ")
    assert "body did not come in time" in answer
    assert '"delivered": "no"' in answer


def test_an_event_keeps_one_identity(pair: Pair) -> None:
    with client_of(pair.client) as client:
        first, second = (client.get("/server/told").json()["event_id"] for _ in range(2))
    assert first != second
    assert len(bytes.fromhex(first)) == 16


def test_problems_are_json(pair: Pair) -> None:
    with client_of(pair.client) as client:
        problem = client.get("/")
    assert problem.headers["Content-Type"] == "application/problem+json"
    assert problem.json()["status"] == problem.status_code == 404
