"""User code that imports, and user code that does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from restpipe.errors import ConfigError
from restpipe.host.loader import create, first_on_path, load_class


@pytest.fixture(autouse=True)
def _imports_restored() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("X = 3")
    (tmp_path / "mine.py").write_text(
        "class Files:\n    def later(self):\n        import beside\n        return beside.X"
    )
    found = load_class("mine.Files", tmp_path)
    assert found().later() == 3
    assert sys.path[0] == str(tmp_path)


def test_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "here.py").write_text("class Files: pass")
    monkeypatch.chdir(tmp_path)
    assert load_class("pack.here.Files").__module__ == "pack.here"


def test_the_folder_comes_before_everything_else(tmp_path: Path) -> None:
    (tmp_path / "this.py").write_text("class Files: pass")  # the standard library has a module of that name
    assert load_class("this.Files", tmp_path).__name__ == "Files"


BROKEN = (
    ("x = 1\nclass", "broken.py:2: SyntaxError: invalid syntax"),
    ("x = 1\n\nimport nothing_such", "broken.py:3: ModuleNotFoundError: No module named 'nothing_such'"),
    ("\nx = 1 / 0", "broken.py:2: ZeroDivisionError: division by zero"),
    ("\nimport json\njson.loads('')", "broken.py:3: JSONDecodeError: Expecting value"),
    ("\neval('1 +')", "broken.py:2: SyntaxError"),
    ("import sys\nsys.exit(3)", "broken.py:2: SystemExit: 3"),
    ("\nraise KeyboardInterrupt", "broken.py:2: KeyboardInterrupt"),
    ("raise ValueError('two\\nlines')", "broken.py:1: ValueError: two lines"),
    ("raise ValueError", "broken.py:1: ValueError"),
    ("import faulty", "faulty.py:2: NameError: name 'y' is not defined"),
    ("class Other: pass", "broken.py: there is no class Files in it"),
    ("def Files(): pass", "broken.py: there is no class Files in it"),
)


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_what_fails_is_one_line_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "faulty.py").write_text("\ny")
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_class("broken.Files", tmp_path)
    assert f"{tmp_path}/{message}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"No module named 'nothing_such'.*looked in {tmp_path}"):
        load_class("nothing_such.Files", tmp_path)
    with pytest.raises(ConfigError, match="not the dotted name of a class"):
        load_class("Files", tmp_path)


def test_a_repaired_module_is_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_class("late.Files", tmp_path)
    (tmp_path / "late.py").write_text("class Files: pass")
    assert load_class("late.Files", tmp_path)


def test_an_edit_counts_whenever_it_is_made(tmp_path: Path) -> None:
    """Compiled files are told apart by second and size of their source: an edit may change neither."""
    source = tmp_path / "edited.py"
    script = (
        "import sys, pathlib\n"
        "from restpipe.host.loader import load_class\n"
        "print(load_class('edited.Code', pathlib.Path(sys.argv[1])).VERSION)"
    )
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    for version in ("1", "2"):
        source.write_text(f"class Code:\n    VERSION = {version}\n")
        os.utime(source, (1_700_000_000, 1_700_000_000))
        process = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        assert process.stdout == f"{version}\n"


def test_first_on_path_lasts_as_long_as_it_says(tmp_path: Path) -> None:
    before = list(sys.path)
    with first_on_path(tmp_path, tmp_path / "b"):
        assert sys.path[:2] == [str(tmp_path), str(tmp_path / "b")]
        sys.path.append("/added/by/the/module")
    assert sys.path == [*before, "/added/by/the/module"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "class Files:\n    def __init__(self):\n        raise RuntimeError('a\\nb')",
            "{}:3: RuntimeError: a b",
        ),
        ("import sys\nclass Files:\n    def __init__(self):\n        sys.exit('so')", "{}:4: SystemExit: so"),
        ("class Files:\n    def __init__(self):\n        raise KeyboardInterrupt", "{}:3: KeyboardInterrupt"),
        ("class Files:\n    def __init__(self, root): ...", "TypeError: Files.__init__() missing 1 required"),
    ],
)
def test_what_cannot_be_made_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        create("broken.Files", tmp_path)
    assert str(caught.value).startswith(
        f"cannot create broken.Files: {message.format(tmp_path / 'broken.py')}"
    )
    assert len(str(caught.value).splitlines()) == 1
