"""Raw requests against the real server: each is refused, or read in one way only."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.unit.web.fake_daemon import FakeDaemon
from tests.unit.web.web_process import WebProcess, receive_all

HOST = b"Host: localhost\r\n"
GET = b"GET /client/a/echo HTTP/1.1\r\n" + HOST
POST = b"POST /client/a/echo HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /client/a/smuggled HTTP/1.1\r\n" + HOST + b"\r\n"

REFUSED = {
    "length and coding": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "coding and length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "a hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with an underscore": POST + b"Content-Length: 1_0\r\n\r\nhellohello",
    "an empty length": POST + b"Content-Length:\r\n\r\nhello",
    "a huge length": POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "a coding after chunked": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding before chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "almost chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "vertical tab before chunked": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked in HTTP/1.0": b"POST /client/a/echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "a tab before the colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": POST + b"X-Long: one\r\n two\r\n\r\n",
    "a folded length": POST + b"Content-Length:\r\n 5\r\n\r\nhello",
    "a folded coding": POST + b"Transfer-Encoding: chun\r\n\tked\r\n\r\n0\r\n\r\n",
    "a space before the first header": b"GET /client/a/echo HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "a header without a colon": GET + b"Nonsense\r\n\r\n",
    "a header without a name": GET + b": value\r\n\r\n",
    "a bare line feed after the request line": b"GET /client/a/echo HTTP/1.1\nHost: localhost\r\n\r\n",
    "bare line feeds": b"GET /client/a/echo HTTP/1.1\nHost: localhost\n\n",
    "a bare line feed in a header": GET + b"X-A: b\nX-C: d\r\n\r\n",
    "a bare carriage return in a header": GET + b"X-A: b\rTransfer-Encoding: chunked\r\n\r\n",
    "a bare carriage return in the request line": b"GET /client/a/echo\rX HTTP/1.1\r\n" + HOST + b"\r\n",
    "a NUL in a header": GET + b"X-A: b\x00c\r\n\r\n",
    "a NUL in the target": b"GET /client/a/ec\x00ho HTTP/1.1\r\n" + HOST + b"\r\n",
    "a control character in a header": GET + b"X-A: b\x01c\r\n\r\n",
    "two spaces after the verb": b"GET  /client/a/echo HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the target": b"GET /client/a/ec ho HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab in the request line": b"GET\t/client/a/echo HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /client/a/echo\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /client/a/echo\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9 with headers": b"GET /client/a/echo HTTP/0.9\r\n" + HOST + b"\r\n",
    "a version of two digits": b"GET /client/a/echo HTTP/1.10\r\n" + HOST + b"\r\n",
    "a lower-case protocol": b"GET /client/a/echo http/1.1\r\n" + HOST + b"\r\n",
    "no host": b"GET /client/a/echo HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: other\r\n\r\n",
    "a host with a path": b"GET /client/a/echo HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a host with a user": b"GET /client/a/echo HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "a host with a space": b"GET /client/a/echo HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a port that is no number": b"GET /client/a/echo HTTP/1.1\r\nHost: a:http\r\n\r\n",
    "a host with a broken escape": b"GET /client/a/echo HTTP/1.1\r\nHost: %:1\r\n\r\n",
    "a host that is not ASCII": b"GET /client/a/echo HTTP/1.1\r\nHost: \xe4\r\n\r\n",
    "an open bracket": b"GET /client/a/echo HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "a bare line feed before the request": b"\n" + GET + b"\r\n",
    "a bare carriage return before the request": b"\r" + GET + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "CONNECT": b"CONNECT localhost:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a verb that is no token": b"G@T /client/a/echo HTTP/1.1\r\n" + HOST + b"\r\n",
    "headers without an end": GET + b"X-A: " + b"a" * 40000,
    "endless headers": GET + b"X-A: b\r\n" * 8000,
    "a chunk size that is none": CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a prefix": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a signed chunk size": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "an empty chunk size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "a chunk size after a space": CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
    "a huge chunk size": CHUNKED + b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "a chunk size that wraps around": CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
    "a chunk shorter than it says": CHUNKED + b"6\r\nhello\r\n0\r\n\r\n",
    "a bare line feed after a chunk size": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "a bare line feed after a chunk": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "a bare line feed in a chunk extension": CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "a bare carriage return in a chunk extension": CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a chunk extension without a name": CHUNKED + b"5;\r\nhello\r\n0\r\n\r\n",
    "a chunk extension without a value": CHUNKED + b"5;a=\r\nhello\r\n0\r\n\r\n",
    "an open quote in a chunk extension": CHUNKED + b'5;a="b\r\nhello\r\n0\r\n\r\n',
    "a space after a chunk size": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "an endless chunk extension": CHUNKED + b"5;" + b"a" * 5000,
    "a bare line feed after the last chunk": CHUNKED + b"0\n\n",
    "a folded trailer": CHUNKED + b"0\r\nX-A: b\r\n c\r\n\r\n",
    "endless trailers": CHUNKED + b"0\r\n" + b"X-A: bcdefghij\r\n" * 1000,
}


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED)
def test_ambiguous_requests_are_refused(request_bytes: bytes, web: WebProcess, daemon: FakeDaemon) -> None:
    response = web.exchange(request_bytes)
    head, _, body = response.partition(b"\r\n\r\n")
    assert response.count(b"HTTP/1.1 ") == 1
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ", b"HTTP/1.1 501 ", b"HTTP/1.1 505 "))
    assert b"\r\nconnection: close" in head
    assert b"application/problem+json" in head
    assert b"x-event-return-code" not in head
    assert json.loads(body)["delivered"] == "no"
    assert all(event.event.target == "/echo" and not event.body_ended for event in daemon.events)


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED)
def test_they_are_refused_however_they_are_cut(
    request_bytes: bytes, web: WebProcess, daemon: FakeDaemon
) -> None:
    middle = len(request_bytes) // 2
    with web.connect() as sock:
        sock.sendall(request_bytes[:middle])
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(request_bytes[middle:])
        response = receive_all(sock)
    assert response.count(b"HTTP/1.1 ") == 1
    assert response.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ", b"HTTP/1.1 501 ", b"HTTP/1.1 505 "))
    assert not any(event.body_ended for event in daemon.events)


WELL_FORMED = {
    "a later minor version": GET.replace(b"1.1", b"1.9") + b"\r\n",
    "an address of IPv6": GET.replace(b"localhost", b"[2001:db8::1]:80") + b"\r\n",
    "an empty host": GET.replace(b"localhost", b"") + b"\r\n",
    "an empty port": GET.replace(b"localhost", b"a:") + b"\r\n",
    "odd but allowed characters in the host": GET.replace(b"localhost", b"a_b=c%20") + b"\r\n",
    "empty lines before it": b"\r\n\r\n" + GET + b"\r\n",
    "zeros before a length": POST + b"Content-Length: 0000000000000000000000005\r\n\r\nhello",
    "zeros before a chunk size": CHUNKED + b"00000000000000000005\r\nhello\r\n00000000000000000000\r\n\r\n",
    "chunk extensions": CHUNKED + b'5 ; a=b;c ; d = "e;\\"\xe4"\r\nhello\r\n0;f\r\n\r\n',
}


@pytest.mark.parametrize("request_bytes", WELL_FORMED.values(), ids=WELL_FORMED)
def test_what_the_standard_allows_is_read(request_bytes: bytes, web: WebProcess, daemon: FakeDaemon) -> None:
    response = web.exchange(request_bytes.replace(b"\r\nHost", b"\r\nConnection: close\r\nHost"))
    assert response.startswith(b"HTTP/1.1 200 ")
    assert json.loads(response.partition(b"\r\n\r\n")[2])["body"] in ("", "hello")


def test_the_server_tells_its_verbs(web: WebProcess, daemon: FakeDaemon) -> None:
    response = web.exchange(b"OPTIONS * HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
    assert response.startswith(b"HTTP/1.1 204 ")
    assert b"\r\nallow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" in response
    assert not daemon.events


TARGETS = {
    "absolute": (b"http://localhost/client/a/echo//x%2Fy?z=", "/echo//x%2Fy?z="),
    "absolute with another host": (b"HTTP://example.org:80/client/a/echo", "/echo"),
    "absolute with an address of IPv6": (b"https://[::1]/client/a/echo", "/echo"),
    "double slashes": (b"/client/a//echo///x//", "//echo///x//"),
    "dots": (b"/client/a/echo/../../b/./x", "/echo/../../b/./x"),
    "an empty query": (b"/client/a/echo?", "/echo?"),
    "question marks": (b"/client/a/echo?a?b=c&&", "/echo?a?b=c&&"),
    "escapes": (b"/client/a/echo//%2f%2F%00%e2%82%ac", "/echo//%2f%2F%00%e2%82%ac"),
    "signs": (b"/client/a/echo//!$'()*,;:@[]{}|\\^`\"<>~", "/echo//!$'()*,;:@[]{}|\\^`\"<>~"),
    "no noun": (b"/client/a/", "/"),
}


@pytest.mark.parametrize(("target", "expected"), TARGETS.values(), ids=TARGETS)
def test_targets_arrive_byte_for_byte(target: bytes, expected: str, web: WebProcess) -> None:
    response = web.exchange(b"GET " + target + b" HTTP/1.1\r\nConnection: Close\r\n" + HOST + b"\r\n")
    assert response.startswith(b"HTTP/1.1 200 ")
    assert json.loads(response.partition(b"\r\n\r\n")[2])["target"] == expected


ODD_TARGETS = {
    "an asterisk and more": (b"*/client/a/echo", 400),
    "absolute without a host": (b"http:///client/a/echo", 400),
    "absolute with a port alone": (b"http://:80/client/a/echo", 400),
    "absolute with a user": (b"http://u@localhost/client/a/echo", 400),
    "absolute with an odd host": (b"http://a<b/client/a/echo", 400),
    "authority": (b"localhost:80", 400),
    "another scheme": (b"ftp://localhost/client/a/echo", 400),
    "no slash": (b"client/a/echo", 400),
    "fragment": (b"/client/a/echo#x", 400),
    "not ASCII": (b"/client/a/\xc3\xa4", 400),
    "a broken escape": (b"/client/a/echo//%zz", 400),
    "a name that is not UTF-8": (b"/client/%ff/echo", 400),
    "no name": (b"/client//echo", 400),
    "absolute without a path": (b"http://localhost", 404),
    "double slash in front": (b"//client/a/echo", 404),
    "no path": (b"/", 404),
    "the other role's": (b"/server/echo", 404),
    "no noun at all": (b"/client/a", 404),
    "an escaped prefix": (b"/%63lient/a/echo", 404),
}


@pytest.mark.parametrize(("target", "status"), ODD_TARGETS.values(), ids=ODD_TARGETS)
def test_odd_targets_are_refused(target: bytes, status: int, web: WebProcess, daemon: FakeDaemon) -> None:
    response = web.exchange(b"OPTIONS " + target + b" HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
    assert response.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in response
    assert not daemon.events


def test_pipelined_requests_are_answered_in_turn(web: WebProcess) -> None:
    requests = [
        POST + b"Content-Length: 5\r\n\r\nfirst",
        b"\r\n" + CHUNKED + b"3;x=y\r\nsec\r\n3\r\nond\r\n0\r\nX-Trailer: t\r\n\r\n",
        b"GET /client/a/third HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n",
        SMUGGLED,
    ]
    response = web.exchange(b"".join(requests))
    bodies = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in response.split(b"HTTP/1.1 200 OK")[1:]]
    assert [(body["target"], body["body"]) for body in bodies] == [
        ("/echo", "first"),
        ("/echo", "second"),
        ("/third", ""),
    ]


def test_a_refusal_waits_for_its_turn(web: WebProcess) -> None:
    head = b"HEAD /client/a/echo HTTP/1.1\r\n" + HOST + b"\r\n"
    response = web.exchange(head + head + b"GET nonsense HTTP/9\r\n\r\n")
    assert [part[:3] for part in response.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"400"]


def test_a_request_may_come_byte_by_byte(web: WebProcess) -> None:
    request = CHUNKED.replace(b"Host", b"Connection: close\r\nHost") + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    response = web.exchange(*(bytes([byte]) for byte in request))
    assert json.loads(response.partition(b"\r\n\r\n")[2])["body"] == "hello!"


def test_trailers_do_not_become_headers(web: WebProcess) -> None:
    request = CHUNKED.replace(b"Host", b"Connection: close\r\nHost") + b"0\r\nX-Late: 1\r\nHost: b\r\n\r\n"
    response = web.exchange(request)
    assert response.startswith(b"HTTP/1.1 200 ")
    assert b"x-late" not in response


def test_upgrades_are_ignored(web: WebProcess) -> None:
    request = (
        POST + b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgRade: h2c\r\nHTTP2-Settings: AAMA\r\n"
        b"Content-Length: 5\r\n\r\nhello"
    )
    response = web.exchange(request)
    said = json.loads(response.partition(b"\r\n\r\n")[2])
    assert said["body"] == "hello"
    assert not [name for name, _ in said["headers"] if name in ("upgrade", "http2-settings", "connection")]


def test_a_fault_of_one_connection_leaves_the_others_alone(web: WebProcess) -> None:
    with web.connect() as steady:
        for request in list(REFUSED.values())[:5]:
            web.exchange(request)
        steady.sendall(GET + b"Connection: close\r\n\r\n")
        assert receive_all(steady).startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in web.log
