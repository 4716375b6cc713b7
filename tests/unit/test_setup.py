"""When the package is compiled, and that what runs here is what it says it is."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import restpipe
from tests.support.processes import clean_environment, python

SOURCE = Path(__file__).resolve().parents[2] / "setup.py"
COMPILED = os.environ.get("TEST_COMPILED") == "1"
"""Set by those who test the compiled package, so that they never test pure Python by mistake."""

WHEEL = ["setup.py", "bdist_wheel"]
EDITABLE = ["setup.py", "editable_wheel"]


def listed() -> list[str]:
    """setup.MODULES by their names in Python. Read, not imported: setuptools may not be here."""
    body = ast.parse(SOURCE.read_text()).body
    value = next(node.value for node in body if isinstance(node, ast.Assign) and named(node) == "MODULES")
    return [path.removesuffix(".py").replace("/", ".") for path in ast.literal_eval(value)]


def named(node: ast.Assign) -> str:
    return ast.unparse(node.targets[0])


@pytest.mark.parametrize("name", listed())
def test_a_module_is_compiled_where_the_package_is(name: str) -> None:
    file = importlib.import_module(name).__file__
    assert file is not None
    assert file.endswith(tuple(EXTENSION_SUFFIXES)) == COMPILED, file


def test_every_process_runs_what_is_tested() -> None:
    assert restpipe.COMPILED == COMPILED
    done = subprocess.run(
        [*python(), "-m", "restpipe", "--version"], env=clean_environment(), capture_output=True, text=True
    )
    assert f"({'compiled' if COMPILED else 'pure'})" in done.stdout, done.stderr


def load() -> ModuleType:
    pytest.importorskip("setuptools")
    spec = importlib.util.spec_from_file_location("restpipe_setup", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def setup() -> ModuleType:
    """setup.py, on a machine that can compile, with a mypyc that only says that it was called."""
    module = load()
    module.has_compiler = lambda environ: True
    module.version = lambda name: "2.4.1+dev"
    module.translate = lambda: ["translated"]
    return module


def test_a_wheel_is_compiled_where_it_can_be(setup: ModuleType) -> None:
    assert setup.extensions(WHEEL, {}) == ["translated"]
    assert setup.extensions(WHEEL, {"RESTPIPE_COMPILE": "1"}) == ["translated"]


def test_not_if_it_is_forbidden(setup: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup.extensions(WHEEL, {"RESTPIPE_COMPILE": "0"}) == []
    assert capsys.readouterr().err == "RestPipe is installed as pure Python: RESTPIPE_COMPILE=0\n"


def absent(name: str) -> str:
    raise PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("has_compiler", lambda environ: False, "there is no C compiler with Python's headers"),
        ("version", absent, "there is no mypyc"),
        ("version", lambda name: "1.0.1", "mypyc 1.0.1 is too old, it takes 2.4 or newer"),
    ],
)
def test_pure_python_where_something_is_missing(
    setup: ModuleType, capsys: pytest.CaptureFixture[str], attribute: str, value: Any, reason: str
) -> None:
    setattr(setup, attribute, value)
    assert setup.extensions(WHEEL, {}) == []
    said = capsys.readouterr().err
    assert said.startswith(f"RestPipe is installed as pure Python: {reason}") and said.count("\n") == 1
    with pytest.raises(SystemExit, match=f"cannot be compiled: {reason}"):
        setup.extensions(WHEEL, {"RESTPIPE_COMPILE": "1"})


@pytest.mark.parametrize(
    ("found", "new_enough"), [("1.15.0", False), ("2.4.1", True), ("2.10.0", True), ("3.0.0", True)]
)
def test_the_numbers_of_a_version_are_compared_as_numbers(
    setup: ModuleType, found: str, new_enough: bool
) -> None:
    setup.version = lambda name: found
    assert setup.extensions(WHEEL, {}) == (["translated"] if new_enough else [])


def test_never_an_editable_install(setup: ModuleType) -> None:
    assert setup.extensions(EDITABLE, {}) == []
    with pytest.raises(SystemExit, match="runs from its sources"):
        setup.extensions(EDITABLE, {"RESTPIPE_COMPILE": "1"})


def test_metadata_alone_compiles_nothing(setup: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup.extensions(["setup.py", "egg_info"], {"RESTPIPE_COMPILE": "1"}) == []
    assert not capsys.readouterr().err


def test_another_word_is_an_error(setup: ModuleType) -> None:
    with pytest.raises(SystemExit, match="is 0 or 1, not 'yes'"):
        setup.extensions(WHEEL, {"RESTPIPE_COMPILE": "yes"})


def test_mypyc_is_asked_for_only_where_it_is_of_use(setup: ModuleType) -> None:
    assert setup.requirements({}) == setup.requirements({"RESTPIPE_COMPILE": "1"}) == ["mypy>=2.4"]
    assert setup.requirements({"RESTPIPE_COMPILE": "0"}) == []
    setup.has_compiler = lambda environ: False
    assert setup.requirements({}) == []
    assert setup.requirements({"RESTPIPE_COMPILE": "1"}) == ["mypy>=2.4"]


@pytest.mark.parametrize("compiler", ["/nonexistent/cc", "false"])
def test_a_compiler_that_cannot_read_pythons_headers_is_none(compiler: str) -> None:
    assert not load().has_compiler({"CC": compiler})


def test_a_compiler_that_can() -> None:
    assert load().has_compiler({"CC": "true"})


@pytest.mark.parametrize("demanded", [False, True])
def test_all_modules_are_compiled_or_none(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demanded: bool
) -> None:
    """The compiler fails at the second one."""
    from setuptools import Distribution, Extension

    build = setup.BuildAllOrNone(Distribution())
    build.build_lib = str(tmp_path)
    build.extensions = [Extension("one", []), Extension("two", [])]
    one = Path(build.get_ext_fullpath("one"))

    def fail(self: object) -> None:
        one.touch()
        raise RuntimeError("out of memory")

    monkeypatch.setattr(setup.build_ext, "run", fail)
    monkeypatch.setenv("RESTPIPE_COMPILE", "1" if demanded else "")
    if demanded:
        with pytest.raises(RuntimeError):
            build.run()
    else:
        build.run()
        assert (build.extensions, one.exists()) == ([], False)
