"""What the package offers by its first name, and what that costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import restpipe

SOURCE = Path(restpipe.__file__)


def imported_for_type_checkers() -> dict[str, str]:
    tree = ast.parse(SOURCE.read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


def test_every_name_is_there_and_at_home_where_type_checkers_think() -> None:
    homes = imported_for_type_checkers()
    assert set(homes) | {"__version__"} == set(restpipe.__all__)
    for name, home in homes.items():
        assert getattr(restpipe, name) is getattr(importlib.import_module(home), name)
    assert set(restpipe.__all__) <= set(dir(restpipe))


def test_names_are_sorted_and_documented() -> None:
    assert restpipe.__all__ == sorted(restpipe.__all__)
    for name in set(restpipe.__all__) - {"__version__"}:
        assert getattr(restpipe, name).__doc__


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="'restpipe' has no attribute 'nothing'"):
        restpipe.nothing  # noqa: B018


def test_the_version_can_be_read_without_an_import() -> None:
    tree = ast.parse(SOURCE.read_text())
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [ast.unparse(target) for target in node.targets] == ["__version__"]
    ]
    assert [isinstance(value, ast.Constant) and value.value for value in values] == [restpipe.__version__]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import restpipe", ("restpipe.handler", "restpipe.errors", "google.protobuf", "asyncio")),
        ("from restpipe import raise_for_exception", ("google.protobuf", "asyncio", "requests", "httpx")),
        ("from restpipe import EventHandler, Reply, Context", ("google.protobuf", "uvloop", "falcon")),
    ],
)
def test_nothing_is_loaded_before_it_is_asked_for(statement: str, absent: tuple[str, ...]) -> None:
    code = f"import sys; {statement}; print(*set({absent!r}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
