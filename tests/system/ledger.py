"""Numbered events under load, both ways, and what became of each: answered, refused, failed or unknown."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.conditions import wait_for
from tests.support.http import Answer
from tests.system.machines import Machine

FOLDER = "/var/lib/ledger"
CODE = '''
"""Writes a line for each number that comes, to a file that is only ever appended to."""
import os
import time
import restpipe
from restpipe.handler.examples.builtin import TestClientEventHandler, TestServerEventHandler

VERSION = 1


class Ledger:
    def start_hook(self):
        self.file = os.open("/var/lib/ledger/lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def post_entry(self, ctx, post_data, number):
        time.sleep(0.02)
        os.write(self.file, f"{number}\\n".encode())
        return VERSION

    def get_entry(self, ctx, post_data):
        return VERSION

    def get_release(self, ctx, post_data):
        return restpipe.__version__

    def get_die(self, ctx, post_data):
        os._exit(3)

    def get_eat(self, ctx, post_data):
        eaten = []
        while True:
            eaten.append(bytearray(16 << 20))

    def put_swallow(self, ctx, post_data):
        return len(post_data[1])


class OnServer(Ledger, TestServerEventHandler):
    pass


class OnClient(Ledger, TestClientEventHandler):
    pass
'''
_CONFIG = """
[handlers]
event_class = "ledger.On{name}"
path = "/srv/ledger"

[statsd]
host = ""
port = ""
"""
DROP_IN = "[Service]\nStateDirectory=ledger\n"
NEVER_SENT = (FileNotFoundError, ConnectionRefusedError, ProcessLookupError, BlockingIOError)
"""Nobody was there to connect to. (A machine that is down has no files, either.)"""


def config(role: str) -> str:
    """What is in /etc/restpipe/ROLE.toml of a role that keeps a ledger."""
    return _CONFIG.format(name=role.capitalize())


def keep_ledger(machine: Machine, role: str) -> None:
    """Has a role's handler workers keep a ledger, by what a user would do: code, file, drop-in."""
    machine.put("/srv/ledger/ledger.py", CODE)
    machine.put(f"/etc/restpipe/{role}.toml", config(role))
    machine.put(f"/etc/systemd/system/restpipe-{role}-handlers@.service.d/ledger.conf", DROP_IN)
    machine.run(f"systemctl daemon-reload && systemctl restart restpipe-{role}")


def keep_ledgers(server: Machine, client: Machine) -> None:
    """On both; returns when both can be written to."""
    keep_ledger(server, "server")
    keep_ledger(client, "client")
    client.wait_answer("client", "/server/entry")
    server.wait_answer("server", f"/client/{client.name}/entry")


class Way:
    """From a machine to the ledger on the other, and what has been answered so far."""

    def __init__(self, caller: Machine, role: str, path: str, keeper: Machine) -> None:
        self._caller = caller
        self._role = role
        self._path = path
        self._keeper = keeper
        self.answered: set[str] = set()
        self.versions: Counter[int] = Counter()
        self.open = threading.Event()
        self.open.set()
        self.under_way: set[str] = set()

    def ask(self, verb: str, target: str) -> Answer:
        return self._caller.http(self._role).request(verb, f"{self._path}/{target}")

    @property
    def ledger(self) -> Path:
        return self._keeper.file(f"{FOLDER}/lines")

    def check(self) -> None:
        """Lost 0, twice 0."""
        lines = Counter(self.ledger.read_text().split())
        lost = self.answered - set(lines)
        twice = [number for number, times in lines.items() if times > 1]
        assert not lost, f"{self._path}: lost: {sorted(lost)[:10]}"
        assert not twice, f"{self._path}: twice: {twice[:10]}"


class Load:
    """Sends each number once, both ways; after a refusal that says "not delivered" it is sent again.

    `kills` is how many processes are ended without warning: each may leave the outcome of one event a thread
    unknown. `readers` are threads beside the `threads` of each way that only ask (GET). The block begins when
    something has been answered; if `stuck`, at once.
    """

    def __init__(
        self,
        client: Machine,
        server: Machine,
        *,
        kills: int = 0,
        threads: int = 2,
        readers: int = 0,
        stuck: bool = False,
    ) -> None:
        self.to_server = Way(client, "client", "/server", server)
        self.to_client = Way(server, "server", f"/client/{client.name}", client)
        self.kills = kills
        self.unknown: list[str] = []
        self.refused: list[str] = []
        self.failed: list[str] = []
        """By the ledger itself."""
        self.reads = 0
        self.failed_reads: list[str] = []
        self.slowest_s = 0.0
        self._stuck = stuck
        self._stop = threading.Event()
        self._writers = [
            threading.Thread(target=self._write, args=(way, n)) for way in self._ways for n in range(threads)
        ]
        self._readers = [
            threading.Thread(target=self._read, args=(way,)) for way in self._ways for _ in range(readers)
        ]

    @property
    def _ways(self) -> tuple[Way, Way]:
        return self.to_server, self.to_client

    def __enter__(self) -> Self:
        for way in self._ways:
            way.ledger.write_text("") if way.ledger.exists() else None
        for thread in (*self._writers, *self._readers):
            thread.start()
        try:
            if not self._stuck:
                self.go_on(20)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        if kind is None:
            self.check()

    def _end(self) -> None:
        self._stop.set()
        for way in self._ways:
            way.open.set()
        for thread in (*self._writers, *self._readers):
            thread.join(120)

    def go_on(self, more: int = 30, *ways: Way) -> None:
        """Returns when so many more have been answered on each way, or on those named."""
        goals = [(way, len(way.answered) + more) for way in ways or self._ways]
        wait_for(
            lambda: all(len(way.answered) >= goal for way, goal in goals), f"{more} more answers\n{self}", 120
        )

    @contextlib.contextmanager
    def closed(self, way: Way) -> Iterator[None]:
        """Nothing is sent on it for as long as the block runs."""
        way.open.clear()
        try:
            wait_for(lambda: not way.under_way, f"the last answers\n{self}", 60)
            yield
        finally:
            way.open.set()

    def check(self) -> None:
        """Lost 0, twice 0, and no more of unknown outcome than were under way when something was killed."""
        assert not any(thread.is_alive() for thread in (*self._writers, *self._readers)), self
        for way in self._ways:
            way.check()
        assert len(self.unknown) <= self.kills * len(self._writers), self

    def __str__(self) -> str:
        return (
            f"{len(self.to_server.answered)} + {len(self.to_client.answered)} answered "
            f"(the slowest in {self.slowest_s:.1f} s), "
            f"{_latest(self.refused)} refused, {_latest(self.failed)} failed, "
            f"{_latest(self.unknown)} unknown, {self.reads} read, {_latest(self.failed_reads)} not"
        )

    def _write(self, way: Way, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            way.under_way.add(name := f"{thread}-{number}")
            # In this order: who closes the way either sees it under way or keeps it from being sent.
            if way.open.is_set():
                self._send(way, name)
            way.under_way.remove(name)
            way.open.wait()

    def _send(self, way: Way, number: str) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                answer = way.ask("POST", f"entry//{number}")
                content = answer.json
            except NEVER_SENT as error:
                self.refused.append(f"{number}: {error}")
                self._stop.wait(0.2)
                continue
            except Exception as error:
                # Whatever it is: this number has been sent, and it has not been answered.
                self.unknown.append(f"{number}: {error!r}")
                return
            if answer.event_code == 0:
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                way.answered.add(number)
                way.versions[content] += 1
                return
            if answer.event_code is not None:
                self.failed.append(f"{number}: {answer.status} {content}")
                return
            if content.get("delivered") != "no":
                self.unknown.append(f"{number}: {answer.status} {content}")
                return
            self.refused.append(f"{number}: {answer.status} {content.get('type')}")
            self._stop.wait(0.2)

    def _read(self, way: Way) -> None:
        while not self._stop.is_set():
            try:
                answer = way.ask("GET", "entry")
                read = answer.event_code == 0 and isinstance(answer.json, int)
            except Exception as error:
                self.failed_reads.append(repr(error))
                self._stop.wait(0.2)
                continue
            if read:
                self.reads += 1
            else:
                self.failed_reads.append(f"{answer.status} {answer.body!r}")


def _latest(told: Iterable[str]) -> str:
    all_of_it = list(told)
    return f"{len(all_of_it)} {all_of_it[-5:] or ''}".rstrip()
