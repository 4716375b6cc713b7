"""What the compiler is told in the source (see `setup.py`). Python itself does not heed it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:
    T = TypeVar("T")

    def mypyc_attr(*, allow_interpreted_subclasses: bool) -> Callable[[type[T]], type[T]]:
        """Say of a class whether one that is not compiled may inherit from it."""
        return lambda marked: marked
