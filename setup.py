"""Compiles the hot path with mypyc, where that can be done. All else about the package is in pyproject.toml.

RESTPIPE_COMPILE=0 never compiles, RESTPIPE_COMPILE=1 fails where it cannot. Unless it is set, the package is
compiled if mypyc and a C compiler with Python's headers are there; otherwise it is installed as pure Python.
An editable install is never compiled: Python would prefer the compiled modules to sources edited since.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext

MODULES = [
    "restpipe/daemon/channel.py",
    "restpipe/daemon/links.py",
    "restpipe/daemon/local.py",
    "restpipe/daemon/mechanics.py",
    "restpipe/daemon/peers.py",
    "restpipe/daemon/pool.py",
    "restpipe/daemon/router.py",
    "restpipe/daemon/turns.py",
    "restpipe/daemon/waiting.py",
    "restpipe/handler/capacity.py",
    "restpipe/handler/dispatch.py",
    "restpipe/handler/handling.py",
    "restpipe/handler/incoming.py",
    "restpipe/handler/post_data.py",
    "restpipe/handler/registry.py",
    "restpipe/handler/results.py",
    "restpipe/handler/sending.py",
    "restpipe/handler/target.py",
    "restpipe/protocol/connection.py",
    "restpipe/protocol/deadlines.py",
    "restpipe/protocol/frames.py",
    "restpipe/protocol/messages.py",
    "restpipe/protocol/session.py",
    "restpipe/protocol/shares.py",
    "restpipe/protocol/stream.py",
    "restpipe/protocol/streams.py",
    "restpipe/transport/daemon_link.py",
    "restpipe/transport/exchange.py",
    "restpipe/transport/link.py",
    "restpipe/transport/timer.py",
    "restpipe/web/body.py",
    "restpipe/web/call.py",
    "restpipe/web/events.py",
    "restpipe/web/framing.py",
    "restpipe/web/http1.py",
    "restpipe/web/patience.py",
    "restpipe/web/paths.py",
    "restpipe/web/places.py",
    "restpipe/web/prefer.py",
    "restpipe/web/resend.py",
    "restpipe/web/responding.py",
    "restpipe/web/responses.py",
    "restpipe/web/serving.py",
]
"""What is compiled, all of it into one library: calls between these modules are C's."""

MYPYC = "2.4"
"""The oldest mypyc that all tests have passed with. It is a part of mypy, and numbered so. With Debian 12's
(1.0) a cancelled coroutine crashes, with Debian 13's (1.15) a stream cannot end."""


class CannotCompileError(Exception):
    """Says why, in one line."""


def is_wanted(environ: Mapping[str, str]) -> bool | None:
    """Whether to compile; None if it depends on what is there."""
    wanted = environ.get("RESTPIPE_COMPILE", "")
    if wanted not in ("", "0", "1"):
        raise SystemExit(f"RESTPIPE_COMPILE is 0 or 1, not {wanted!r}")
    return None if wanted == "" else wanted == "1"


def has_compiler(environ: Mapping[str, str]) -> bool:
    """Whether a C compiler is there that finds Python's headers."""
    compiler = shlex.split(environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    includes = {f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")}
    command = [*compiler, *includes, "-fsyntax-only", "-x", "c", "-"]
    try:
        done = subprocess.run(command, input=b"#include <Python.h>\n", capture_output=True)  # noqa: S603
    except OSError:
        return False
    return done.returncode == 0


def requirements(environ: Mapping[str, str]) -> list[str]:
    """What building needs besides setuptools. An installer that isolates the build provides it."""
    wanted = is_wanted(environ)
    return [f"mypy>={MYPYC}"] if wanted or (wanted is None and has_compiler(environ)) else []


def extensions(command: Sequence[str], environ: Mapping[str, str]) -> list[Any]:
    """The compiled modules; none if this command, or this machine, has the package in pure Python.

    Raises SystemExit if they are demanded and cannot be had.
    """
    wanted = is_wanted(environ)
    try:
        if wanted is False:
            raise CannotCompileError("RESTPIPE_COMPILE=0")
        if "editable_wheel" in command or "develop" in command:
            raise CannotCompileError("an editable install runs from its sources")
        if "bdist_wheel" not in command:
            return []  # it only asks for the package's metadata
        if not has_compiler(environ):
            raise CannotCompileError("there is no C compiler with Python's headers")
        check_mypyc()
        return translate()
    except CannotCompileError as error:
        if wanted:
            raise SystemExit(f"RestPipe cannot be compiled: {error}") from None
        tell_pure(error)
        return []


def check_mypyc() -> None:
    """Raises CannotCompileError if there is no mypyc, or an old one."""
    try:
        found = version("mypy")
    except PackageNotFoundError:
        raise CannotCompileError("there is no mypyc (part of mypy)") from None
    if numbers(found) < numbers(MYPYC):
        raise CannotCompileError(f"mypyc {found} is too old, it takes {MYPYC} or newer")


def numbers(of: str) -> tuple[int, ...]:
    """The first two numbers of a version, which compare as numbers."""
    return tuple(int(number) for number in re.findall(r"\d+", of)[:2])


def translate() -> list[Any]:
    """The modules in C. Raises CannotCompileError if mypyc refuses them."""
    from mypyc.build import mypycify

    arguments = ["--config-file=", "--follow-imports=silent"]
    # `make lint` judges the types. What an older mypy does not know of a library is looked up at run time.
    arguments += [f"--disable-error-code={code}" for code in ("attr-defined", "import", "var-annotated")]
    try:
        return mypycify([*arguments, *MODULES], opt_level="2", debug_level="0")
    except SystemExit:
        raise CannotCompileError("mypyc refuses the sources, for the reasons above") from None


def tell_pure(reason: object) -> None:
    sys.stderr.write(f"RestPipe is installed as pure Python: {reason}\n")


class BuildAllOrNone(build_ext):
    """A package with some of its extensions could not be imported."""

    def run(self) -> None:
        try:
            super().run()
        except Exception:
            if is_wanted(os.environ):
                raise
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []
            tell_pure("the C compiler failed, as it says above")


if __name__ == "__main__":
    setup(
        cmdclass={"build_ext": BuildAllOrNone},
        ext_modules=extensions(sys.argv, os.environ),
        setup_requires=requirements(os.environ),
    )
