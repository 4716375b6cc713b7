"""Imports what belongs to the user, and says in one line where it went wrong."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from restpipe.errors import ConfigError, message_of
from restpipe.host.sandbox import hint

_HERE = __file__
_LIBRARIES = (
    *(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platlib", "purelib")),
    f"{Path(__file__).parents[1]}{os.sep}",
)


def load_class(name: str, folder: Path | None = None) -> type:
    """The class with the dotted `name`, looked for in `folder` (the current one if None) first of all.

    The folder stays first on sys.path: what the class imports later is looked for there too.
    Raises ConfigError naming the file and line of whatever could not be imported.
    """
    module_name, _, class_name = name.rpartition(".")
    if not module_name:
        raise ConfigError(f"{name!r} is not the dotted name of a class (package.module.Class)")
    _put_first((folder or Path.cwd()).absolute())
    module = import_module(module_name)
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        raise ConfigError(f"{_file_of(module)}: there is no class {class_name} in it ({name} is asked for)")
    return found


def import_module(name: str) -> ModuleType:
    """Import it; ConfigError (one line, with file and line) if that fails, by whatever exception.

    From here on this process compiles what it imports without leaving the outcome behind.
    """
    importlib.invalidate_caches()
    # Compiled files are told apart by the second and the size of their source: code that is edited and
    # reloaded at once could be the old one.
    sys.dont_write_bytecode = True
    try:
        return importlib.import_module(name)
    except BaseException as exc:
        raise ConfigError(_explain(name, exc) + hint(exc)) from exc


def create(name: str, folder: Path | None = None) -> object:
    """An object of the class that `load_class` finds; ConfigError (one line) also if it cannot be made."""
    found = load_class(name, folder)
    try:
        return found()
    except BaseException as exc:
        place = _place(exc)
        said = f"{place}{': ' * bool(place)}{_one_line(exc)}{hint(exc)}"
        raise ConfigError(f"cannot create {name}: {said}") from exc


@contextlib.contextmanager
def first_on_path(*folders: Path) -> Iterator[None]:
    """The folders are in front of sys.path, for as long as this lasts."""
    added = [str(folder.absolute()) for folder in folders]
    sys.path[:0] = added
    try:
        yield
    finally:
        for text in added:
            with contextlib.suppress(ValueError):
                sys.path.remove(text)


def _put_first(folder: Path) -> None:
    text = str(folder)
    if text in sys.path:
        sys.path.remove(text)
    sys.path.insert(0, text)


def _explain(name: str, exc: BaseException) -> str:
    place = _place(exc)
    if not place:
        return f"cannot import {name}: {_one_line(exc)} (looked in {', '.join(filter(None, sys.path))})"
    return f"cannot import {name}: {place}: {_one_line(exc)}"


def _place(exc: BaseException) -> str:
    """`file:line` where the user's code failed; empty if none of it was reached."""
    if isinstance(exc, SyntaxError) and exc.filename and not exc.filename.startswith("<"):
        return f"{exc.filename}:{exc.lineno}"
    return users_line(traceback.extract_tb(exc.__traceback__))


def users_line(stack: Sequence[traceback.FrameSummary]) -> str:
    """Return `file:line` of the innermost frame of the user's code, else of the innermost one, or nothing."""
    frame = users_frame(stack) or next(_not_machinery(stack), None)
    return f"{frame.filename}:{frame.lineno}" if frame else ""


def users_frame(stack: Sequence[traceback.FrameSummary]) -> traceback.FrameSummary | None:
    """Return the innermost frame of the user's code.

    A library that this code called is rarely at fault: the line of the call says more.
    """
    return next(filter(_is_users, _not_machinery(stack)), None)


def _not_machinery(stack: Sequence[traceback.FrameSummary]) -> Iterator[traceback.FrameSummary]:
    return (frame for frame in reversed(stack) if not _is_machinery(frame.filename))


def _is_machinery(filename: str) -> bool:
    return filename in (_HERE, importlib.__file__) or filename.startswith("<frozen")


def _is_users(frame: traceback.FrameSummary) -> bool:
    # What is compiled has a name that leads nowhere.
    return frame.filename.startswith(os.sep) and not frame.filename.startswith(_LIBRARIES)


def _one_line(exc: BaseException) -> str:
    detail = exc.msg if isinstance(exc, SyntaxError) else message_of(exc)
    return f"{type(exc).__name__}: {' '.join(detail.split())}" if detail else type(exc).__name__


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or f"module {module.__name__}"
