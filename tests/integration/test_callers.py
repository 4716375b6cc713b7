"""Callers that are slow, old, half-closed or gone, against real processes."""

from __future__ import annotations

import os
import signal
import socket
import time
import uuid
from pathlib import Path

import pytest

from tests.support import http
from tests.support.conditions import wait_for
from tests.support.nodes import Pair

PATH = "/server"


@pytest.fixture
def web(pair: Pair) -> Path:
    """The client's web socket: it asks the server."""
    return pair.client.sockets / "web.sock"


def head(target: str, *fields: str, verb: str = "GET", version: str = "1.1") -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"{verb} {PATH}/{target} HTTP/{version}\r\nHost: x\r\n{lines}\r\n".encode()


def upload(target: str, *fields: str) -> bytes:
    return head(target, "Transfer-Encoding: chunked", *fields, verb="POST")


def is_cancelled(pair: Pair, mark: str) -> bool:
    said = pair.client.http.get(f"{PATH}/cancelled//{mark}").json
    assert isinstance(said, bool)
    return said


def response(sock: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of one response of known length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(1)
    length = int(data.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    body = b""
    while len(body) < length:
        body += sock.recv(length - len(body))
    return data, body


# Half-closed, and gone.


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("fields", [(), ("Connection: close",), ("Connection: keep-alive",)])
def test_a_caller_that_half_closes_gets_its_response(
    web: Path, version: str, fields: tuple[str, ...]
) -> None:
    with http.connect(web) as sock:
        sock.sendall(head("slow//0.3", *fields, version=version))
        sock.shutdown(socket.SHUT_WR)
        assert http.read_all(sock).endswith(b'{"slept": 0.3}')


def test_a_stream_goes_on_to_a_caller_that_half_closes_and_pauses(web: Path) -> None:
    with http.connect(web) as sock:
        sock.sendall(head("pieces//100/10000"))
        first = sock.recv(1000)
        sock.shutdown(socket.SHUT_WR)
        # Longer than it takes to look for callers that are gone.
        time.sleep(1.5)
        assert (first + http.read_all(sock)).endswith(b"\r\n0\r\n\r\n")


def test_what_was_sent_ahead_of_a_half_close_is_answered(web: Path) -> None:
    with http.connect(web) as sock:
        sock.sendall(head("slow//0.2") + head("told", verb="PUT") + head("time"))
        sock.shutdown(socket.SHUT_WR)
        assert http.read_all(sock).count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("ahead", [0, 100_000], ids=["alone", "with much sent ahead"])
@pytest.mark.parametrize("half_closes", [False, True])
@pytest.mark.parametrize("noun", ["slow//60/", "endless//"])
def test_one_that_has_gone_is_gone(pair: Pair, web: Path, noun: str, half_closes: bool, ahead: int) -> None:
    mark = uuid.uuid4().hex
    with http.connect(web) as sock:
        sock.sendall(head(noun + mark) + bytes(ahead))
        if half_closes:
            sock.shutdown(socket.SHUT_WR)
        if noun.startswith("slow"):
            wait_for(lambda: pair.client.http.get(f"{PATH}/slow/here").json, "the method")
        else:
            assert sock.recv(1000)
        assert not is_cancelled(pair, mark)
    wait_for(lambda: is_cancelled(pair, mark), "the handler hears of it")


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /ser",
        head("told")[:-2],
        upload("digest")[:-1],
        upload("digest"),
        upload("told") + b"5\r\nhel",
        head("told", "Content-Length: 9", verb="PUT") + b"abc",
        head("told", "Content-Length: 9", "Expect: 100-continue", verb="PUT"),
        head("pieces//1000/10000"),
        head("nowhere", "Content-Length: 99999999", verb="POST") + bytes(1000),
    ],
)
@pytest.mark.parametrize("half_closes", [False, True])
def test_one_that_goes_in_the_middle_leaves_nothing_behind(
    pair: Pair, web: Path, begun: bytes, half_closes: bool
) -> None:
    with http.connect(web) as sock:
        sock.sendall(begun)
        if half_closes:
            sock.shutdown(socket.SHUT_WR)
    assert pair.client.http.get(f"{PATH}/time").status == 200
    assert "Traceback" not in pair.client.web.log_text()


# Old.


def test_http_1_0_keeps_its_connection_if_it_asks(web: Path) -> None:
    with http.connect(web) as sock:
        for _ in range(2):
            sock.sendall(head("told", "Connection: Keep-Alive", version="1.0"))
            assert b"\r\nconnection: keep-alive\r\n" in response(sock)[0].lower()
        sock.sendall(head("pieces//100/10000", "Connection: Keep-Alive", version="1.0"))
        told, _, body = http.read_all(sock).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in told
    assert b"\r\nconnection: close" in told
    assert body == b"".join(bytes([number]) * 10_000 for number in range(100))


def test_head_of_a_stream_leaves_the_connection_usable(web: Path) -> None:
    with http.connect(web) as sock:
        sock.sendall(head("pieces//3/5", verb="HEAD") + head("time"))
        data = sock.recv(65536)
        while data.count(b"\r\n\r\n") < 2:
            data += sock.recv(65536)
    assert data.count(b"HTTP/1.1 200 OK") == 2


# Bodies that are not wanted, or not at once.


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue", "a=b, 100-continue"])
def test_a_body_is_asked_for(web: Path, expect: str) -> None:
    with http.connect(web) as sock:
        sock.sendall(head("told", "Content-Length: 2", f"Expect: {expect}", verb="PUT"))
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hi")
        assert b'"data": "6869"' in response(sock)[1]


@pytest.mark.parametrize("sends_it", [False, True])
def test_a_refused_body_is_not_asked_for(web: Path, sends_it: bool) -> None:
    with http.connect(web) as sock:
        size = 5 << 30
        sock.sendall(head("digest", f"Content-Length: {size}", "Expect: 100-continue", verb="POST"))
        if sends_it:
            for _ in range(50):
                sock.sendall(bytes(100_000))
        told, _ = response(sock)
        assert told.startswith(b"HTTP/1.1 413 ")
        assert b"\r\nconnection: close\r\n" in told
        assert sock.recv(1000) == b""


def test_very_many_headers(web: Path) -> None:
    with http.connect(web) as sock:
        sock.sendall(head("told", *["a:"] * 8_000))
        told, body = response(sock)
    assert told.startswith(b"HTTP/1.1 200 ")
    assert body.count(b'"a"') == 1


# While the worker stops.


def test_a_slow_reader_and_an_upload_outlive_a_reload(pair: Pair, web: Path) -> None:
    with http.connect(web) as reader, http.connect(web) as writer:
        reader.sendall(head("pieces//100/10000"))
        writer.sendall(upload("digest") + b"2\r\nhe\r\n")
        assert reader.recv(1000)
        before = pair.client.web.log_text().count("Booting worker")
        os.kill(pair.client.web.pid, signal.SIGHUP)
        wait_for(lambda: pair.client.web.log_text().count("Booting worker") > before, "the new worker")
        wait_for(lambda: pair.client.http.get(f"{PATH}/time").status == 200, "an answer")
        writer.sendall(b"3\r\nllo\r\n0\r\n\r\n")
        assert http.read_all(reader).endswith(b"\r\n0\r\n\r\n")
        told, body = response(writer)
    assert told.startswith(b"HTTP/1.1 200 ")
    assert b'"size": 5' in body
