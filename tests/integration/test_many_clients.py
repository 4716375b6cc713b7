"""Several clients of one server, each reached by its name."""

from __future__ import annotations

from pathlib import Path

from tests.integration.conftest import ECHO, client_of
from tests.support.conditions import wait_for
from tests.support.identities import Authority
from tests.support.nodes import Pair

NAMES = ("alpha", "beta", "gamma")


def test_each_client_is_reached_by_its_name_and_not_by_an_address_of_several(
    authority: Authority, folder: Path
) -> None:
    with Pair(folder, authority, ECHO, ECHO) as pair:
        pair.start()
        nodes = {name: pair.new_client(name, ECHO) for name in NAMES}
        try:
            for node in nodes.values():
                node.start("pipe", "handlers")
            for name in NAMES:
                pair.server.wait_answer(f"/client/{name}/time")
            with client_of(pair.server) as http:
                pids = {}
                for name, node in nodes.items():
                    pids[name] = http.get(f"/client/{name}/pid").json()
                    assert pids[name] == node.handlers.pid
                ambiguous = http.get("/client/127.0.0.1/pid")
                assert ambiguous.status_code == 409
                assert ambiguous.json()["names"] == sorted((*NAMES, pair.client_name))
                nodes["beta"].pipe.kill()
                pair.server.pipe.wait_log(r"the link to beta .* is gone")
                waited = http.get("/client/beta/pid", headers={"Prefer": "wait=2"})
                assert (waited.status_code, waited.json()["delivered"]) == (503, "no")
                assert http.get("/client/alpha/pid").json() == pids["alpha"]
        finally:
            for node in nodes.values():
                node.kill()


def test_status_counts_the_clients(authority: Authority, folder: Path) -> None:
    with Pair(folder, authority) as pair:
        pair.start()
        wait_for(lambda: "STATUS=1 client" in pair.server.pipe.notices, "a status of one client")
        pair.client.stop("pipe")
        wait_for(lambda: pair.server.pipe.notices[-1] == "STATUS=0 clients", "a status of none")
