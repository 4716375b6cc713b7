"""The command that asks a worker to reload. The worker is this process: it answers in its signal handler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest

from restpipe.handler import reloading
from restpipe.handler.reloading import LOADS, SERVES, NotReloaded, reload, tell, tell_to_ask
from restpipe.host.credentials import Credentials
from tests.support.conditions import wait_for

ASK = "import sys; from restpipe.handler.reloading import reload; print(reload(int(sys.argv[1]), 60))"
TELL = """
import socket, sys
link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
link.connect(chr(0) + f"restpipe-reload-{sys.argv[1]}")
link.send(b"the new code serves")
"""
Worker = Callable[[Callable[[], object]], None]


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Has this process do something on each SIGHUP."""

    def do(work: Callable[[], object]) -> None:
        signal.signal(signal.SIGHUP, lambda *_: work())

    before = signal.getsignal(signal.SIGHUP)
    yield do
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def waiting(worker: Worker) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, which has asked this one and waits."""
    asked: list[int] = []
    worker(lambda: asked.append(1))
    command = [sys.executable, "-c", ASK, str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: asked, "the signal")
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("outcome", [SERVES, LOADS])
def test_the_worker_says_what_became_of_it(worker: Worker, outcome: str) -> None:
    worker(lambda: tell(outcome))
    assert reload(os.getpid(), 10) == outcome


def test_any_other_outcome_is_none(worker: Worker) -> None:
    worker(lambda: tell("no database"))
    with pytest.raises(NotReloaded, match=r"^the new code is not used, the old goes on: no database$"):
        reload(os.getpid(), 10)


def test_a_worker_that_says_nothing_is_not_waited_for_any_longer(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "BEYOND_S", 0.0)
    worker(lambda: None)
    with pytest.raises(NotReloaded, match=r"the worker has not said what became of it within 0\.05 s"):
        reload(os.getpid(), 0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_was_interrupted_hinders_no_other(
    waiting: subprocess.Popen[str], worker: Worker, number: signal.Signals
) -> None:
    waiting.send_signal(number)
    waiting.wait(10)
    worker(lambda: tell(SERVES))
    assert reload(os.getpid(), 10) == SERVES


def test_one_reload_at_a_time(waiting: subprocess.Popen[str]) -> None:
    with pytest.raises(
        NotReloaded, match=r"^worker [0-9]+ is not asked to reload: another reload is under way$"
    ):
        reload(os.getpid(), 10)
    assert tell(SERVES)
    assert waiting.communicate(timeout=10) == (f"{SERVES}\n", "")


def test_the_workers_own_temporary_folder_makes_no_difference(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> None:
        monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
        tell(SERVES)

    worker(load)
    assert reload(os.getpid(), 10) == SERVES


def test_nobody_else_is_believed(worker: Worker) -> None:
    def lie_and_tell() -> None:
        subprocess.run([sys.executable, "-c", TELL, str(os.getpid())], check=True, timeout=30)
        tell("no database")

    worker(lie_and_tell)
    with pytest.raises(NotReloaded, match="no database"):
        reload(os.getpid(), 60)


def test_no_other_user_is_told(waiting: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(reloading, "of_peer", lambda _: Credentials(waiting.pid, os.geteuid() + 1))
        assert not tell(SERVES)
    assert tell(LOADS)
    assert waiting.communicate(timeout=10) == (f"{LOADS}\n", "")


def test_nobody_waits_where_nobody_has_asked() -> None:
    assert not tell(SERVES)


def test_whoever_has_taken_the_place_is_asked_in_its_turn(
    waiting: subprocess.Popen[str], worker: Worker
) -> None:
    """Here it is the same process."""
    worker(lambda: tell(SERVES))
    assert tell_to_ask(os.getpid())
    assert waiting.communicate(timeout=10) == (f"{SERVES}\n", "")


def test_another_users_worker_names_no_process_to_be_signalled(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "of_peer", lambda _: Credentials(os.getpid(), os.geteuid() + 1))
    monkeypatch.setattr(reloading, "_ROOT", os.geteuid() + 1)
    worker(lambda: tell_to_ask(os.getpid()))
    with pytest.raises(NotReloaded, match=f"the worker says: ask process {os.getpid()}"):
        reload(os.getpid(), 10)
