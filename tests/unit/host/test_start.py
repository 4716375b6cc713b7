"""Another process like this one, whatever has changed since."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from restpipe.host.start import Start

PROGRAM = """
import os
from restpipe.host.start import Start

start = Start.of_this_process()
if "AGAIN" not in os.environ:
    os.environ.clear()
    os.chdir("/")
    start.environ["AGAIN"] = "1"
    start.again()
print(os.getpid(), os.getcwd(), os.environ["KEPT"], flush=True)
"""


def test_it_begins_anew_as_it_was_started(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environ = dict(os.environ) | {"KEPT": "yes", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, program], env=environ, cwd=tmp_path, stdout=subprocess.PIPE
    ) as process:
        out, _ = process.communicate(timeout=30)
        assert out.decode().split() == [str(process.pid), str(tmp_path), "yes"]


def test_a_folder_that_is_gone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    start = Start.of_this_process()
    assert start.place == str(folder)
    folder.rmdir()
    assert start.place is None
    assert Start.of_this_process().folder is None
