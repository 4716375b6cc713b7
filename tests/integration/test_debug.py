"""DEBUG=1 shows the mechanics: the way of an event through every process, waiting, and a resumed session."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tests.integration.conftest import ECHO, client_of
from tests.support.identities import Authority
from tests.support.nodes import Pair


def test_the_way_of_an_event_can_be_followed(authority: Authority, folder: Path) -> None:
    often = {"pipe": {"heartbeat_interval_s": 0.2}}
    with Pair(folder, authority, {**ECHO, **often}, {**ECHO, **often}, environ={"DEBUG": "1"}) as pair:
        server, client = pair.server, pair.client
        pair.start()
        with client_of(server) as asking:
            event = asking.get("/client/client-1/told//here").json()["event_id"]
            words = rf"event {event} \(GET /told//here\)"
            server.web.wait_log(rf"event {event}: GET /told//here to 'client-1'")
            way = server.pipe.wait_log(rf"(web \d+#\d+ > client-1#\d+): {words} goes on")[1]
            server.pipe.wait_log(rf"{re.escape(way)}: over")
            client.pipe.wait_log(rf"#\d+ > handlers 1#\d+: {words} goes on")
            client.handlers.wait_log(rf"{event} from .*: get_told")

            client.stop("handlers")
            refused = asking.get("/client/client-1/told", headers={"Prefer": "wait=0.5"})
            assert refused.status_code == 503
            client.pipe.wait_log(r"event \w{32} \(GET /told\) waits at most \d+\.\d+ s")
            client.pipe.wait_log(r"refused: no_handler")

        client.pipe.send(signal.SIGSTOP)
        server.pipe.wait_log("nothing heard for")
        client.pipe.send(signal.SIGCONT)
        for node in (server, client):
            node.pipe.wait_log(r"\d+ frames had come in; \d+ that were not acknowledged are sent again")
        client.pipe.wait_log(r"dialing 127\.0\.0\.1:")
        client.pipe.wait_log(r"heartbeat answered after")
