"""What is asked through nginx: all of `Echo`, the walkthrough, and a reply that means nginx itself."""

from __future__ import annotations

from typing import Any

from echo import Echo

from restpipe import Context, Reply
from restpipe.handler.examples.builtin import TestClientEventHandler, TestServerEventHandler


class _Behind(Echo):
    def get_accel(self, ctx: Context, post_data: tuple[str, Any]) -> Reply:
        return Reply("my own answer", headers={"X-Accel-Redirect": "/server/told"})

    def get_wide(self, ctx: Context, post_data: tuple[str, Any], size: str) -> Reply:
        return Reply("wide", headers={"X-Wide": "x" * int(size)})


class OnServer(_Behind, TestServerEventHandler):
    """What the client is answered."""


class OnClient(_Behind, TestClientEventHandler):
    """What the server is answered."""
