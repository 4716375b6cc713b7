"""`make demo` shows what it promises, and ends cleanly however it ends."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT, Process, python


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Where the demo makes its own folder."""
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def demo(tmp_path: Path, *arguments: str) -> Process:
    command = [*python(), "-m", "tests.demo", "--size-mib", "40", *arguments]
    return Process("demo", command, tmp_path, {"PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'ca'}"})


def test_the_demo_shows_four_requests_and_a_file_and_ends(tmp_path: Path, temporary: Path) -> None:
    process = demo(tmp_path)
    assert process.wait_end() == 0, process.log_text()
    process.kill()
    shown = process.log_text()
    for answer in (
        r'/server/time\n\{"time_from_server": [\d.]+\}',
        r'/server/cat//hello%20/world\n\{"result_from_server": "hello world"\}',
        r'/client/localhost/time\n\{"time_from_client": [\d.]+\}',
        r'/client/localhost/cat//hello%20/world\n\{"result_from_client": "hello world"\}',
        r"\n41943040 bytes in",
        r"client handlers +[\d.]+ MiB -> +[\d.]+ MiB",
    ):
        assert re.search(answer, shown), shown
    assert not list(temporary.iterdir())


def test_the_demo_stays_up_when_asked_until_ctrl_c(tmp_path: Path, temporary: Path) -> None:
    process = demo(tmp_path, "--keep")
    process.wait_log("It stays up")
    process.wait_log("large.bin --output")
    process.send(signal.SIGINT)
    assert process.wait_end() == 0, process.log_text()
    process.kill()
    assert "ended in good order" in process.log_text()
    assert not list(temporary.iterdir())


def test_the_demo_cleans_up_when_it_is_ended_in_the_middle(tmp_path: Path, temporary: Path) -> None:
    process = demo(tmp_path)
    process.wait_log("The client asks the server")
    assert process.terminate() == 143, process.log_text()
    assert not list(temporary.iterdir())
