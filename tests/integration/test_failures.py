"""What handlers, peers and strangers do wrong: a clear answer or line each, and everybody else goes on."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
import uuid
from pathlib import Path

import httpx
import pytest

from restpipe.protocol import frames
from restpipe.protocol.frames import EVENT, GOAWAY, HELLO
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Goaway, Hello
from tests.integration.conftest import ECHO, client_of
from tests.support.conditions import wait_for
from tests.support.identities import Authority
from tests.support.nodes import Pair


@pytest.fixture
def own(authority: Authority, folder: Path) -> Pair:
    """A pair of the test's own, not started."""
    return Pair(folder, authority, ECHO, ECHO)


# Handlers.


def test_a_module_that_does_not_import_is_one_clear_line_and_the_pipe_stays_up(
    own: Pair, folder: Path
) -> None:
    (folder / "broken.py").write_text("x = 1\nimport nowhere_to_be_found\n")
    with own:
        own.start()
        own.client.configure({"handlers": {"path": str(folder), "event_class": "broken.Handler"}})
        own.client.stop("handlers")
        own.client.start("handlers", ready=False)
        process = own.client.handlers
        assert process.wait_end() == 78
        line = next(line for line in process.log_text().splitlines() if "nowhere_to_be_found" in line)
        assert "broken.py" in line
        assert "line 2" in line or ":2" in line
        assert "Traceback" not in process.log_text()
        with client_of(own.client) as client:
            assert client.get("/server/told").status_code == 200
        with client_of(own.server) as client:
            response = client.get("/client/client-1/told", headers={"Prefer": "wait=2"})
            assert (response.status_code, response.json()["delivered"]) == (503, "no")
            assert response.json()["type"] == "urn:restpipe:problem:no-handler"
            assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("noun", ["stuck", "spin//600", "block//600"])
def test_one_worker_that_hangs_stops_nobody_else(own: Pair, noun: str) -> None:
    """All others are answered before the one that hangs."""
    with own:
        own.start()
        own.client.start("handlers.2")
        with client_of(own.server) as client:
            hanging = threading.Thread(target=_ask_for_long, args=(own, f"/client/client-1/{noun}"))
            hanging.start()
            workers = (own.client.processes["handlers"], own.client.processes["handlers.2"])
            wait_for(lambda: any("] hangs" in worker.log_text() for worker in workers), "it hangs")
            for _ in range(200):
                assert client.get("/client/client-1/pid").status_code == 200
            with client_of(own.client) as other:
                assert other.get("/server/pid").status_code == 200
            assert hanging.is_alive()
        for worker in workers:
            worker.kill()
        hanging.join()


def _ask_for_long(pair: Pair, target: str) -> None:
    with client_of(pair.server) as client:
        client.post(target, headers={"Prefer": "wait=60"})


def test_a_worker_that_dies_has_its_idempotent_events_sent_again(own: Pair) -> None:
    """GET /exit kills each worker it comes to, so it ends as outcome-unknown; POST is never tried twice."""
    with own:
        own.start()
        own.client.start("handlers.2", "handlers.3")
        with client_of(own.server) as client:
            response = client.post("/client/client-1/exit")
            assert (response.status_code, response.json()["delivered"]) == (502, "unknown")
            assert response.json()["type"] == "urn:restpipe:problem:outcome-unknown"
            assert client.get("/client/client-1/pid").status_code == 200
            processes = own.client.processes.values()
            wait_for(lambda: sum(process.alive for process in processes) == 4, "one worker has ended")
            assert client.get("/client/client-1/exit", headers={"Prefer": "wait=2"}).status_code == 502


def test_a_get_survives_the_death_of_its_worker(own: Pair) -> None:
    with own:
        own.start()
        answers: list[httpx.Response] = []

        def ask() -> None:
            with client_of(own.server) as client:
                answers.append(client.get("/client/client-1/slow//1"))

        asking = threading.Thread(target=ask)
        asking.start()
        with client_of(own.server) as client:
            wait_for(lambda: client.get("/client/client-1/slow_here").json() >= 1, "the event is there")
        own.client.start("handlers.2")
        own.client.processes.pop("handlers").kill()
        asking.join()
        assert (answers[0].status_code, answers[0].json()) == (200, {"slept": 1.0})


# Strangers at the pipe's port.


def test_strangers_are_told_apart_in_one_line_each(pair: Pair) -> None:
    log = pair.server.pipe
    with socket.create_connection(("127.0.0.1", pair.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.recv(100)
    log.wait_log(r"refused: http request")
    with _tls(pair, own_certificate=False) as sock:
        _read_until_closed(sock)
    log.wait_log(r"refused: peer did not return a certificate")
    with _tls(pair) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert _goaway(_read_until_closed(sock)).code == 70
    log.wait_log(r"the first bytes are not RestPipe's")
    _still_works(pair)


def test_another_version_is_refused_with_a_word_to_both(pair: Pair) -> None:
    hello = Hello(major=9, minor=0, role=ROLE_PIPE)
    with _tls(pair) as sock:
        sock.sendall(frames.encode(HELLO, head=hello.SerializeToString()))
        goaway = _goaway(_read_until_closed(sock))
    assert goaway.code == 65
    assert "version 9" in goaway.detail
    assert "version 1" in goaway.detail
    pair.server.pipe.wait_log(r"speaks version 9")
    _still_works(pair)


@pytest.mark.parametrize(
    ("junk", "said"),
    [
        (frames.HEADER.pack(HELLO, 0, 5, 0, 0) + b"\xff\xff\xff\xff\xff", "a head that is no Hello"),
        (frames.HEADER.pack(HELLO, 0, 0, 1 << 30, 0), "announces a body of 1073741824 bytes"),
        (frames.encode(EVENT, 1, b""), "first bytes are not RestPipe's"),
    ],
)
def test_a_bad_frame_ends_its_own_link_alone(pair: Pair, junk: bytes, said: str) -> None:
    with _tls(pair) as sock:
        sock.sendall(junk)
        _read_until_closed(sock)
    pair.server.pipe.wait_log(said)
    _still_works(pair)


def test_the_daemons_sockets_take_any_bytes(pair: Pair) -> None:
    for name in ("events.sock", "handlers.sock"):
        for junk in (b"\x80" * 40, b"GET / HTTP/1.1\r\n\r\n", bytes(1000), frames.encode(HELLO)):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(30)
                sock.connect(str(pair.server.sockets / name))
                sock.sendall(junk)
                sock.shutdown(socket.SHUT_WR)
                _read_until_closed(sock)
    _still_works(pair)


def _tls(pair: Pair, *, own_certificate: bool = True) -> ssl.SSLSocket:
    """A stranger's connection, with a certificate of the CA that nobody else uses."""
    identity = pair.authority.client("stranger")
    context = ssl.create_default_context(cafile=str(identity.directory / "ca.pem"))
    if own_certificate:
        context.load_cert_chain(identity.directory / "certificate.pem", identity.directory / "key.pem")
    sock = socket.create_connection(("127.0.0.1", pair.port))
    sock.settimeout(30)
    return context.wrap_socket(sock, server_hostname="localhost")


def _read_until_closed(sock: socket.socket) -> bytes:
    received = b""
    try:
        while piece := sock.recv(65536):
            received += piece
    except (ConnectionError, ssl.SSLError):
        pass
    return received


def _goaway(data: bytes) -> Goaway:
    (frame,) = frames.FrameDecoder().feed(data)
    assert frame.kind == GOAWAY
    return Goaway.FromString(frame.head)


def _still_works(pair: Pair) -> None:
    with client_of(pair.server) as client:
        assert client.get("/client/client-1/pid").status_code == 200


# The life of processes.


def test_every_process_ends_by_sigterm_with_status_zero(own: Pair) -> None:
    with own:
        own.start()
        for node in (own.client, own.server):
            for part in ("web", "handlers", "pipe"):
                process = node.processes[part]
                process.send(signal.SIGTERM)
                assert process.wait_end() == 0, process.log_text()
                wait_for(
                    lambda process=process: "STOPPING=1" in process.notices, f"{part} says that it stops"
                )
                assert "Traceback" not in process.log_text()


def test_a_frozen_peer_is_found_and_the_request_waits_for_it(own: Pair) -> None:
    own.server.configure({"pipe": {"heartbeat_interval_s": 0.2}})
    own.client.configure({"pipe": {"heartbeat_interval_s": 0.2}})
    with own:
        own.start()
        mark = uuid.uuid4().hex
        own.client.pipe.send(signal.SIGSTOP)
        own.server.pipe.wait_log("nothing heard for")
        answers: list[httpx.Response] = []

        def ask() -> None:
            with client_of(own.server) as client:
                answers.append(client.post(f"/client/client-1/count//{mark}"))

        asking = threading.Thread(target=ask)
        asking.start()
        own.client.pipe.send(signal.SIGCONT)
        asking.join()
        assert (answers[0].status_code, answers[0].json()) == (200, 1)
