"""Configuration for people to read: what is in force and why, and the README's table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from restpipe.host.config import Config
from restpipe.host.options import GIB, KIB, MIB, PARTS, Option, PerRole, Role, options
from restpipe.host.values import allowed


def in_force(config: Config) -> str:
    """A TOML file that would say the same, each line with the source of its value in a comment."""
    lines: list[str] = []
    width = max(len(line) for line in _assignments(config).values())
    for part in PARTS:
        lines += ["", f"[{part}]"]
        for option in (o for o in options(config.role) if o.part == part):
            assignment = _assignments(config)[option.key]
            lines.append(f"{assignment:{min(width, 60)}}  # {config.sources.get(option.key, 'default')}")
    return "\n".join(lines[1:])


def as_json(config: Config) -> str:
    """The same for machines: `{"pipe.port": {"value": 1234, "source": "default"}, ...}`."""
    shown = {
        option.key: {
            "value": _plain(_value(config, option)),
            "source": config.sources.get(option.key, "default"),
        }
        for option in options(config.role)
    }
    return json.dumps(shown, indent=2)


def markdown(role: Role | None = None) -> str:
    """The table of all options, or of those that `role` has."""
    lines = ["| option | default | allowed | variables | meaning |", "| --- | --- | --- | --- | --- |"]
    lines += [_row(option, role) for option in options(role)]
    return "\n".join(lines)


def _row(option: Option, role: Role | None) -> str:
    only = f" ({option.spec.role} only)" if option.spec.role and role is None else ""
    variables = ", ".join(f"`{name}`" for name in option.variables(role or "ROLE"))
    cells = (f"`{option.key}`{only}", _default(option, role), allowed(option), variables, option.spec.help)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(option: Option, role: Role | None) -> str:
    default = option.spec.default
    if isinstance(default, PerRole):
        text = default.format(role=role or "ROLE")
    elif default is None or default == ():
        text = ""
    else:
        text = _with_unit(option, default)
    return f"`{text}`" if text else ""


def _with_unit(option: Option, value: Any) -> str:
    if option.spec.unit == "bytes":
        return _size(value)
    if option.spec.unit == "octal":
        return oct(value)
    if isinstance(value, bool):
        return str(value).lower()
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{number} {option.spec.unit}".rstrip()


def _size(value: int) -> str:
    for factor, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if value and value % factor == 0:
            return f"{value // factor} {unit}"
    return str(value)


def _assignments(config: Config) -> dict[str, str]:
    return {o.key: _assignment(o, _value(config, o)) for o in options(config.role)}


def _assignment(option: Option, value: Any) -> str:
    # TOML has no null: an option without a value is shown as a comment.
    return f"# {option.name} is not set" if value is None else f"{option.name} = {_toml(option, value)}"


def _toml(option: Option, value: Any) -> str:
    if option.spec.unit == "octal":
        return oct(value)
    if option.spec.empty is not None and value == option.spec.empty:
        return '""'
    # Of booleans, numbers, texts and lists of texts, JSON's way of writing is TOML's too.
    return json.dumps(_plain(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(config: Config, option: Option) -> Any:
    return getattr(getattr(config, option.part), option.name)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
