"""`restpipe run` of both roles with its real children: either start order, a child that dies, Ctrl-C."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.conditions import wait_for
from tests.support.identities import Authority
from tests.support.nodes import Node, Pair
from tests.support.processes import Process, children, command_line


def child(node: Node, part: str) -> int | None:
    """The process id of this part under `restpipe run`, if there is one."""
    words = f"-m restpipe {part} {node.role} "
    found = (pid for pid in children(node.processes["run"].pid) if words in f"{command_line(pid)} ")
    return next(found, None)


def is_replaced(node: Node, part: str, before: int) -> bool:
    return child(node, part) not in (None, before)


def ends(pid: int) -> bool:
    return not command_line(pid)


@pytest.mark.parametrize("first", ["client", "server"])
def test_either_may_start_first_and_ctrl_c_ends_all_of_it(
    authority: Authority, folder: Path, first: str
) -> None:
    with Pair(folder, authority) as pair:
        nodes = [pair.client, pair.server] if first == "client" else [pair.server, pair.client]
        for node in nodes:
            node.run()
        pair.wait_up()
        for node in nodes:
            run = node.processes["run"]
            pids = run.pids()
            before = len(run.log_text())
            run.send(signal.SIGINT)
            assert run.wait_end() == 0, run.log_text()
            wait_for(lambda pids=pids: all(map(ends, pids)), f"nothing is left of {pids}")
            assert not list(node.sockets.iterdir())
            assert "Traceback" not in run.log_text()
            # Nobody is alarmed by a stop in good order. (A client whose server stopped first says so.)
            alarms = [line for line in run.log_text()[before:].splitlines() if " WARNING " in line]
            assert [line for line in alarms if "cannot connect" not in line] == []


def test_a_child_that_is_killed_is_started_again(authority: Authority, folder: Path) -> None:
    with Pair(folder, authority) as pair:
        pair.run()
        for node in (pair.server, pair.client):
            for part in ("pipe", "web", "handlers"):
                pid = child(node, part)
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                wait_for(
                    lambda node=node, part=part, pid=pid: is_replaced(node, part, pid), f"{part} is back"
                )
                node.processes["run"].wait_log(rf"{part} ended \(signal 9, Killed\); starting it again")
                pair.client.wait_answer("/server/time")
                pair.server.wait_answer("/client/client-1/time")


CODE = """
from restpipe import EventHandler

class Code(EventHandler):
    def get_version(self, ctx, post_data):
        return {version}
"""


def test_a_reload_takes_up_new_code_in_place(authority: Authority, folder: Path) -> None:
    source = folder / "versions.py"
    source.write_text(CODE.format(version=1))
    options = {"handlers": {"path": str(folder), "event_class": "versions.Code"}}
    with Pair(folder, authority, server=options) as pair:
        pair.run()
        run = pair.server.processes["run"]
        pid = child(pair.server, "handlers")
        assert pid is not None

        def answers(version: int) -> bool:
            response = pair.client.http.get("/server/version")
            assert response.status == 200, response
            return response.body == b"%d" % version

        wait_for(lambda: answers(1), "the first code")
        source.write_text(CODE.format(version=2))
        os.kill(pid, signal.SIGHUP)
        wait_for(lambda: answers(2), "the second code")
        source.write_text("import nowhere_to_be_found")
        run.send(signal.SIGHUP)
        run.wait_log("the old goes on")
        source.write_text(CODE.format(version=3))
        run.send(signal.SIGHUP)
        wait_for(lambda: answers(3), "the third code")
        assert child(pair.server, "handlers") == pid
        run.wait_log("configuration, certificates and revocation lists reloaded")


def test_an_identity_that_is_not_there_ends_it(authority: Authority, folder: Path) -> None:
    with Pair(folder, authority, server={"tls": {"key": "none.pem"}}) as pair:
        run = pair.server.run(ready=False)
        assert run.wait_end() == os.EX_CONFIG, run.log_text()
        assert "none.pem" in run.log_text()
        assert "starting it again" not in run.log_text()


def test_code_that_cannot_be_loaded_is_tried_again_until_it_can(authority: Authority, folder: Path) -> None:
    options = {"handlers": {"path": str(folder), "event_class": "late.Code"}}
    with Pair(folder, authority, server=options) as pair:
        run = pair.server.run(ready=False)
        pair.client.run(ready=False)
        run.wait_log("cannot import late: ")
        (folder / "late.py").write_text(CODE.format(version=1))
        pair.client.wait_answer("/server/version")


def test_a_second_one_leaves_the_first_alone(authority: Authority, folder: Path) -> None:
    with Pair(folder, authority) as pair:
        pair.run()
        second = Process("second", pair.server.command("run"), folder)
        assert second.wait_end() == os.EX_CONFIG, second.log_text()
        (line,) = second.log_text().splitlines()
        assert "a server runs here already" in line
        assert pair.server.processes["run"].log_text().count("a handler worker has come") == 1
        pair.client.wait_answer("/server/time")
