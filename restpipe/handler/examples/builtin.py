"""What answers as long as no event class is configured: `time` and `cat`, on both sides."""

from __future__ import annotations

import time
from typing import Any

from restpipe.handler.api import ClientEventHandler, ServerEventHandler
from restpipe.handler.context import Context


class TestServerEventHandler(ServerEventHandler):
    """GET /server/time and GET /server/cat//A/B, asked on a client."""

    __test__ = False

    def get_time(self, ctx: Context, post_data: tuple[str, Any]) -> dict[str, float]:
        return {"time_from_server": time.time()}

    def get_cat(self, ctx: Context, post_data: tuple[str, Any], a: str, b: str) -> dict[str, str]:
        return {"result_from_server": a + b}


class TestClientEventHandler(ClientEventHandler):
    """GET /client/NAME/time and GET /client/NAME/cat//A/B, asked on the server."""

    __test__ = False

    def get_time(self, ctx: Context, post_data: tuple[str, Any]) -> dict[str, float]:
        return {"time_from_client": time.time()}

    def get_cat(self, ctx: Context, post_data: tuple[str, Any], a: str, b: str) -> dict[str, str]:
        return {"result_from_client": a + b}
