"""A module imports its own room and the floors below it; the wings meet only on the wire."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "files", "http", "names"}),
    frozenset({"protocol"}),
    frozenset({"transport", "host"}),
    frozenset({"daemon", "web", "handler", "identity"}),
    frozenset({"testing", "run"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
"""Bottom first. Rooms of one floor know nothing of each other."""

RUN_TIME = {"__init__": frozenset({"errors", "handler"})}
"""The package itself offers the names for handler authors, but imports them only when they are asked for."""


def sources(package: Path) -> Iterator[tuple[str, Path]]:
    """The name and the file of each module of a package."""
    for path in sorted(package.rglob("*.py")):
        yield ".".join(path.relative_to(package.parent).with_suffix("").parts), path


def imported(tree: ast.AST) -> Iterator[str]:
    """Everything that a module imports anywhere in it, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides where it leads"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(room: str) -> frozenset[str]:
    if room in RUN_TIME:
        return RUN_TIME[room]
    floor = next(number for number, rooms in enumerate(FLOORS) if room in rooms)
    return frozenset({room}).union(*FLOORS[:floor])


def is_room(name: str) -> bool:
    found = CHECKOUT / "restpipe" / name
    return name != "" and (found.is_dir() or found.with_suffix(".py").is_file())


def edges(package: str, root: Path) -> Iterator[tuple[str, str]]:
    """(module, imported name), both within or out of the package."""
    for module, path in sources(root / package):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield from ((module, name) for name in imported(tree))


PIPE_MODULES = sorted(module for module, _ in sources(CHECKOUT / "restpipe"))


def test_every_room_stands_on_a_floor() -> None:
    rooms = {module.split(".")[1] for module in PIPE_MODULES} - {"__init__"}
    assert rooms == frozenset[str]().union(*FLOORS)


@pytest.mark.parametrize("room", sorted({module.split(".")[1] for module in PIPE_MODULES}))
def test_a_room_imports_only_itself_and_what_is_below(room: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module, name in edges("restpipe", CHECKOUT)
        if module.split(".")[1] == room and not may_import(room, name)
    ]
    assert not wrong


def may_import(room: str, name: str) -> bool:
    package, _, rest = name.partition(".")
    if package == "restpipe_ca":
        return False
    target = rest.partition(".")[0]
    # What `from restpipe import …` names and is no room is the package's own, such as its version.
    return package != "restpipe" or target in allowed(room) or not is_room(target)


def test_the_ca_and_the_pipe_do_not_import_each_other() -> None:
    """Their contract is X.509."""
    assert not [
        f"{module} imports {name}"
        for module, name in edges("restpipe_ca", CHECKOUT / "ca")
        if name.partition(".")[0] == "restpipe"
    ]


def test_a_wrong_import_would_be_found() -> None:
    tree = ast.parse("def late():\n    from restpipe.web import app\n")
    assert [name for name in imported(tree) if not may_import("handler", name)] == ["restpipe.web.app"]
    assert may_import("web", "restpipe.host.config.Config")
    assert not may_import("host", "restpipe.transport.link")
    assert not may_import("daemon", "restpipe_ca.store")


PURE = ("socket", "asyncio", "ssl", "time", "threading", "uvloop", "random")


PURE_OF_THE_DAEMON = frozenset(
    f"restpipe.daemon.{name}"
    for name in ("channel", "mechanics", "peers", "pool", "router", "turns", "waiting")
)


def test_the_protocol_and_the_router_do_no_io_and_read_no_clock() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, name in edges("restpipe", CHECKOUT)
        if (module.startswith("restpipe.protocol.") or module in PURE_OF_THE_DAEMON)
        and name.partition(".")[0] in PURE
    ]
    assert not wrong
    assert set(PIPE_MODULES) > PURE_OF_THE_DAEMON


FOR_TYPES_ALONE = {
    "restpipe.handler.handling": frozenset({"restpipe.handler.dispatch"}),
}
"""Imports for the type checker that close a circle. There should be no more of them."""


def test_no_modules_need_each_other() -> None:
    """Any of them can be imported first, and read without the others at hand. Type hints count too."""
    paths = dict(sources(CHECKOUT / "restpipe")) | dict(sources(CHECKOUT / "ca" / "restpipe_ca"))
    modules = {
        name.removesuffix(".__init__"): path.read_text(encoding="utf-8") for name, path in paths.items()
    }
    needs = {name: set(needed(source, set(modules))) for name, source in modules.items()}
    for name, allowed_circle in FOR_TYPES_ALONE.items():
        assert allowed_circle <= needs[name], "this exception is needed no more"
        needs[name] -= allowed_circle
    TopologicalSorter(needs).prepare()  # raises CycleError, which names them


def needed(source: str, modules: set[str]) -> Iterator[str]:
    """Yield those of `modules` that `source` imports, be it for the type checker alone."""
    for name in imported(ast.parse(source)):
        # `from package import module` needs the module; `from module import name` the module too.
        found = name if name in modules else name.rpartition(".")[0]
        if found in modules:
            yield found


def test_a_cycle_would_be_found() -> None:
    source = "if TYPE_CHECKING:\n    import a.x\nfrom a import y\nfrom a.z import f\n"
    assert sorted(needed(source, {"a", "a.x", "a.y", "a.z"})) == ["a.x", "a.y", "a.z"]
    with pytest.raises(CycleError, match="in a cycle"):
        TopologicalSorter({"a.x": {"a.y"}, "a.y": {"a.x"}}).prepare()
