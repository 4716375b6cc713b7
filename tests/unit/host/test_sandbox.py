"""Errors that come of what a unit forbids name the setting."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from restpipe.host import sandbox

CHECKOUT = Path(__file__).parents[3]
UNIT = "0::/system.slice/system-restpipe.slice/restpipe-client-handlers@1.service\n"


@pytest.fixture
def cgroup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "cgroup"
    path.write_text(UNIT)
    monkeypatch.setattr(sandbox, "_CGROUP", path)
    sandbox.is_unit.cache_clear()
    yield path
    sandbox.is_unit.cache_clear()


def failing(number: int, *names: str) -> OSError:
    return OSError(number, os.strerror(number), *names)


def wrapped(error: BaseException, *, by_chance: bool = False) -> BaseException:
    try:
        try:
            raise error
        except BaseException as cause:
            if by_chance:
                raise ValueError  # noqa: B904
            raise ValueError from cause
    except ValueError as raised:
        return raised


def told_otherwise(error: BaseException) -> BaseException:
    try:
        try:
            raise error
        except BaseException:
            raise ValueError from None
    except ValueError as raised:
        return raised


def no_program(tmp_path: Path) -> BaseException:
    (tmp_path / "program").write_text("")
    with pytest.raises(PermissionError) as raised:
        subprocess.run([tmp_path / "program"])
    return raised.value


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (failing(errno.EAFNOSUPPORT), "RestrictAddressFamilies="),
        (failing(errno.ENETUNREACH), "PrivateNetwork="),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "PrivateNetwork="),
        (wrapped(failing(errno.EAFNOSUPPORT)), "RestrictAddressFamilies="),
        (wrapped(failing(errno.EAFNOSUPPORT), by_chance=True), "RestrictAddressFamilies="),
        (failing(errno.EPERM), "IPAddressDeny="),
        (failing(errno.EROFS, "/var/lib/x"), "ReadWritePaths="),
        (failing(errno.ENOENT, "/proc/meminfo"), "ProcSubset="),
        (failing(errno.EACCES, "/home/me/x"), "ProtectHome="),
        (failing(errno.ENOENT, "/dev/ttyUSB0"), "PrivateDevices="),
        (ImportError("x.so: failed to map segment from shared object"), "ExecPaths="),
        (RuntimeError("can't start new thread"), "TasksMax="),
    ],
)
def test_the_setting_is_named(cgroup: Path, error: BaseException, named: str) -> None:
    said = sandbox.hint(error)
    assert named in said
    assert sandbox.WIDER in said
    # Each of them is in the file that is named, and says what it is for.
    assert f"\n{named}" in (CHECKOUT / "packaging/examples/wider.conf").read_text().replace("\n#", "\n")


def test_programs_that_may_not_run(cgroup: Path, tmp_path: Path) -> None:
    assert "ExecPaths=" in sandbox.hint(no_program(tmp_path))


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        OSError("x"),
        failing(errno.ENOENT, "/srv/x"),
        failing(errno.EACCES, "/etc/shadow"),
        failing(9),
        told_otherwise(failing(errno.ENOENT, "/home/x")),
        wrapped(told_otherwise(failing(errno.ENOENT, "/home/x"))),
    ],
)
def test_nothing_is_said_of_other_errors(cgroup: Path, error: BaseException) -> None:
    assert sandbox.hint(error) == ""


def test_nothing_is_said_outside_of_a_unit(cgroup: Path) -> None:
    cgroup.write_text("0::/user.slice/user-1000.slice\n")
    assert sandbox.hint(failing(errno.EROFS, "/var/lib/x")) == ""
    sandbox.is_unit.cache_clear()
    cgroup.unlink()
    assert sandbox.hint(failing(errno.EROFS, "/var/lib/x")) == ""
