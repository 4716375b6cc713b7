"""Numbered events under load, and what became of each: answered, refused, or of unknown outcome."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.conditions import wait_for
from tests.system.machines import Machine

FOLDER = "/var/lib/ledger"
CODE = '''
"""Writes a line for each number that comes, to a file that is only ever appended to."""
import os
import time
from restpipe import EventHandler

VERSION = 1


class Ledger(EventHandler):
    def start_hook(self):
        self.file = os.open("/var/lib/ledger/lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def post_entry(self, ctx, post_data, number):
        time.sleep(0.02)
        os.write(self.file, f"{number}\\n".encode())
        return VERSION

    def get_entry(self, ctx, post_data):
        return VERSION

    def get_die(self, ctx, post_data):
        os._exit(3)

    def get_eat(self, ctx, post_data):
        eaten = []
        while True:
            eaten.append(bytearray(16 << 20))
'''
CONFIG = """
[handlers]
event_class = "ledger.Ledger"
path = "/srv/ledger"

[statsd]
host = ""
port = ""
"""
DROP_IN = "[Service]\nStateDirectory=ledger\n"


def keep_ledger(server: Machine) -> None:
    """Has the server's handler workers keep the ledger, by what a user would do: code, file, drop-in."""
    server.put("/srv/ledger/ledger.py", CODE)
    server.put("/etc/restpipe/server.toml", CONFIG)
    server.put("/etc/systemd/system/restpipe-server-handlers@.service.d/ledger.conf", DROP_IN)
    server.run("systemctl daemon-reload && systemctl restart restpipe-server")


class Load:
    """Sends each number once; in a refusal that says "not delivered" it is sent again.

    `readers` are threads beside it that only ask (GET).
    """

    def __init__(self, client: Machine, server: Machine, *, threads: int = 4, readers: int = 0) -> None:
        self._client = client
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        self._threads += [threading.Thread(target=self._read) for _ in range(readers)]
        self._lock = threading.Lock()
        self.answered: set[str] = set()
        self.unknown: list[str] = []
        self.refused: list[str] = []
        self.reads = 0
        self.failed_reads: list[str] = []
        self.slowest_s = 0.0
        self.versions: Counter[int] = Counter()

    def __enter__(self) -> Self:
        server_file(self._server).write_text("") if server_file(self._server).exists() else None
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
        if kind is None:
            self.check()

    def go_on(self, more: int = 50) -> None:
        """Returns when so many more have been answered."""
        goal = len(self.answered) + more
        wait_for(lambda: len(self.answered) >= goal, f"{more} more answers\n{self}", 120)

    def check(self) -> None:
        """Lost 0, twice 0."""
        lines = Counter(server_file(self._server).read_text().split())
        lost = self.answered - set(lines)
        twice = [number for number, times in lines.items() if times > 1]
        assert not lost, f"lost: {sorted(lost)[:10]}"
        assert not twice, f"twice: {twice[:10]}"

    def __str__(self) -> str:
        return (
            f"{len(self.answered)} answered (the slowest in {self.slowest_s:.1f} s), "
            f"{len(self.refused)} refused: {self.refused[-5:]}, "
            f"{len(self.unknown)} unknown: {self.unknown[-5:]}, "
            f"{self.reads} read, {len(self.failed_reads)} not: {self.failed_reads[-5:]}"
        )

    def _run(self, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            self._send(f"{thread}-{number}")

    def _send(self, number: str) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                answer = self._client.http("client").request("POST", f"/server/entry//{number}")
            except OSError as error:
                self.unknown.append(f"{number}: {error}")
                return
            if answer.event_code == 0:
                with self._lock:
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                    self.answered.add(number)
                    self.versions[answer.json] += 1
                return
            delivered = answer.json.get("delivered")
            if delivered != "no":
                self.unknown.append(f"{number}: {answer.status} {answer.json}")
                return
            self.refused.append(f"{number}: {answer.status} {answer.json.get('type')}")
            self._stop.wait(0.2)

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._client.http("client").get("/server/entry")
            except OSError as error:
                self.failed_reads.append(str(error))
                continue
            if answer.event_code == 0:
                self.reads += 1
            else:
                self.failed_reads.append(f"{answer.status} {answer.json}")


def server_file(server: Machine) -> Path:
    return server.file(f"{FOLDER}/lines")
