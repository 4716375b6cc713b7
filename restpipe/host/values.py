"""One configured value: from text or a TOML or Python value to the option's type, within its bounds."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import UnionType
from typing import Any

from restpipe.errors import ConfigError
from restpipe.host.options import GIB, KIB, MIB, Option, parse_address

_TEXT_OF_BOOL = {"true": True, "yes": True, "on": True, "": False, "false": False, "no": False, "off": False}
_SIZE = re.compile(r"([0-9]+) ?(|KiB|MiB|GiB)", re.IGNORECASE)
_UNITS = {"": 1, "kib": KIB, "mib": MIB, "gib": GIB}


def coerce(option: Option, value: object, source: str, folder: Path) -> Any:
    """`value` as the option wants it; a relative path starts from `folder`. ConfigError names `source`."""
    try:
        return _value_of(option, value, folder)
    except (ValueError, TypeError, LookupError, OverflowError):
        raise ConfigError(f"{source}: {option.key} must be {allowed(option)}, not {_shown(value)}") from None


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:
        # Python writes no number of more than a few thousand digits.
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _value_of(option: Option, value: object, folder: Path) -> Any:
    if value == "" and option.spec.empty is not None:
        return option.spec.empty
    if option.kind is tuple:
        return _texts(option, value)
    if option.kind is Path:
        return _path(option, value, folder)
    if option.kind is bool:
        return _truth(value)
    if option.kind is str:
        return _text(option, value)
    return _bounded(option, value)


def _truth(value: object) -> bool:
    """Any whole number says it as well, 0 alone being false: DEBUG=2 has always been more than enough."""
    if isinstance(value, str) and value.lower() in _TEXT_OF_BOOL:
        return _TEXT_OF_BOOL[value.lower()]
    number = int(value) if isinstance(value, str) else value
    if not isinstance(number, int):
        raise TypeError
    return bool(number)


def _typed(value: object, kind: type | UnionType) -> Any:
    # bool is an int for Python, but `port = true` is a mistake.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError
    return value


def _text(option: Option, value: object) -> str:
    text: str = _typed(value, str)
    if not re.fullmatch(option.spec.pattern, text):
        raise ValueError
    return text


def _texts(option: Option, value: object) -> tuple[str, ...]:
    parts = (
        value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
    )
    texts = tuple(_text(option, part.strip() if isinstance(part, str) else part) for part in parts)
    if not texts:
        raise ValueError
    for text in texts:
        parse_address(text)
    return texts


def _path(option: Option, value: object, folder: Path) -> Path:
    """A relative path starts from the folder of the file that it stands in, or from the current one."""
    path = value if isinstance(value, Path) else Path(_typed(value, str))
    if value == "" or "\0" in str(path):
        raise ValueError
    return path if option.spec.base else (folder / path).absolute()


def _bounded(option: Option, value: object) -> int | float:
    number = _number(option, value) if isinstance(value, str) else value
    number = _typed(number, int) if option.kind is int else float(_typed(number, int | float))
    low, high = option.spec.low, option.spec.high
    if (
        not math.isfinite(number)
        or (low is not None and number < low)
        or (high is not None and number > high)
    ):
        raise ValueError
    return number


def _number(option: Option, text: str) -> int | float:
    if option.kind is float:
        return float(text)
    if option.spec.unit == "octal":
        return int(text, 8)
    found = _SIZE.fullmatch(text.strip()) if option.spec.unit == "bytes" else None
    return int(found[1]) * _UNITS[found[2].lower()] if found else int(text)


def allowed(option: Option) -> str:
    """What a value may be, in words that follow "must be"."""
    if option.kind is tuple:
        return f"a list, each item {option.spec.allowed}"
    if option.kind is Path:
        return "a path"
    if option.kind is bool:
        return "true or false (1 or 0)"
    words = option.spec.allowed if option.kind is str else _number_in_words(option)
    return f"{words}, or empty" if option.spec.empty is not None else words


def _number_in_words(option: Option) -> str:
    show = oct if option.spec.unit == "octal" else "{:,.15g}".format
    kind = "a whole number" if option.kind is int else "a number"
    unit = {"s": " seconds", "bytes": " bytes"}.get(option.spec.unit, "")
    low, high = option.spec.low, option.spec.high
    if high is None:
        return f"{kind} of {show(low)}{unit} or more"  # type: ignore[arg-type]
    return f"{kind} from {show(low)} to {show(high)}{unit}"  # type: ignore[arg-type]
