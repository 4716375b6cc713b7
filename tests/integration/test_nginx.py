"""Debian's nginx in front of both web sockets, by the very configuration that the documentation gives."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.integration.conftest import HANDLERS
from tests.support import http
from tests.support.conditions import wait_for
from tests.support.identities import Authority
from tests.support.nodes import Options, Pair
from tests.support.processes import CHECKOUT, Process

CONFIGURATION = CHECKOUT / "docs" / "nginx.conf"

REST = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
{user}
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/replies;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    include {folder}/sites.conf;
}}
"""
"""What a system's own nginx.conf has around the virtual hosts."""


class Front(NamedTuple):
    """The sockets that stand for nginx's two ports, and the folders in which it would buffer."""

    server: Path
    client: Path
    buffers: tuple[Path, ...]


@pytest.fixture(scope="module")
def behind(authority: Authority) -> Iterator[Pair]:
    """The pair behind nginx."""

    def serving(name: str) -> Options:
        return {"handlers": {"path": str(HANDLERS), "event_class": f"behind.{name}"}}

    with (
        tempfile.TemporaryDirectory(prefix="rp-") as name,
        Pair(Path(name), authority, serving("OnServer"), serving("OnClient")) as pair,
    ):
        yield pair.start()


@pytest.fixture(scope="module")
def front(behind: Pair) -> Iterator[Front]:
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert binary is not None, "nginx is not installed (Debian: nginx-light)"
    with tempfile.TemporaryDirectory(prefix="rp-") as name:
        folder = Path(name)
        made = Front(folder / "8001", folder / "8002", (folder / "bodies", folder / "replies"))
        (folder / "sites.conf").write_text(_sites(behind, made))
        # As root it would give up its rights, and with them the access to the sockets.
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(REST.format(folder=folder, user=user))
        command = [binary, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        process = Process("nginx", command, folder)
        try:
            process.wait_until(lambda: _answers(made), "an answer")
            yield made
            assert process.terminate() == 0, process.log_text()
        finally:
            process.kill()


def _sites(pair: Pair, front: Front) -> str:
    text = CONFIGURATION.read_text()
    for written, ours in (
        ("/run/restpipe-server/web.sock", str(pair.server.sockets / "web.sock")),
        ("/run/restpipe-client/web.sock", str(pair.client.sockets / "web.sock")),
        ("listen 127.0.0.1:8001;", f"listen unix:{front.server};"),
        ("listen 127.0.0.1:8002;", f"listen unix:{front.client};"),
    ):
        assert text.count(written) == 1
        text = text.replace(written, ours)
    return text


def _answers(front: Front) -> bool:
    try:
        return all(http.Http(path).get("/").status == 404 for path in (front.server, front.client))
    except OSError:
        return False


def raw(path: Path, request: bytes) -> bytes:
    """All that nginx says until it closes. It must not hear of an end before: it takes that for a hang-up."""
    with http.connect(path) as sock:
        sock.sendall(request)
        return http.read_all(sock)


@pytest.fixture(params=["server asks", "client asks"])
def way(request: pytest.FixtureRequest, front: Front) -> tuple[Path, str]:
    """One of nginx's sockets, and the path behind it that leads through the pipe."""
    return (
        (front.server, "/client/localhost") if request.param == "server asks" else (front.client, "/server")
    )


Way = tuple[Path, str]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("/hello%20/world", ["hello ", "world"]),
        ("/a%2Fb/c", ["a/b", "c"]),
        ("//", ["", ""]),
        ("/x//y", ["x", "", "y"]),
        ("/../up/./here", ["..", "up", ".", "here"]),
        ("/%2e%2e%2fup", ["../up"]),
        ("/gr%C3%BCn/%25/+/a;b=c", ["grün", "%", "+", "a;b=c"]),
    ],
)
def test_arguments_come_through_untouched(way: Way, written: str, meant: list[str]) -> None:
    path, prefix = way
    answer = http.Http(path).get(f"{prefix}/told/{written}")
    assert (answer.status, answer.event_code) == (200, 0), answer.body
    assert answer.json["arguments"] == meant


def test_the_walkthrough(front: Front) -> None:
    answer = http.Http(front.client).get("/server/cat//hello%20/world")
    assert answer.json == {"result_from_server": "hello world"}
    answer = http.Http(front.server).get("/client/localhost/cat//hello%20/world")
    assert answer.json == {"result_from_client": "hello world"}


def test_a_chunked_upload_streams(way: Way, front: Front) -> None:
    path, prefix = way
    pieces = [bytes([number]) * 70_001 for number in range(200)]
    with http.client(path) as client:
        told = client.post(f"{prefix}/digest", content=iter(pieces)).json()
    whole = b"".join(pieces)
    assert told == {"sha256": hashlib.sha256(whole).hexdigest(), "size": len(whole)}


def test_an_upload_arrives_before_it_is_complete(way: Way, front: Front) -> None:
    """nginx keeps no body back: a refusal comes while most of the body has not been sent."""
    path, prefix = way
    head = f"POST {prefix}/length HTTP/1.1\r\nHost: x\r\nContent-Length: {20 << 20}\r\n\r\n"
    with http.connect(path) as sock:
        sock.sendall(head.encode() + b"x")
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_an_upload_that_moves_is_not_late(way: Way) -> None:
    path, prefix = way

    def upload() -> Iterator[bytes]:
        for _ in range(4):
            time.sleep(0.4)
            yield b"some"

    with http.client(path) as client:
        response = client.post(f"{prefix}/digest", content=upload(), headers={"Prefer": "wait=1"})
    assert (response.status_code, response.json()["size"]) == (200, 16)


def test_a_large_reply_streams(way: Way, front: Front) -> None:
    path, prefix = way
    wanted = hashlib.sha256(b"".join(bytes([number % 256]) * 70_000 for number in range(500)))
    got = hashlib.sha256()
    with http.client(path) as client, client.stream("GET", f"{prefix}/pieces//500/70000") as response:
        for piece in response.iter_raw():
            got.update(piece)
            assert not [file for folder in front.buffers for file in folder.rglob("*") if file.is_file()]
    assert got.hexdigest() == wanted.hexdigest()


def test_a_hang_up_in_an_endless_reply_reaches_the_handler(way: Way) -> None:
    path, prefix = way
    mark = uuid.uuid4().hex
    with http.connect(path) as sock:
        sock.sendall(f"GET {prefix}/endless//{mark} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert sock.recv(65536)
    wait_for(lambda: http.Http(path).get(f"{prefix}/cancelled//{mark}").json, "the handler hears of it")


def test_a_reply_that_breaks_off_never_looks_whole(way: Way) -> None:
    path, prefix = way
    with http.client(path) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get(f"{prefix}/late/error")


def test_a_reply_cannot_have_nginx_serve_something_else(way: Way) -> None:
    path, prefix = way
    answer = http.Http(path).get(f"{prefix}/accel")
    assert (answer.status, answer.body) == (200, b"my own answer")


@pytest.mark.parametrize("size", [5_000, 12_000, 30_000])
def test_heads_may_be_as_large_as_without_nginx(way: Way, size: int) -> None:
    path, prefix = way
    nginx = http.Http(path)
    assert nginx.get(f"{prefix}/told//{'a' * size}").status == 200
    assert nginx.get(f"{prefix}/told", {"X-Own": "a" * size}).status == 200
    assert len(nginx.get(f"{prefix}/wide//{size}").headers["X-Wide"]) == size


def test_an_early_refusal_is_never_lost(way: Way) -> None:
    """The caller still writes when the response comes; nginx passes on what it can."""
    path, prefix = way
    head = (
        f"POST {prefix}/length HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {2 << 30}\r\n\r\n"
    )
    for _ in range(10):
        with http.connect(path) as sock:
            sock.sendall(head.encode())
            with contextlib.suppress(OSError):
                for _ in range(100):
                    sock.sendall(bytes(1 << 20))
            assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_the_callers_deadline_and_problems_come_through(way: Way) -> None:
    path, prefix = way
    answer = http.Http(path).get(f"{prefix}/slow//60", {"Prefer": "wait=0.3"})
    assert (answer.status, answer.headers["Content-Type"]) == (504, "application/problem+json")
    assert answer.json["type"] == "urn:restpipe:problem:deadline"


MALFORMED = {
    "two lengths": (b"POST", b"/length", b"Host: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    "length and chunks": (
        b"POST",
        b"/length",
        b"Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    ),
    "an unknown coding": (b"POST", b"/length", b"Host: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "a space before the colon": (b"POST", b"/length", b"Host: x\r\nContent-Length : 2\r\n\r\nab"),
    "a bad chunk": (
        b"POST",
        b"/length",
        b"Host: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    ),
    "a bare CR in a header": (b"GET", b"/told", b"Host: x\r\nX-A: b\rX-B: c\r\n\r\n"),
    "a bad escape": (b"GET", b"/told//%zz", b"Host: x\r\n\r\n"),
    "a zero byte": (b"GET", b"/told//a\0b", b"Host: x\r\n\r\n"),
    "no host": (b"GET", b"/told", b"\r\n"),
    "two hosts": (b"GET", b"/told", b"Host: x\r\nHost: y\r\n\r\n"),
    "a verb that is none": (b"BR EW", b"/told", b"Host: x\r\n\r\n"),
}


@pytest.mark.parametrize("wrong", MALFORMED)
def test_what_is_malformed_is_refused(way: Way, wrong: str) -> None:
    path, prefix = way
    verb, noun, rest = MALFORMED[wrong]
    told = raw(path, verb + b" " + prefix.encode() + noun + b" HTTP/1.1\r\n" + rest)
    assert told.startswith(b"HTTP/1.1 "), told
    assert told.split()[1] in (b"400", b"501"), told
    assert b"X-Event-Return-Code" not in told
    assert told.count(b"HTTP/1.1 ") == 1


ODD = {
    "an absolute form": ("http://elsewhere{prefix}/told//a", b"200", ["a"]),
    "an absolute form of another scheme": ("ftp://elsewhere{prefix}/told//a", b"200", ["a"]),
    "a host and port": ("elsewhere:80", b"400", None),
    "an asterisk": ("*", b"400", None),
    "no slash": ("told", b"400", None),
    "a fragment": ("{prefix}/told//a#b", b"400", None),
    "dots that lead out": ("{prefix}/../../../told", b"400", None),
    "dots in the noun": ("{prefix}/x/../told", b"404", None),
    "escaped dots in the noun": ("{prefix}/x/%2e%2e/told", b"404", None),
    "dots that lead to another path": ("/other/..{prefix}/told", b"404", None),
    "dots for a name": ("/client/../server/told", b"404", None),
    "dots in the arguments": ("{prefix}/told//../../x/told", b"200", ["..", "..", "x", "told"]),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_targets_mean_what_is_written_or_are_refused(way: Way, odd: str) -> None:
    path, prefix = way
    target, status, arguments = ODD[odd]
    line = f"GET {target.format(prefix=prefix)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, _, body = raw(path, line.encode()).partition(b"\r\n\r\n")
    assert head.split()[1] == status, head
    if arguments is not None:
        assert json.loads(body)["arguments"] == arguments


def test_what_follows_a_request_is_one_of_its_own(way: Way) -> None:
    """Both see the same ends: a body that looks like a request stays a body."""
    path, prefix = way
    body = f"GET {prefix}/told//smuggled HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    head = f"POST {prefix}/length HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    first = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    second = f"GET {prefix}/told//second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    told = raw(path, first + second)
    assert told.count(b"HTTP/1.1 200") == 2
    assert f"\r\n\r\n{len(body)}".encode() in told
    assert b"second" in told
    assert b"smuggled" not in told


def test_the_readme_shows_this_configuration() -> None:
    shown = "".join(f"    {line}".rstrip() + "\n" for line in CONFIGURATION.read_text().splitlines())
    assert shown in (CHECKOUT / "README.md").read_text()
