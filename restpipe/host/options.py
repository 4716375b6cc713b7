# ruff: noqa: RUF009 - option() only declares a field
"""Every option of RestPipe, declared once: type, default, bounds, unit, names, one line of help.

`restpipe.host.config` fills these dataclasses, `restpipe.host.config_text` prints them. Nothing else knows a
name or a default.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Role(enum.StrEnum):
    """What this machine is: the one that listens, or one that dials."""

    SERVER = "server"
    CLIENT = "client"


class PerRole(str):
    """A default in which `{role}` stands for the role."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is said about an option where it is declared."""

    help: str
    default: object
    unit: str = ""
    low: float | None = None
    high: float | None = None
    env: tuple[str, ...] = ()
    """Names of variables, `{ROLE}` standing for the role; RP_PART_KEY is always one more."""
    constants: tuple[str, ...] = ()
    """Names in the user module; PART_KEY is always one more."""
    role: Role | None = None
    """The only role that has this option."""
    empty: object = None
    """What an empty text means where it means something."""
    allowed: str = ""
    """What a text must look like, in words; with `pattern`."""
    pattern: str = ""
    base: str = ""
    """The option of the same part whose folder a relative path starts from."""
    restart: bool = False
    """A change takes effect at the next start; one of the others on SIGHUP too."""


def option(default: Any, text: str, **spec: Any) -> Any:
    """A dataclass field that carries its `Spec`."""
    metadata = {"spec": Spec(text + " Needs a restart." * spec.get("restart", False), default, **spec)}
    if isinstance(default, PerRole):
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Address(NamedTuple):
    host: str
    port: int


_ADDRESS = re.compile(r"(?:\[([\w.%]*:[\w.:%]*)\]|([^\s:\[\]/,]+)):([0-9]{1,5})")
_HOST = r"[^\s\[\]/,]+"
_URI = r"[A-Za-z][A-Za-z0-9+.-]*://[^\s,]+"
_DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)+"


def parse_address(text: str) -> Address:
    """`host:port` or `[v6]:port`; ValueError if it is neither."""
    found = _ADDRESS.fullmatch(text)
    if not found or not 1 <= int(found[3]) <= 65535:
        raise ValueError(text)
    return Address(found[1] or found[2], int(found[3]))


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_CLASS = {"allowed": "the dotted name of a class (package.module.Class)", "pattern": _DOTTED, "empty": ""}
_FILE = {"base": "directory"}


@dataclasses.dataclass(frozen=True)
class Pipe:
    """The connections between hosts."""

    bind: str = option(
        "0.0.0.0",  # noqa: S104 - a server is there to be reached; who may talk is decided by certificates
        "Interface that the server listens on.",
        env=("RP_SERVER_BIND_INTERFACE", "BIND_IP"),
        constants=("BIND_IP",),
        role=Role.SERVER,
        restart=True,
        allowed="an IP address or a host name",
        pattern=_HOST,
    )
    port: int = option(
        1234,
        "Port that the server listens on; 0 takes any free one.",
        env=("RP_SERVER_BIND_PORT", "BIND_PORT"),
        constants=("BIND_PORT",),
        role=Role.SERVER,
        restart=True,
        low=0,
        high=65535,
    )
    target_hostname: str = option(
        "localhost",
        "Host of the server.",
        env=("RP_CLIENT_TARGET_HOSTNAME",),
        constants=("TARGET_HOSTNAME",),
        role=Role.CLIENT,
        allowed="an IP address or a host name",
        pattern=_HOST,
    )
    target_port: int = option(
        1234,
        "Port of the server.",
        env=("RP_CLIENT_TARGET_PORT",),
        constants=("TARGET_PORT",),
        role=Role.CLIENT,
        low=1,
        high=65535,
    )
    servers: tuple[str, ...] = option(
        (),
        "Addresses to dial; if none is given, `target_hostname` and `target_port`.",
        role=Role.CLIENT,
        allowed="host:port or [IPv6 address]:port",
        pattern=_ADDRESS.pattern,
    )
    server_name: str = option(
        "",
        "Name that the server's certificate must have; empty: the host that is dialed.",
        role=Role.CLIENT,
        allowed="a host name, an address or a URI (spiffe://...)",
        pattern=rf"{_HOST}|{_URI}",
        empty="",
    )
    heartbeat_interval_s: float = option(
        5.0,
        "How often each side asks the other for a sign of life.",
        unit="s",
        low=0.05,
        high=3600,
        env=("RP_{ROLE}_HEARTBEAT_INTERVAL_S",),
        constants=("HEARTBEAT_INTERVAL_S",),
    )
    handshake_timeout_s: float = option(
        10.0, "How long TLS and the greeting may take.", unit="s", low=0.05, high=3600
    )
    reconnect_min_s: float = option(
        0.1, "First pause before dialing again.", unit="s", low=0.01, high=3600, role=Role.CLIENT
    )
    reconnect_max_s: float = option(
        5.0, "Longest pause before dialing again.", unit="s", low=0.01, high=86400, role=Role.CLIENT
    )
    session_life_s: float = option(
        300.0, "How long a session outlives its broken connection.", unit="s", low=0, high=86400
    )
    session_buffer_bytes: int = option(
        16 * MIB,
        "Sent but not yet acknowledged, for one peer; when full, sending pauses.",
        unit="bytes",
        low=256 * KIB,
    )
    max_streams: int = option(4096, "Events under way over one link.", low=1, high=2**24)
    backlog_bytes: int = option(
        64 * MIB,
        "Waiting to be sent to one peer; past it, new events are refused.",
        unit="bytes",
        low=256 * KIB,
    )
    max_waiting: int = option(1024, "Events that wait for one absent peer.", low=0)
    max_clients: int = option(10_000, "Clients connected at once.", low=1, role=Role.SERVER)
    drain_timeout_s: float = option(
        10.0, "How long events under way may take to finish on shutdown.", unit="s", low=0, high=3600
    )

    def __post_init__(self) -> None:
        if not self.servers:
            object.__setattr__(self, "servers", (join_address(self.target_hostname, self.target_port),))

    @property
    def addresses(self) -> tuple[Address, ...]:
        """`servers`, taken apart."""
        return tuple(map(parse_address, self.servers))


@dataclasses.dataclass(frozen=True)
class Tls:
    """The identity of this machine and whom it trusts. File names are relative to `directory`."""

    directory: Path = option(
        PerRole("/var/lib/restpipe/{role}"), "Folder of the files below.", env=("RP_{ROLE}_CERT_PATH",)
    )
    key: Path = option(
        Path("key.pem"),
        "Private key.",
        env=("RP_{ROLE}_KEY_FILENAME",),
        constants=("KEY_FILEPATH",),
        **_FILE,
    )
    certificate: Path = option(
        Path("certificate.pem"),
        "Certificate, with any intermediate ones.",
        env=("RP_{ROLE}_CRT_FILENAME",),
        constants=("CRT_FILEPATH",),
        **_FILE,
    )
    ca: Path = option(
        Path("ca.pem"),
        "Certificates of the authorities that the other side's certificate must come from.",
        env=("RP_CA_CRT_FILENAME",),
        constants=("CA_CRT_FILEPATH",),
        **_FILE,
    )
    crl: Path = option(Path("crl.pem"), "Revocation list; the file may be absent.", **_FILE)
    ca_directory: Path = option(
        Path("../ca"),
        "Folder of the CA, if it is on this host: its revocation list counts too.",
        env=("RP_CA_DIRECTORY",),
        role=Role.SERVER,
        **_FILE,
    )
    self_made: bool = option(
        True,
        "A server without an identity makes it at its start, and a CA where there is none; an identity that "
        "ends within 30 days is renewed.",
        role=Role.SERVER,
        restart=True,
    )

    def __post_init__(self) -> None:
        for name in ("key", "certificate", "ca", "crl"):
            object.__setattr__(self, name, self.directory / getattr(self, name))
        ca_directory = os.path.normpath(self.directory / self.ca_directory)
        object.__setattr__(self, "ca_directory", Path(ca_directory))

    @property
    def servers(self) -> Path:
        """Where a client's identity says which server it is for; see `restpipe.host.config`."""
        return self.directory / "servers"


@dataclasses.dataclass(frozen=True)
class Sockets:
    """The Unix sockets that applications and workers use."""

    directory: Path = option(
        PerRole(""),
        "Folder of the sockets; by default `/run/restpipe-ROLE` for root and for services, "
        "else `$XDG_RUNTIME_DIR/restpipe-ROLE`.",
        env=("RP_RUNTIME_DIR",),
        restart=True,
    )
    mode: int = option(
        0o660,
        "Permissions of the sockets; of those that systemd makes, `SocketMode` of their units decides.",
        unit="octal",
        low=0o600,
        high=0o777,
        restart=True,
    )

    @property
    def web(self) -> Path:
        """Where applications make their HTTP requests."""
        return self.directory / "web.sock"

    @property
    def events(self) -> Path:
        """Where web workers hand events to the daemon."""
        return self.directory / "events.sock"

    @property
    def handlers(self) -> Path:
        """Where handler workers take events from the daemon."""
        return self.directory / "handlers.sock"


@dataclasses.dataclass(frozen=True)
class Web:
    """The HTTP side."""

    workers: int = option(1, "Web worker processes.", low=1, high=256)
    wait_s: float = option(
        30.0,
        "Deadline of a request that does not ask for one (`Prefer: wait=N`).",
        unit="s",
        low=0.001,
        high=86400,
        constants=("DEFAULT_CONNECTION_WAIT_TIMEOUT_S",),
    )
    max_wait_s: float = option(
        3600.0, "Longest deadline that a request may ask for.", unit="s", low=0.001, high=7 * 86400
    )
    max_body_bytes: int = option(
        GIB, "Largest request body; a larger one is answered 413.", unit="bytes", low=0
    )
    keep_body_bytes: int = option(
        MIB,
        "Bodies up to this size are kept until the reply begins, to be sent again.",
        unit="bytes",
        low=0,
        high=GIB,
    )
    max_in_flight: int = option(
        2000,
        "Requests in flight in one web worker; past it, 503. One client may have half of them wait for it.",
        low=1,
    )


@dataclasses.dataclass(frozen=True)
class Handlers:
    """The workers that run event handlers."""

    event_class: str = option(
        "",
        "Class of the event handler; empty: the built-in example.",
        env=("RP_EVENT_HANDLER_FQ_CLASS",),
        constants=("EVENT_HANDLER_FQ_CLASS",),
        **_CLASS,
    )
    connection_state_class: str = option(
        "",
        "Class that is told when connections come and go; empty: none.",
        env=("RP_{ROLE}_CONNECTION_STATE_CHANGE_EVENT_CLASS",),
        constants=("CONNECTION_STATE_CHANGE_EVENT_CLASS",),
        **_CLASS,
    )
    path: Path | None = option(
        None, "Folder that handler classes are imported from; by default the current one."
    )
    workers: int = option(
        1, "Handler worker processes that `restpipe run` starts.", low=1, high=256, restart=True
    )
    threads: int = option(32, "Plain methods that run at once in one worker.", low=1, high=1024)
    concurrency: int = option(1024, "Async methods that run at once in one worker.", low=1, high=2**20)
    max_body_bytes: int = option(
        16 * MIB, "Largest body handed to a method whole; a larger one is answered 413.", unit="bytes", low=0
    )
    load_timeout_s: float = option(
        300.0,
        "How long new code may take to load on a reload; then the old goes on.",
        unit="s",
        low=0.05,
        high=86_400,
    )


@dataclasses.dataclass(frozen=True)
class Statsd:
    """Where metrics go. Host and port both empty: nowhere."""

    host: str = option(
        "localhost", "Host of statsd.", allowed="an IP address or a host name", pattern=_HOST, empty=""
    )
    port: int = option(8125, "UDP port of statsd.", low=1, high=65535, empty=0)

    @property
    def enabled(self) -> bool:
        return bool(self.host)


@dataclasses.dataclass(frozen=True)
class Log:
    """What is logged, to stderr."""

    debug: bool = option(False, "Show the mechanics.", env=("DEBUG",), constants=("DEBUG",))


@dataclasses.dataclass(frozen=True)
class State:
    """What the daemon remembers when it restarts."""

    directory: Path = option(
        PerRole("/var/lib/restpipe/{role}"),
        "Folder of the daemon's memory.",
        env=("RP_STATE_DIR",),
        restart=True,
    )


PARTS: dict[str, type] = {
    "pipe": Pipe,
    "tls": Tls,
    "sockets": Sockets,
    "web": Web,
    "handlers": Handlers,
    "statsd": Statsd,
    "log": Log,
    "state": State,
}
"""The tables of the file, in the order in which they are shown."""


class Option(NamedTuple):
    """One option and its place."""

    part: str
    name: str
    kind: Any
    """int, float, str, bool, Path or tuple (of texts)."""
    spec: Spec

    @property
    def key(self) -> str:
        return f"{self.part}.{self.name}"

    def variables(self, role: str) -> tuple[str, ...]:
        """Environment variables that set it, the first one that is set wins."""
        own = f"RP_{self.part}_{self.name}".upper()
        named = [name.replace("{ROLE}", role.upper()) for name in self.spec.env]
        return tuple(dict.fromkeys([*named, own]))

    @property
    def constants(self) -> tuple[str, ...]:
        """Names in the user module that set it, the first one that is there wins."""
        return (*self.spec.constants, f"{self.part}_{self.name}".upper())

    def default(self, role: str) -> Any:
        default = self.spec.default
        return Path(default.format(role=role)) if isinstance(default, PerRole) else default


def options(role: Role | None = None) -> Iterator[Option]:
    """All options, or those that `role` has."""
    for part, declared in PARTS.items():
        hints = typing.get_type_hints(declared)
        for field in dataclasses.fields(declared):
            spec: Spec = field.metadata["spec"]
            if role is None or spec.role in (None, role):
                yield Option(part, field.name, _kind(hints[field.name]), spec)


def _kind(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(arm for arm in typing.get_args(hint) if arm is not types.NoneType)
    return typing.get_origin(hint) or hint
