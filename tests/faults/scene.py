"""A pair whose handlers keep a ledger, with or without a proxy between the daemons."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.ledger import Account, Death, Verdict, compare
from tests.faults.network import SERVER_ADDRESS, Network
from tests.faults.proxy import Proxy
from tests.faults.workload import MIXED, Kind, Way, Workload
from tests.support.identities import Authority
from tests.support.nodes import Node, Options, Pair

HEARTBEAT_S = 1.0
DRAINED_IN_VAIN = "were still under way after"
"""What a process logs whose drain time ends too early: as when the link is away meanwhile."""
HANDLERS = Path(__file__).parent / "handlers"


def merged(*several: Options) -> Options:
    result: dict[str, dict[str, Any]] = {}
    for options in several:
        for part, values in options.items():
            result.setdefault(part, {}).update(values)
    return result


class Scene:
    """A server and a client under load, and what is done to them."""

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        options: Options | None = None,
        *,
        proxied: bool = True,
        network: Network | None = None,
    ) -> None:
        """With `network` the two live on hosts of their own, and there is no proxy."""
        self.deaths: list[Death] = []
        handlers: Options = {
            "handlers": {"path": str(HANDLERS), "event_class": "recording.Recording"},
            "pipe": {"heartbeat_interval_s": HEARTBEAT_S, "drain_timeout_s": 5.0},
        }
        wanted = merged(handlers, options or {})
        self.pair = Pair(folder, authority, wanted, wanted)
        self._records = [folder / f"{role}.ledger" for role in ("server", "client")]
        for node, record in zip(self.nodes, self._records, strict=True):
            node.environ["LEDGER_FILE"] = str(record)
        self.proxy = Proxy(("127.0.0.1", self.pair.port)) if proxied and not network else None
        if network is not None:
            for node in self.nodes:
                node.prefix = network.prefix(node.role)
            self.server.configure({"pipe": {"bind": SERVER_ADDRESS}})
            self.client.configure({"pipe": {"servers": [f"{SERVER_ADDRESS}:{self.pair.port}"]}})

    @property
    def server(self) -> Node:
        return self.pair.server

    @property
    def client(self) -> Node:
        return self.pair.client

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.pair.server, self.pair.client

    @property
    def ways(self) -> tuple[Way, Way]:
        """From the client, and from the server."""
        return Way(self.client, "/server"), Way(self.server, f"/client/{self.pair.client_name}")

    @property
    def link(self) -> Proxy:
        assert self.proxy is not None
        return self.proxy

    def load(self, kinds: Sequence[Kind] = MIXED, **options: Any) -> Workload:
        """Callers on both sides."""
        return Workload(self.ways, kinds, **options)

    def verdict(self, workload: Workload) -> Verdict:
        return compare(workload.outcomes, Account(self._records), self.deaths)

    def runs(self, number: str) -> int:
        """How often handlers have begun to run this event, on either side."""
        return Account(self._records).runs[number]

    # What is done to processes.

    @contextlib.contextmanager
    def death(self, node: Node, part: str) -> Iterator[None]:
        """What is done meanwhile is the death of that process, whatever it has."""
        began = time.monotonic()
        yield
        self.deaths.append(Death(node.role, part.partition(".")[0], began, time.monotonic()))

    def kill(self, node: Node, part: str) -> None:
        """SIGKILL, and started again."""
        # Until another serves: what connects to the dying one's socket in its last moment dies with it.
        with self.death(node, part):
            node.processes[part].kill()
            node.start(part)

    def restart(self, node: Node, part: str) -> None:
        """SIGTERM, waited for, and started again.

        What is under way when its drain time ends dies with it, and so does what was under way on a link that
        is down: nobody hears its goodbye.
        """
        began, heard, process = time.monotonic(), self._goodbyes(node), node.processes[part]
        status = process.terminate()
        assert status == 0, node.logs()
        in_vain = DRAINED_IN_VAIN in process.log_text()
        unheard = part == "pipe" and self._goodbyes(node) == heard
        node.start(part)
        if in_vain or unheard:
            self.deaths.append(Death(node.role, part.partition(".")[0], began, time.monotonic()))

    def _goodbyes(self, node: Node) -> int:
        """How often the other daemon has heard that this one stops."""
        (other,) = (each for each in self.nodes if each is not node)
        return other.pipe.log_text().count("goes: the daemon stops")

    def __enter__(self) -> Self:
        if self.proxy is not None:
            self.proxy.__enter__()
            self.client.configure({"pipe": {"servers": [f"127.0.0.1:{self.proxy.port}"]}})
        self.server.start(ready=False)
        self.client.start(ready=False)
        for node in self.nodes if self.proxy is not None else ():
            for process in node.processes.values():
                process.wait_ready()
        for way in self.ways:
            way.node.wait_answer(f"{way.prefix}/pid")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.pair.__exit__(kind, error, traceback)
        finally:
            if self.proxy is not None:
                self.proxy.__exit__(kind, error, traceback)
