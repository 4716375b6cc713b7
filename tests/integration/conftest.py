"""A pair that many tests share: nothing that they do to it outlives a request."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import http
from tests.support.fixtures import authority, folder
from tests.support.identities import Authority
from tests.support.nodes import Node, Options, Pair

__all__ = ["ECHO", "HANDLERS", "authority", "client_of", "folder", "pair"]

HANDLERS = Path(__file__).parent / "handlers"
"""Folder of the event handlers that the tests serve."""
ECHO: Options = {
    "handlers": {"path": str(HANDLERS), "event_class": "echo.Echo", "concurrency": 1000},
}


@pytest.fixture(scope="session")
def pair(authority: Authority) -> Iterator[Pair]:
    """Server and client, both serving `echo.Echo`."""
    with (
        tempfile.TemporaryDirectory(prefix="rp-") as name,
        Pair(Path(name), authority, ECHO, ECHO) as pair,
    ):
        yield pair.start()


def client_of(node: Node) -> httpx.Client:
    """An HTTP client at a node's web socket."""
    return http.client(node.sockets / "web.sock")
