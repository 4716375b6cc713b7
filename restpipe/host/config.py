"""Configuration in force: defaults < file (TOML) < the user's module < environment.

The address that a client dials has one place more, between defaults and file: what came with its identity.

A wrong value, an unknown key or an unreadable file is one ConfigError line that says where and what is
allowed.

The user's module is a Python file that the administrator names (RP_SERVER_USER_CONFIG_MODULE,
RP_CLIENT_USER_CONFIG_MODULE). Every process imports it, the pipe daemon too; it is the only code of the
user's that the daemon ever runs. Handler classes are named in it, as texts, and imported in handler workers
alone: keep it free of anything but constants.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from restpipe.errors import ConfigError
from restpipe.files import read_file
from restpipe.host import loader
from restpipe.host.options import (
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
from restpipe.host.place import leave_deleted_folder
from restpipe.host.values import coerce

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
    "renewed",
    "without_effect",
]

MAX_FILE = 1 << 20
"""No configuration is larger (bytes)."""
DEFAULT = "default"
"""The source of a value that nobody has set."""


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
    file: Path | None = dataclasses.field(default=None, compare=False, repr=False)
    """The file that was named to `load`."""
    ignored: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)
    """Constants of the user's module that set nothing, each with what was meant, if that can be told."""


class Given(NamedTuple):
    """A value that somebody set, already of the option's type."""

    value: Any
    source: str


def load(role: Role, environ: Mapping[str, str] = os.environ, file: Path | None = None) -> Config:
    """Read all of it. Raises ConfigError, one line, on the first thing that is wrong."""
    leave_deleted_folder()
    environ = {name: _as_meant(text) for name, text in environ.items()}
    in_environ = _from_environ(role, environ)
    given = _from_file(role, environ, file)
    module = _import_users(role, environ, (in_environ | given).get("handlers.path"))
    given |= _from_module(role, module) if module else {}
    given |= in_environ
    given |= _from_identity(role, given)
    ignored = _ignored_constants(module) if module else ()
    return dataclasses.replace(_build(role, environ, given), file=file, ignored=ignored)


def renewed(config: Config, environ: Mapping[str, str] = os.environ) -> tuple[Config, list[str]]:
    """All of it, read anew while a process runs. ConfigError, one line, on the first thing that is wrong.

    Options that need a restart stay as they are in `config`; the list has the keys of those that differ.
    """
    fresh = load(config.role, environ, config.file)
    kept: list[str] = []
    for option in options(config.role):
        before, now = getattr(config, option.part), getattr(fresh, option.part)
        value = getattr(before, option.name)
        if option.spec.restart and value != getattr(now, option.name):
            kept.append(option.key)
            part: Any = dataclasses.replace(now, **{option.name: value})
            fresh = dataclasses.replace(fresh, **{option.part: part})
    return fresh, kept


_OTHER_VARIABLES = {
    "RP_CONFIG_FILE",
    "RP_SERVER_USER_CONFIG_MODULE",
    "RP_CLIENT_USER_CONFIG_MODULE",
    "RP_FILES_ROOT",  # of restpipe.handler.examples.files
}


def without_effect(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Variables that look like ours and are not, each with what was meant, if that can be told."""
    # Of both roles: they may run in one environment.
    known = _OTHER_VARIABLES | {name for o in options() for role in Role for name in o.variables(role)}
    unknown = [name for name in sorted(environ) if name not in known and _looks_like_ours(name, known)]
    links = {name for name, text in environ.items() if _is_service_link(name, text)}
    found = [
        f"{name}{_meant(name, known)}"
        for name in unknown
        if name not in links and not _SERVICE_VARIABLE.fullmatch(name)
    ]
    return found + [f"{name} (a service link of Kubernetes)" for name in sorted(known & links)]


_PREFIX = re.compile(r"(RESTPIPE|RPIPE|RP)[_.-]+", re.IGNORECASE)
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://\S+:[0-9]+")
"""What Kubernetes sets for a service that is called like an option: RP_PIPE_PORT of `rp-pipe`."""
_LINK_VARIABLE = re.compile(r"\w+_PORT(_[0-9]+_(TCP|UDP|SCTP))?")
"""The only names that such a value has. With any other it is a mistake."""
_SERVICE_VARIABLE = re.compile(r"RP_\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)")
"""And beside it."""


def _is_service_link(name: str, text: str) -> bool:
    return _SERVICE_LINK.fullmatch(text) is not None and _LINK_VARIABLE.fullmatch(name) is not None


def _looks_like_ours(name: str, known: set[str]) -> bool:
    """Another prefix or spelling may be anybody's, unless what follows is an option's."""
    return name.startswith("RP_") or (_PREFIX.match(name) is not None and _spelt(name) in known)


def _spelt(name: str) -> str:
    """As it would have to be."""
    return re.sub(r"[.-]", "_", _PREFIX.sub("RP_", name, count=1)).upper()


def _meant(name: str, known: set[str]) -> str:
    spelt = _spelt(name)
    close = [spelt] if spelt in known else difflib.get_close_matches(spelt, sorted(known), n=1, cutoff=0.8)
    return f" ({close[0]}?)" if close else ""


def _as_meant(text: str) -> str:
    """Without what files of variables leave around a value: line ends of Windows, spaces, quotes."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text


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
        # Some editors begin a file with a byte order mark.
        tables = tomllib.loads(read_file(path, MAX_FILE).decode("utf-8-sig"))
    except FileNotFoundError:
        if named:
            raise ConfigError(f"{path}: there is no such file") from None
        return {}
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not in UTF-8, as TOML must be: save it so") from exc
    except RecursionError:
        raise ConfigError(f"{path}: not a TOML file that can be read: it is nested too deep") from None
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
            yield option.key, Given(coerce(option, value, source, path.parent), source)


def _unknown(role: Role, part: str, name: str) -> str:
    if any(option.key == f"{part}.{name}" for option in options()):
        return f"a {role} has no such option"
    return f"unknown; [{part}] has {', '.join(o.name for o in options(role) if o.part == part)}"


def _import_users(role: Role, environ: Mapping[str, str], path: Given | None) -> ModuleType | None:
    variable = f"RP_{role.upper()}_USER_CONFIG_MODULE"
    name = environ.get(variable)
    if not name:
        return None
    folders = [Path.cwd(), *([path.value] if path else [])]
    # It may have changed since it was read last.
    sys.modules.pop(name, None)
    try:
        with loader.first_on_path(*folders):
            return loader.import_module(name)
    except ConfigError as exc:
        raise ConfigError(f"{variable}: {exc}") from exc


def _from_module(role: Role, module: ModuleType) -> dict[str, Given]:
    given = {}
    for option in options(role):
        constant = next((c for c in option.constants if hasattr(module, c)), None)
        if constant:
            source = f"module {module.__name__}, {constant}"
            value = coerce(option, getattr(module, constant), source, Path.cwd())
            given[option.key] = Given(value, source)
    return given


def _ignored_constants(module: ModuleType) -> tuple[str, ...]:
    # Of both roles: they may share a module.
    known = {constant for option in options() for constant in option.constants}
    names = [name for name in vars(module) if name.isupper() and not name.startswith("_")]
    return tuple(f"{name}{_meant(name, known)}" for name in names if name not in known)


def _from_environ(role: Role, environ: Mapping[str, str]) -> dict[str, Given]:
    given = {}
    for option in options(role):
        variable = next((v for v in option.variables(role) if _is_set(option, v, environ.get(v))), None)
        if variable:
            source = f"environment {variable}"
            value = coerce(option, environ[variable], source, Path.cwd())
            given[option.key] = Given(value, source)
    return given


_ADDRESS_KEYS = ("pipe.servers", "pipe.target_hostname", "pipe.target_port")


def _from_identity(role: Role, given: Mapping[str, Given]) -> dict[str, Given]:
    """Where nobody says whom a client is to dial, what came with its identity does."""
    if role is not Role.CLIENT or any(key in given for key in _ADDRESS_KEYS):
        return {}
    known = {option.key: option for option in options(role)}
    directory = given.get("tls.directory") or _default(known["tls.directory"], role, {})
    path = Tls(directory=directory.value).servers
    try:
        lines = read_file(path, MAX_FILE).decode("utf-8-sig").split()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # Web and handler workers may not look into the folder of the keys, and need no address.
        return {}
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}: cannot be read: {_one_line(exc)}") from exc
    source = str(path)
    return {"pipe.servers": Given(coerce(known["pipe.servers"], lines, source, path.parent), source)}


def _is_set(option: Option, variable: str, text: str | None) -> bool:
    """An empty variable is as good as none, but where emptiness says something."""
    if text is not None and _is_service_link(variable, text):
        return False
    return bool(text) or (text is not None and option.spec.empty is not None)


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
