"""Thousands of clients on one server daemon: memory, CPU at rest, and how long until all are back.

The crowd lives in this process, on the same machine, and takes about as much CPU as the daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

from restpipe.host.config import Pipe
from tests.faults.crowd import Crowd, Identities
from tests.support.nodes import Node, free_port
from tests.support.processes import rss_bytes

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
REST_S = 20.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crowd", description=__doc__)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--per-second", type=float, default=250.0, help="how fast they come at first")
    arguments = parser.parse_args()
    # Each of the clients has a line for each of its links.
    logging.disable()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="rp-") as name:
        identities = Identities(Path(name) / "ca")
        node = Node("server", Path(name) / "server", identities.server())
        port = free_port()
        node.configure({"pipe": {"bind": "127.0.0.1", "port": port}})
        with node:
            node.start("pipe")
            uvloop.run(_measure(node, identities, arguments.clients, port, arguments.per_second))
    return 0


async def _measure(node: Node, identities: Identities, count: int, port: int, per_s: float) -> None:
    crowd = Crowd(identities, count, port)
    empty = rss_bytes(node.pipe.pid)
    began = time.monotonic()
    await crowd.join(per_s)
    print(
        f"{count} clients connected within {time.monotonic() - began:.1f} s, one after the other", flush=True
    )
    used, began = cpu_s(node.pipe.pid), time.monotonic()
    await asyncio.sleep(REST_S)
    share = (cpu_s(node.pipe.pid) - used) / (time.monotonic() - began)
    memory = rss_bytes(node.pipe.pid)
    print(f"memory: {(memory - empty) / count / 1024:.1f} KiB a client, {memory >> 20} MiB in all")
    print(
        f"at rest: {share:.1%} of one CPU, with a heartbeat each {Pipe().heartbeat_interval_s:g} s both ways"
    )
    await _storm(node, crowd, "all links were cut at once", crowd.cut)
    await _storm(node, crowd, "a crash of the daemon", node.pipe.kill)
    await crowd.leave()


async def _storm(node: Node, crowd: Crowd, what: str, do: object) -> None:
    loop = asyncio.get_running_loop()
    for client in crowd.clients:
        client.dialing.reasons.clear()
    at = loop.time()
    do()  # type: ignore[operator]
    if not node.processes["pipe"].alive:
        await asyncio.to_thread(node.start, "pipe")
    while crowd.connected == len(crowd.clients):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    down_s = loop.time() - at
    await crowd.wait_back()
    back_s = sorted(client.joined_at - at for client in crowd.clients)
    reasons = Counter(reason for client in crowd.clients for reason in client.dialing.reasons)
    dialed = sorted(round(moment - at) for moment in crowd.dialed if moment >= at)
    most = max(dialed.count(second) for second in set(dialed))
    print(
        f"{what} ({down_s:.1f} s): half are back after {back_s[len(back_s) // 2]:.1f} s, "
        f"all after {back_s[-1]:.1f} s; {reasons.total()} attempts failed, at most {most} dialed in a second",
    )
    for reason, times in reasons.most_common(3):
        print(f"    {times} times: {reason}", flush=True)
    await asyncio.sleep(2.0)


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


if __name__ == "__main__":
    sys.exit(main())
