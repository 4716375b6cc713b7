"""The names of this host, whatever the resolver says or does not say."""

from __future__ import annotations

import socket
import threading

import pytest
from restpipe_ca import hosts


@pytest.mark.parametrize(
    ("short", "full", "names"),
    [
        ("Web", "web.example.com", ("web.example.com", "web")),
        ("web", "localhost", ("web",)),
        ("web", "localhost.localdomain", ("web",)),
        ("web", "web.example.com.", ("web.example.com", "web")),
        ("a.example.com", "?", ("a.example.com",)),
        ("a.example.com.", "?", ("a.example.com",)),
        ("web", "web_1.example.com", ("web",)),
        ("under_score", "under_score", ()),
        ("my_server.example.com", "?", ()),
        ("-x", "-x", ()),
        ("1234", "1234", ()),
        ("web", f"{'x' * 63}.example.com", ("web",)),
        ("localhost", "localhost", ()),
    ],
)
def test_names_of_this_host(
    monkeypatch: pytest.MonkeyPatch, short: str, full: str, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: short)
    monkeypatch.setattr(socket, "getfqdn", lambda _: full)
    assert hosts.host_names() == names
    assert hosts.server_names() == (*names, "localhost", "127.0.0.1", "::1")


def test_a_silent_name_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(hosts, "LOOKUP_S", 0.01)
    monkeypatch.setattr(socket, "gethostname", lambda: "web")
    monkeypatch.setattr(socket, "getfqdn", lambda _: str(over.wait()))
    try:
        assert hosts.host_names() == ("web",)
    finally:
        over.set()
