"""What ordinary Python does in a handler worker: it is at home there, and the worker stays what it is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import client_of
from tests.support.identities import Authority
from tests.support.nodes import Node, Pair

CODE = """
import asyncio
import logging.config
import multiprocessing
import os
import sqlite3
import sys
import threading
import time
from restpipe import EventHandler

logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL"}})
logging.disable(logging.CRITICAL)
fork = multiprocessing.get_context("fork")


def ended():
    child = fork.Process(target=time.sleep, args=[1000])
    child.start()
    child.terminate()
    child.join(10)
    return [os.getpid(), child.exitcode]


class Code(EventHandler):
    def start_hook(self):
        self.pool = fork.Pool(1)
        self.pool.apply_async(time.sleep, [1000])

    async def stop_hook(self):
        threading.Thread(target=time.sleep, args=[1000], name="left").start()

    def get_child(self, ctx, post_data):
        return ended()

    async def get_child_async(self, ctx, post_data):
        return ended()

    def get_forked(self, ctx, post_data):
        os.fork()
        return [os.getpid(), 0]

    async def get_exit(self, ctx, post_data):
        asyncio.create_task(self.exits())
        await asyncio.sleep(0.01)
        return [os.getpid(), 0]

    async def exits(self):
        sys.exit("by a task")

    def get_raise(self, ctx, post_data):
        raise ValueError("odd")

    def get_rows(self, ctx, post_data):
        numbers = "with recursive n(x) as (values(1) union all select x+1 from n limit 20000) select x from n"
        rows = sqlite3.connect(":memory:").execute(numbers)
        return (b"%9d\\n" % row for row in rows)
"""


@pytest.fixture
def pair(authority: Authority, folder: Path) -> Iterator[Pair]:
    (folder / "ordinary.py").write_text(CODE)
    with Pair(
        folder, authority, server={"handlers": {"path": str(folder), "event_class": "ordinary.Code"}}
    ) as pair:
        yield pair.start()


def test_ordinary_python_is_at_home(pair: Pair) -> None:
    worker = pair.server.handlers
    with client_of(pair.client) as http:
        for noun, status in (("child", -15), ("child/async", -15), ("forked", 0), ("exit", 0)):
            assert http.get(f"/server/{noun}").json() == [worker.pid, status], noun
        assert http.get("/server/raise").status_code == 500
        assert len(http.get("/server/rows").content) == 200_000
    worker.wait_log("get_raise raised ValueError")
    worker.send(signal.SIGTERM)
    assert worker.wait_end() == 0
    worker.wait_log("leaving behind: thread 'left' at .*process [0-9]+ ")


STUBBORN = """
import asyncio
from restpipe import EventHandler


async def stubborn():
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass


class Code(EventHandler):
    async def start_hook(self):
        self.task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        raise ValueError("no database")
"""


def test_a_worker_that_fails_says_so_whatever_it_leaves_behind(authority: Authority, folder: Path) -> None:
    (folder / "stubborn.py").write_text(STUBBORN)
    options = {"handlers": {"path": str(folder), "event_class": "stubborn.Code"}}
    with Node("server", folder / "server", authority.server(), options) as node:
        worker = node.start("handlers", ready=False).handlers
        assert worker.wait_end() == 1
        worker.wait_log(
            r"ending \(start_hook failed: ValueError: no database\), and leaving behind: task 'stubborn' at "
        )
