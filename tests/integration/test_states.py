"""Hooks that hear of connections, from the daemons of both roles to the user's classes."""

from __future__ import annotations

import re
from pathlib import Path

from tests.integration.conftest import HANDLERS
from tests.support.identities import Authority
from tests.support.nodes import Node, Options, Pair

WHO = ("handler", "class")


def states(on: str) -> Options:
    return {
        "handlers": {
            "path": str(HANDLERS),
            "event_class": f"states.On{on}",
            "connection_state_class": f"states.{on}States",
        }
    }


def hears(node: Node, *what: str, part: str = "handlers") -> None:
    """Both classes hear all of it, in this order."""
    for who in WHO:
        pattern = r"[\s\S]*".join(f"{who}: {each}" for each in what)
        node.processes[part].wait_log(pattern)


def idle_since(node: Node) -> list[str]:
    return re.findall(r"class: idle since (.*)", node.handlers.log_text())


def test_all_hear_of_connections_that_come_and_go(authority: Authority, folder: Path) -> None:
    with Pair(folder, authority, states("Server"), states("Client")) as pair:
        server, client = pair.server, pair.client
        client.start()
        hears(client, "fail, broken before: False")
        # It would be there before the server's handlers could hear that nobody is.
        client.stop("pipe")
        server.start()
        hears(server, "idle")
        client.start("pipe")
        hears(client, "fail", "success, broken before: False")
        hears(server, "idle", "added 127.0.0.1 1")
        client.stop("pipe")
        hears(server, "idle", "added", "removed 127.0.0.1 0", "idle")
        first, *_, last = idle_since(server)
        assert first < last
        # A worker that comes later hears how things stand.
        server.start("handlers.2")
        hears(server, f"idle since {re.escape(last)}", part="handlers.2")
        client.start("pipe")
        hears(client, "success", "success")
        hears(server, "idle since .*", "added 127.0.0.1 1", part="handlers.2")
        server.stop("pipe")
        hears(client, "success", "success", "fail, broken before: True")
        server.start("pipe")
        hears(client, "fail, broken before: True", "success, broken before: True")
