"""What applications make of answers that are errors, with requests and with httpx."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests

from restpipe import EventError, EventHandler, PipeFailError, PipeProblemError, raise_for_exception
from restpipe.testing import PipeTester

EXCEPTION = {"exception": {"message": "oh", "traceback": "Traceback…", "class": "ValueError"}}
PROBLEM = {
    "type": "https://example.org/unreachable",
    "title": "Down",
    "detail": "for 5 s",
    "delivered": "no",
    "status": 503,
}
ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/ok": (200, {"X-Event-Return-Code": "0"}, b"anything"),
    "/created": (201, {"X-Event-Return-Code": "0"}, b""),
    "/exception": (500, {"X-Event-Return-Code": "251"}, json.dumps(EXCEPTION).encode()),
    "/code": (200, {"X-Event-Return-Code": "-7"}, b"\xff\xfe"),
    "/list": (200, {"X-Event-Return-Code": "7"}, b"[]"),
    "/unhandled": (404, {"X-Event-Return-Code": "255"}, b'{"error": {"message": "no method"}}'),
    "/problem": (503, {"Content-Type": "application/problem+json"}, json.dumps(PROBLEM).encode()),
    "/broken": (502, {"Content-Type": "application/problem+json"}, b"{"),
    "/nginx": (502, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>"),
    "/stranger": (200, {"Content-Type": "application/json"}, b"{}"),
}


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, headers, body = ANSWERS[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["requests", "httpx"])
def get(request: pytest.FixtureRequest, address: str) -> Callable[[str], Any]:
    if request.param == "requests":
        session = requests.Session()
        session.trust_env = False
        return lambda path: session.get(address + path, timeout=10)
    return lambda path: httpx.get(address + path, timeout=10, trust_env=False)


@pytest.mark.parametrize("path", ["/ok", "/created"])
def test_code_0_is_no_error(get: Callable[[str], Any], path: str) -> None:
    raise_for_exception(get(path))


def test_an_exception_on_the_other_side(get: Callable[[str], Any]) -> None:
    with pytest.raises(PipeFailError, match="oh") as caught:
        raise_for_exception(get("/exception"))
    error = caught.value
    assert error.return_code == 251
    assert error.message == error.error_message == "oh"
    assert error.traceback == error.error_traceback == "Traceback…"
    assert error.class_name == error.error_class_name == error.error_type == "ValueError"


@pytest.mark.parametrize(("path", "code"), [("/code", -7), ("/list", 7)])
def test_a_code_of_the_authors_own(get: Callable[[str], Any], path: str, code: int) -> None:
    with pytest.raises(PipeFailError, match=f"({code})") as caught:
        raise_for_exception(get(path))
    assert caught.value.return_code == code
    assert caught.value.class_name == ""


def test_an_event_that_no_method_handles(get: Callable[[str], Any]) -> None:
    with pytest.raises(PipeFailError, match="no method") as caught:
        raise_for_exception(get("/unhandled"))
    assert caught.value.return_code == 255


def test_a_problem_of_the_pipe(get: Callable[[str], Any]) -> None:
    with pytest.raises(PipeProblemError, match="HTTP 503: Down: for 5 s") as caught:
        raise_for_exception(get("/problem"))
    problem = caught.value
    assert (problem.status, problem.type, problem.title) == (503, PROBLEM["type"], "Down")
    assert (problem.detail, problem.delivered, problem.problem) == ("for 5 s", "no", PROBLEM)


@pytest.mark.parametrize("path", ["/broken", "/nginx", "/stranger"])
def test_an_answer_that_is_not_the_pipes(get: Callable[[str], Any], path: str) -> None:
    with pytest.raises(PipeProblemError, match="not an event handler's") as caught:
        raise_for_exception(get(path))
    assert caught.value.delivered == "unknown"


def test_what_handlers_answer_is_understood() -> None:
    class Handler(EventHandler):
        def get_error(self, ctx: Any, post_data: Any) -> None:
            raise EventError(17, "mine")

    with PipeTester(Handler) as pipe:
        with pytest.raises(PipeFailError, match="mine") as caught:
            raise_for_exception(pipe.get("/error"))
        assert (caught.value.return_code, caught.value.class_name) == (17, "EventError")
        assert "test_client_errors.py" in caught.value.traceback
        with pytest.raises(PipeFailError, match="no method handles PUT"):
            raise_for_exception(pipe.put("/error"))
        with pytest.raises(PipeProblemError, match="HTTP 400"):
            raise_for_exception(pipe.get("/error//too/many"))
