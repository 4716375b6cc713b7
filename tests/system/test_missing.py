"""What keeps these tests from running is said in one line, before any of them has begun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT
from tests.system.machines import TOOLS, missing

WITHOUT = {
    "CAP_SYS_ADMIN": ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"],
    "CAP_NET_ADMIN": ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"],
}


def said(command: list[str], **environ: str) -> str:
    """What is said about the machine by a run that would try nothing."""
    collect = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--collect-only", __file__]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RESTPIPE_SYSTEM")}
    done = subprocess.run(
        [*command, *collect], capture_output=True, text=True, cwd=CHECKOUT, env={**kept, **environ}
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line or "Trace" in line]
    assert len(lines) == 1, done
    return lines[0]


def test_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert missing((), None) == "system tests need root"


@pytest.mark.parametrize("what", list(WITHOUT))
def test_a_right(what: str) -> None:
    assert what in said(WITHOUT[what])


def test_a_compiler(tmp_path: Path) -> None:
    for tool in TOOLS:
        (tmp_path / tool).symlink_to("/bin/true")
    (tmp_path / "cc").unlink()
    assert said([], PATH=str(tmp_path)).endswith("system tests need cc: apt-get install gcc libc6-dev")


def test_a_mirror(tmp_path: Path) -> None:
    """By a proxy that nobody is."""
    (tmp_path / "apt.conf").write_text('Acquire::http::Proxy "http://127.0.0.1:9"; Acquire::Retries "0";\n')
    assert "a mirror of Debian to make bookworm from" in said([], APT_CONFIG=str(tmp_path / "apt.conf"))
