"""Configuration in force: defaults < file (TOML) < the user's module < environment.

A wrong value, an unknown key or an unreadable file is one ConfigError line that says where and what is
allowed.

The user's module is a Python file that the administrator names (RP_SERVER_USER_CONFIG_MODULE,
RP_CLIENT_USER_CONFIG_MODULE). Every process imports it, the pipe daemon too; it is the only code of the
user's that the daemon ever runs. Handler classes are named in it, as texts, and imported in handler workers
alone: keep it free of anything but constants.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, NamedTuple

from restpipe.errors import ConfigError
from restpipe.host import loader
from restpipe.host.options import (
    GIB,
    KIB,
    MIB,
    PARTS,
    Address,
    Handlers,
    Log,
    Option,
    Pipe,
    Role,
    Sockets,
    State,
    Statsd,
    Tls,
    Web,
    join_address,
    options,
    parse_address,
)

__all__ = [
    "Address",
    "Config",
    "Handlers",
    "Log",
    "Pipe",
    "Role",
    "Sockets",
    "State",
    "Statsd",
    "Tls",
    "Web",
    "join_address",
    "load",
    "parse_address",
]

DEFAULT = "default"
"""The source of a value that nobody has set."""

_TEXT_OF_BOOL = {"1": True, "true": True, "yes": True, "on": True, "": False} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
_SIZE = re.compile(r"([0-9]+) ?(|KiB|MiB|GiB)", re.IGNORECASE)
_UNITS = {"": 1, "kib": KIB, "mib": MIB, "gib": GIB}


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that is configured for one role on this machine."""

    role: Role
    pipe: Pipe
    tls: Tls
    sockets: Sockets
    web: Web
    handlers: Handlers
    statsd: Statsd
    log: Log
    state: State
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    """Where each value came from, by key (`pipe.port`)."""


class Given(NamedTuple):
    """A value that somebody set, already of the option's type."""

    value: Any
    source: str


def load(role: Role, environ: Mapping[str, str] = os.environ, file: Path | None = None) -> Config:
    """Read all of it. Raises ConfigError, one line, on the first thing that is wrong."""
    in_environ = _from_environ(role, environ)
    given = _from_file(role, environ, file)
    given |= _from_module(role, environ, (in_environ | given).get("handlers.path"))
    given |= in_environ
    return _build(role, environ, given)


def _build(role: Role, environ: Mapping[str, str], given: dict[str, Given]) -> Config:
    values: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    sources: dict[str, str] = {}
    for option in options(role):
        value, source = given.get(option.key) or _default(option, role, environ)
        values[option.part][option.name] = value
        sources[option.key] = source
    _check_together(values, sources)
    parts = {part: declared(**values[part]) for part, declared in PARTS.items()}
    if role is Role.CLIENT and sources["pipe.servers"] == DEFAULT:
        sources["pipe.servers"] = "pipe.target_hostname, pipe.target_port"
    return Config(role=role, **parts, sources=MappingProxyType(sources))


def _default(option: Option, role: Role, environ: Mapping[str, str]) -> Given:
    if option.key == "sockets.directory":
        return Given(_runtime_directory(role, environ), DEFAULT)
    return Given(option.default(role), DEFAULT)


def _runtime_directory(role: Role, environ: Mapping[str, str]) -> Path:
    system = Path(f"/run/restpipe-{role}")
    if os.geteuid() == 0:
        return system
    if of_user := environ.get("XDG_RUNTIME_DIR"):
        return Path(of_user) / system.name
    # A service under an account of its own has no XDG_RUNTIME_DIR; systemd has made the folder for it.
    if system.is_dir():
        return system
    # Never /tmp: whoever makes the folder there first would own the sockets.
    raise ConfigError(
        "sockets.directory: there is no default here, as XDG_RUNTIME_DIR is not set: name a folder that only "
        "you can write to (RP_RUNTIME_DIR)"
    )


# --- the three places ------------------------------------------------------------------------------------


def _from_file(role: Role, environ: Mapping[str, str], file: Path | None) -> dict[str, Given]:
    named = file or (Path(environ["RP_CONFIG_FILE"]) if environ.get("RP_CONFIG_FILE") else None)
    path = named or Path(f"/etc/restpipe/{role}.toml")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named:
            raise ConfigError(f"{path}: there is no such file") from None
        return {}
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigError(f"{path}: not a TOML file: {_one_line(exc)}") from exc
    return dict(_of_tables(role, tables, path))


def _of_tables(role: Role, tables: dict[str, Any], path: Path) -> Iterator[tuple[str, Given]]:
    known = {option.key: option for option in options(role)}
    for part, table in tables.items():
        if part not in PARTS:
            raise ConfigError(f"{path}: {part}: unknown; tables are {', '.join(PARTS)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {part}: must be a table, [{part}]")
        for name, value in table.items():
            option = known.get(f"{part}.{name}")
            if option is None:
                raise ConfigError(f"{path}: {part}.{name}: {_unknown(role, part, name)}")
            source = str(path)
            yield option.key, Given(_coerce(option, value, source, path.parent), source)


def _unknown(role: Role, part: str, name: str) -> str:
    if any(option.key == f"{part}.{name}" for option in options()):
        return f"a {role} has no such option"
    return f"unknown; [{part}] has {', '.join(o.name for o in options(role) if o.part == part)}"


def _from_module(role: Role, environ: Mapping[str, str], path: Given | None) -> dict[str, Given]:
    variable = f"RP_{role.upper()}_USER_CONFIG_MODULE"
    name = environ.get(variable)
    if not name:
        return {}
    folders = [Path.cwd(), *([path.value] if path else [])]
    try:
        with loader.first_on_path(*folders):
            module = loader.import_module(name)
    except ConfigError as exc:
        raise ConfigError(f"{variable}: {exc}") from exc
    given = {}
    for option in options(role):
        constant = next((c for c in option.constants if hasattr(module, c)), None)
        if constant:
            source = f"module {name}, {constant}"
            value = _coerce(option, getattr(module, constant), source, Path.cwd())
            given[option.key] = Given(value, source)
    return given


def _from_environ(role: Role, environ: Mapping[str, str]) -> dict[str, Given]:
    given = {}
    for option in options(role):
        variable = next((v for v in option.variables(role) if _is_set(option, environ.get(v))), None)
        if variable:
            source = f"environment {variable}"
            value = _coerce(option, environ[variable], source, Path.cwd())
            given[option.key] = Given(value, source)
    return given


def _is_set(option: Option, text: str | None) -> bool:
    """An empty variable is as good as none, but where emptiness says something."""
    return bool(text) or (text is not None and option.spec.empty is not None)


# --- one value -------------------------------------------------------------------------------------------


def _coerce(option: Option, value: object, source: str, folder: Path) -> Any:
    try:
        return _value_of(option, value, folder)
    except (ValueError, TypeError, LookupError, OverflowError):
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
        raise ConfigError(f"{source}: {option.key} must be {allowed(option)}, not {shown}") from None


def _value_of(option: Option, value: object, folder: Path) -> Any:
    if value == "" and option.spec.empty is not None:
        return option.spec.empty
    if option.kind is tuple:
        return _texts(option, value)
    if option.kind is Path:
        return _path(option, value, folder)
    if option.kind is bool:
        return _TEXT_OF_BOOL[value.lower()] if isinstance(value, str) else _typed(value, bool)
    if option.kind is str:
        return _text(option, value)
    return _bounded(option, value)


def _typed(value: object, kind: type | UnionType) -> Any:
    # bool is an int for Python, but `port = true` is a mistake.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
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


# --- values that must fit each other ---------------------------------------------------------------------


def _check_together(values: dict[str, dict[str, Any]], sources: dict[str, str]) -> None:
    statsd, web, pipe = values["statsd"], values["web"], values["pipe"]
    if bool(statsd["host"]) != bool(statsd["port"]):
        empty = "statsd.port" if statsd["host"] else "statsd.host"
        raise ConfigError(
            f"{sources[empty]}: {empty} is empty: statsd.host and statsd.port must be both set, "
            "or both empty to turn statsd off"
        )
    if web["wait_s"] > web["max_wait_s"]:
        raise ConfigError(_too_large("web.wait_s", "web.max_wait_s", sources))
    if pipe.get("reconnect_min_s", 0) > pipe.get("reconnect_max_s", 0):
        raise ConfigError(_too_large("pipe.reconnect_min_s", "pipe.reconnect_max_s", sources))


def _too_large(key: str, limit: str, sources: dict[str, str]) -> str:
    return f"{sources[key]}: {key} must be at most {limit} ({sources[limit]})"


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())
