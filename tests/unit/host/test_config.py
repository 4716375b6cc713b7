"""Where values come from, which one wins, and what is said of wrong ones."""

from __future__ import annotations

import itertools
import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restpipe.errors import ConfigError
from restpipe.host import config_text
from restpipe.host.config import Address, Config, Role, Statsd, load, renewed, without_effect
from restpipe.host.options import PARTS, Option, Pipe, Tls, options

Load = Callable[..., Config]

_counter = itertools.count()


@pytest.fixture
def load_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads from texts: nothing of the machine that runs the tests gets in."""
    monkeypatch.chdir(tmp_path)
    modules = dict(sys.modules)

    def from_texts(
        role: Role = Role.SERVER, toml: str = "", module: str = "", environ: Mapping[str, str] = {}
    ) -> Config:
        file = tmp_path / "given.toml"
        file.write_text(toml)
        variables = {"RP_RUNTIME_DIR": "/run/of-test", **environ}
        if module:
            name = f"user_settings_{next(_counter)}"
            (tmp_path / f"{name}.py").write_text(module)
            variables[f"RP_{role.upper()}_USER_CONFIG_MODULE"] = name
        return load(role, variables, file)

    yield from_texts
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def value(config: Config, key: str) -> Any:
    part, name = key.split(".")
    return getattr(getattr(config, part), name)


# --- precedence ------------------------------------------------------------------------------------------

LAYERS: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({}, 1234, "default"),
    ({"toml": "[pipe]\nport = 1"}, 1, "given.toml"),
    ({"toml": "[pipe]\nport = 1", "module": "BIND_PORT = 2"}, 2, "BIND_PORT"),
    ({"toml": "[pipe]\nport = 1", "environ": {"BIND_PORT": "3"}}, 3, "environment BIND_PORT"),
    ({"module": "BIND_PORT = 2", "environ": {"BIND_PORT": "3"}}, 3, "environment BIND_PORT"),
    (
        {"environ": {"BIND_PORT": "3", "RP_SERVER_BIND_PORT": "4", "RP_PIPE_PORT": "5"}},
        4,
        "environment RP_SERVER_BIND_PORT",
    ),
    ({"environ": {"BIND_PORT": "", "RP_PIPE_PORT": "5"}}, 5, "environment RP_PIPE_PORT"),
    ({"module": "PIPE_PORT = 6"}, 6, "PIPE_PORT"),
)


@pytest.mark.parametrize(("given", "port", "source"), LAYERS)
def test_the_later_place_wins(load_from: Load, given: dict[str, Any], port: int, source: str) -> None:
    config = load_from(**given)
    assert config.pipe.port == port
    assert config.sources["pipe.port"].endswith(source)


ORIGINAL_VARIABLES = (
    (Role.SERVER, "RP_SERVER_BIND_INTERFACE", "::1", "pipe.bind", "::1"),
    (Role.SERVER, "BIND_IP", "127.0.0.1", "pipe.bind", "127.0.0.1"),
    (Role.SERVER, "RP_SERVER_BIND_PORT", "1", "pipe.port", 1),
    (Role.CLIENT, "RP_CLIENT_TARGET_HOSTNAME", "far", "pipe.servers", ("far:1234",)),
    (Role.CLIENT, "RP_CLIENT_TARGET_PORT", "7", "pipe.servers", ("localhost:7",)),
    (Role.CLIENT, "RP_CLIENT_HEARTBEAT_INTERVAL_S", "2", "pipe.heartbeat_interval_s", 2.0),
    (Role.SERVER, "RP_SERVER_CERT_PATH", "/c", "tls.certificate", Path("/c/certificate.pem")),
    (Role.CLIENT, "RP_CLIENT_CERT_PATH", "/c", "tls.ca", Path("/c/ca.pem")),
    (
        Role.CLIENT,
        "RP_CLIENT_KEY_FILENAME",
        "my.key",
        "tls.key",
        Path("/var/lib/restpipe/client/my.key"),
    ),
    (Role.SERVER, "RP_SERVER_CRT_FILENAME", "/else/my.crt", "tls.certificate", Path("/else/my.crt")),
    (Role.SERVER, "RP_CA_CRT_FILENAME", "/ca.crt", "tls.ca", Path("/ca.crt")),
    (Role.SERVER, "RP_EVENT_HANDLER_FQ_CLASS", "a.b.C", "handlers.event_class", "a.b.C"),
    (
        Role.CLIENT,
        "RP_CLIENT_CONNECTION_STATE_CHANGE_EVENT_CLASS",
        "a.B",
        "handlers.connection_state_class",
        "a.B",
    ),
    (Role.SERVER, "RP_STATSD_HOST", "far", "statsd.host", "far"),
    (Role.SERVER, "RP_STATSD_PORT", "9", "statsd.port", 9),
    (Role.SERVER, "DEBUG", "1", "log.debug", True),
    (Role.SERVER, "DEBUG", "0", "log.debug", False),
    (Role.SERVER, "DEBUG", "2", "log.debug", True),
    (Role.SERVER, "DEBUG", "00", "log.debug", False),
    (Role.SERVER, "RP_STATE_DIR", "/s", "state.directory", Path("/s")),
    (Role.SERVER, "RP_SOCKETS_MODE", "600", "sockets.mode", 0o600),
    (Role.SERVER, "RP_WEB_MAX_BODY_BYTES", "2 MiB", "web.max_body_bytes", 2 * 1024 * 1024),
    (Role.CLIENT, "RP_PIPE_SERVERS", "a:1, [::1]:2", "pipe.servers", ("a:1", "[::1]:2")),
)


@pytest.mark.parametrize(("role", "variable", "text", "key", "expected"), ORIGINAL_VARIABLES)
def test_variables(load_from: Load, role: Role, variable: str, text: str, key: str, expected: object) -> None:
    assert value(load_from(role, environ={variable: text}), key) == expected


ORIGINAL_CONSTANTS = (
    (Role.CLIENT, "TARGET_HOSTNAME = 'far'", "pipe.target_hostname", "far"),
    (Role.CLIENT, "TARGET_PORT = 7", "pipe.target_port", 7),
    (Role.CLIENT, "HEARTBEAT_INTERVAL_S = 9", "pipe.heartbeat_interval_s", 9.0),
    (Role.CLIENT, "KEY_FILEPATH = '/k'", "tls.key", Path("/k")),
    (Role.CLIENT, "CRT_FILEPATH = '/c'", "tls.certificate", Path("/c")),
    (Role.SERVER, "CA_CRT_FILEPATH = '/ca'", "tls.ca", Path("/ca")),
    (Role.SERVER, "BIND_IP = '::'", "pipe.bind", "::"),
    (Role.SERVER, "PIPE_BIND = '::'", "pipe.bind", "::"),
    (Role.SERVER, "DEBUG = 1", "log.debug", True),
    (Role.SERVER, "BIND_PORT = '8'", "pipe.port", 8),
    (Role.SERVER, "DEFAULT_CONNECTION_WAIT_TIMEOUT_S = 11", "web.wait_s", 11.0),
    (Role.SERVER, "EVENT_HANDLER_FQ_CLASS = 'a.B'", "handlers.event_class", "a.B"),
    (
        Role.SERVER,
        "CONNECTION_STATE_CHANGE_EVENT_CLASS = 'a.B'",
        "handlers.connection_state_class",
        "a.B",
    ),
    (Role.SERVER, "from pathlib import Path\nSTATE_DIRECTORY = Path('s')", "state.directory", None),
)


@pytest.mark.parametrize(("role", "module", "key", "expected"), ORIGINAL_CONSTANTS)
def test_constants_of_the_user_module(
    load_from: Load, role: Role, module: str, key: str, expected: object
) -> None:
    # What is relative starts from the current folder, which the fixture made.
    assert value(load_from(role, module=module), key) == (expected or Path.cwd() / "s")


def test_constants_that_set_nothing_are_named(load_from: Load) -> None:
    lines = (
        "from pathlib import Path",
        "BIND_PRT = 1",
        "BIND_PORT = 2",
        "TARGET_PORT = 3",
        "_ROOT = lower = 4",
    )
    assert load_from(module="\n".join((*lines, "X = 5"))).ignored == ("BIND_PRT (BIND_PORT?)", "X")
    assert load_from().ignored == ()


def test_the_user_module_may_stand_beside_the_handlers(load_from: Load, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "beside_handlers.py").write_text("BIND_PORT = 77")
    environ = {"RP_SERVER_USER_CONFIG_MODULE": "beside_handlers"}
    before = list(sys.path)
    config = load_from(toml='[handlers]\npath = "mine"', environ=environ)
    assert config.pipe.port == 77
    assert sys.path == before


def test_relative_paths_of_a_file_start_from_its_folder(load_from: Load, tmp_path: Path) -> None:
    config = load_from(toml='[tls]\ndirectory = "identity"\nkey = "a.key"')
    assert config.tls.key == tmp_path / "identity" / "a.key"
    assert config.tls.crl == tmp_path / "identity" / "crl.pem"


def test_named_files(tmp_path: Path) -> None:
    for name, port in (("a", 1), ("b", 2)):
        (tmp_path / name).write_text(f"[pipe]\nport = {port}")
    environ = {"RP_CONFIG_FILE": str(tmp_path / "a"), "RP_RUNTIME_DIR": "/r"}
    assert load(Role.SERVER, environ).pipe.port == 1
    assert load(Role.SERVER, environ, tmp_path / "b").pipe.port == 2


def test_addresses_of_the_servers() -> None:
    assert Pipe(target_hostname="::1", target_port=5).addresses == (Address("::1", 5),)
    assert Pipe(servers=("a:1", "[fe80::1%eth0]:2")).addresses == (
        Address("a", 1),
        Address("fe80::1%eth0", 2),
    )


def test_parts_made_by_hand_are_whole(tmp_path: Path) -> None:
    assert Tls(directory=tmp_path).certificate == tmp_path / "certificate.pem"
    assert Pipe().servers == ("localhost:1234",)
    assert not Statsd(host="", port=0).enabled


# --- the folder of the sockets ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (0, {}, "/run/restpipe-server"),
        (0, {"XDG_RUNTIME_DIR": "/run/user/0"}, "/run/restpipe-server"),
        (1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}, "/run/user/1000/restpipe-server"),
        (1000, {"XDG_RUNTIME_DIR": "/run/user/1000", "RP_RUNTIME_DIR": "/mine"}, "/mine"),
    ],
)
def test_folder_of_the_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, environ: dict[str, str], expected: str
) -> None:
    (tmp_path / "f").touch()
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    sockets = load(Role.SERVER, environ, tmp_path / "f").sockets
    assert sockets.directory == Path(expected)
    assert (sockets.web, sockets.events, sockets.handlers) == tuple(
        Path(expected) / name for name in ("web.sock", "events.sock", "handlers.sock")
    )


def test_folder_that_systemd_made_for_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 999)
    there = {Path("/run/restpipe-client")}
    monkeypatch.setattr(Path, "is_dir", lambda path: path in there)
    assert load(Role.CLIENT, {}, tmp_path / "f").sockets.directory == Path("/run/restpipe-client")
    there.clear()
    with pytest.raises(ConfigError, match="RP_RUNTIME_DIR"):
        load(Role.CLIENT, {}, tmp_path / "f")


# --- what is wrong ---------------------------------------------------------------------------------------

WRONG_FILES = (
    ("[pipe]\nport = 65536", "pipe.port must be a whole number from 0 to 65,535, not 65536"),
    ("[pipe]\nport = true", "pipe.port must be a whole number"),
    ("[pipe]\nport = 1.0", "pipe.port must be a whole number"),
    ("[pipe]\nheartbeat_interval_s = nan", "pipe.heartbeat_interval_s must be a number from 0.05 to 3,600"),
    ("[pipe]\nbind = ['a']", "pipe.bind must be an IP address or a host name"),
    ("[pipe]\nbind = ''", "pipe.bind must be"),
    ("[pipe]\nprt = 1", "pipe.prt: unknown; [pipe] has bind, port,"),
    ("[pipe]\nservers = ['a:1']", "pipe.servers: a server has no such option"),
    ("[pip]\nport = 1", "pip: unknown; tables are pipe, tls,"),
    ("port = 1", "port: unknown; tables are"),
    ("pipe = 1", "pipe: must be a table"),
    ("[pipe", "not a TOML file"),
    ("[tls]\nkey = ''", "tls.key must be a path"),
    ("[tls]\nkey = 'a\\u0000b'".replace("'", '"'), "tls.key must be a path"),
    ("[sockets]\nmode = 0o1777", "sockets.mode must be a whole number from 0o600 to 0o777"),
    ("[handlers]\nevent_class = 'Files'", "must be the dotted name of a class"),
    ("[statsd]\nhost = ''", "statsd.host is empty: statsd.host and statsd.port must be both set"),
    ("[statsd]\nport = ''", "statsd.port is empty"),
    ("[web]\nwait_s = 10\nmax_wait_s = 5", "web.wait_s must be at most web.max_wait_s"),
    ("[web]\nmax_body_bytes = '12 parsecs'", "web.max_body_bytes must be a whole number of 0 bytes or more"),
    ("[log]\ndebug = 'maybe'", "log.debug must be true or false"),
    ("[log]\ndebug = 0.5", "log.debug must be true or false"),
)


@pytest.mark.parametrize(("toml", "message"), WRONG_FILES)
def test_wrong_in_a_file(load_from: Load, tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_from(toml=toml)
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "given.toml"))
    assert message in said
    assert len(said.splitlines()) == 1


WRONG_ELSEWHERE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"environ": {"BIND_PORT": "http"}}, "environment BIND_PORT: pipe.port must be"),
    ({"environ": {"BIND_PORT": "9" * 5000}}, "environment BIND_PORT: pipe.port must be"),
    ({"environ": {"DEBUG": "maybe"}}, "environment DEBUG: log.debug must be"),
    ({"environ": {"RP_STATSD_HOST": ""}}, "environment RP_STATSD_HOST: statsd.host is empty"),
    (
        {"environ": {"RP_STATSD_PORT": "", "RP_STATSD_HOST": "x"}},
        "environment RP_STATSD_PORT: statsd.port is",
    ),
    ({"environ": {"RP_SERVER_BIND_INTERFACE": "a b"}}, "environment RP_SERVER_BIND_INTERFACE: pipe.bind"),
    ({"role": Role.CLIENT, "environ": {"RP_PIPE_SERVERS": "a"}}, "pipe.servers must be a list, each item"),
    ({"role": Role.CLIENT, "environ": {"RP_PIPE_SERVERS": "a:0"}}, "pipe.servers must be"),
    ({"role": Role.CLIENT, "toml": "[pipe]\nservers = []"}, "pipe.servers must be"),
    ({"role": Role.CLIENT, "toml": "[pipe]\nreconnect_min_s = 60"}, "at most pipe.reconnect_max_s (default)"),
    ({"module": "BIND_PORT = None"}, "BIND_PORT: pipe.port must be"),
    ({"module": "import nothing_such"}, "py:1: ModuleNotFoundError: No module named 'nothing_such'"),
    ({"module": "\n\nx ="}, "py:3: SyntaxError"),
    ({"module": "\nraise SystemExit('so')"}, "py:2: SystemExit: so"),
    ({"environ": {"RP_SERVER_USER_CONFIG_MODULE": "no.such"}}, "RP_SERVER_USER_CONFIG_MODULE: cannot import"),
)


@pytest.mark.parametrize(("given", "message"), WRONG_ELSEWHERE)
def test_wrong_elsewhere(load_from: Load, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_from(**given)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load(Role.SERVER, {"RP_RUNTIME_DIR": "/r"}, tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(Role.SERVER, {"RP_RUNTIME_DIR": "/r"}, tmp_path)
    for data in (b"# caf\xe9", "[web]\n".encode("utf-16")):
        (tmp_path / "other").write_bytes(data)
        with pytest.raises(ConfigError, match="not in UTF-8, as TOML must be: save it so"):
            load(Role.SERVER, {"RP_RUNTIME_DIR": "/r"}, tmp_path / "other")


def test_files_may_come_from_windows(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbf[web]\r\nworkers = 3\r\n")
    assert load(Role.SERVER, {"RP_RUNTIME_DIR": "/r"}, tmp_path / "file").web.workers == 3


@pytest.mark.parametrize("around", ["{}\r", " {} ", "{}\t", '"{}"', "'{}'\r"])
def test_what_stands_around_a_variables_value_is_no_part_of_it(around: str, tmp_path: Path) -> None:
    """Files of variables are written on Windows, and not each reader of them knows of quotes."""
    (tmp_path / "file").write_text("[web]\nworkers = 3\n")
    given = {
        "RP_RUNTIME_DIR": "/r",
        "RP_TLS_DIRECTORY": "/srv/id",
        "RP_CONFIG_FILE": str(tmp_path / "file"),
        "RP_PIPE_PORT": "4466",
        "RP_PIPE_BIND": "10.0.0.1",
        "DEBUG": "yes",
    }
    config = load(Role.SERVER, {name: around.format(text) for name, text in given.items()})
    assert (config.sockets.directory, config.tls.directory) == (Path("/r"), Path("/srv/id"))
    assert (config.web.workers, config.pipe.port, config.pipe.bind) == (3, 4466, "10.0.0.1")
    assert config.log.debug
    assert load(Role.SERVER, {"RP_RUNTIME_DIR": "/r", "RP_PIPE_PORT": around.format("")}).pipe.port == 1234


def test_service_links_of_kubernetes_set_nothing(tmp_path: Path) -> None:
    """Of services that are called `rp-pipe` and `rp-statsd`, say."""
    link = "tcp://10.96.0.1:1234"
    environ = {
        "RP_RUNTIME_DIR": "/r",
        "RP_PIPE_PORT": link,
        "RP_PIPE_PORT_1234_TCP": link,
        "RP_PIPE_PORT_1234_TCP_ADDR": "10.96.0.1",
        "RP_PIPE_PORT_1234_TCP_PROTO": "tcp",
        "RP_PIPE_SERVICE_HOST": "10.96.0.1",
        "RP_PIPE_SERVICE_PORT": "1234",
        "RP_PIPE_SERVICE_PORT_MAIN": "1234",
        "RP_STATSD_PORT": "udp://10.96.0.2:8125",
        "RP_SHOP_PORT": link,
    }
    # Not that of the host.
    file = tmp_path / "server.toml"
    file.touch()
    config = load(Role.SERVER, environ, file=file)
    assert (config.pipe.port, config.statsd.port) == (1234, 8125)
    assert config.sources["pipe.port"] == "default"
    assert without_effect(environ) == [
        "RP_PIPE_PORT (a service link of Kubernetes)",
        "RP_STATSD_PORT (a service link of Kubernetes)",
    ]
    # One that is set otherwise beside it holds.
    assert load(Role.SERVER, environ | {"BIND_PORT": "99"}).pipe.port == 99


@pytest.mark.parametrize("name", ["RP_PIPE_SERVERS", "RP_CLIENT_TARGET_HOSTNAME"])
def test_what_only_looks_like_a_service_link_is_a_mistake(name: str) -> None:
    environ = {"RP_RUNTIME_DIR": "/r", name: "tcp://pipe.example.org:4466"}
    with pytest.raises(ConfigError, match=f"environment {name}: pipe.*tcp://pipe.example.org:4466"):
        load(Role.CLIENT, environ)
    assert without_effect(environ) == []
    assert without_effect({"RP_SHOP": "tcp://10.96.0.1:1234"}) == ["RP_SHOP"]


def test_in_a_folder_that_is_deleted_all_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert load(Role.SERVER, {"RP_RUNTIME_DIR": "/r"}).pipe.port == 1234
    assert Path.cwd() == Path("/")
    assert f"the current folder, {folder}, has been deleted: going on in /" in caplog.text
    # Another has taken its place.
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    folder.mkdir()
    assert load(Role.SERVER, {"RP_RUNTIME_DIR": "run"}).sockets.directory == folder / "run"


# --- off, both empty -------------------------------------------------------------------------------------


def test_statsd_both_empty_is_off(load_from: Load) -> None:
    assert not load_from(environ={"RP_STATSD_HOST": "", "RP_STATSD_PORT": ""}).statsd.enabled
    assert not load_from(toml="[statsd]\nhost = ''\nport = ''").statsd.enabled
    assert load_from().statsd.enabled


# --- for any value ---------------------------------------------------------------------------------------

_names = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)
_ports = st.integers(1, 65535)
_texts = {
    "bind": _names,
    "target_hostname": _names,
    "server_name": _names | st.just(""),
    "host": _names,
    "event_class": st.from_regex(r"([a-z_]{1,8}\.){1,3}[A-Z][a-z0-9]{0,8}", fullmatch=True) | st.just(""),
}
_texts["connection_state_class"] = _texts["event_class"]
_path_parts = st.text(min_size=1).filter(lambda part: part not in (".", "..") and not set(part) & {"/", "\0"})


def fitting(option: Option) -> st.SearchStrategy[Any]:
    """Values that the option allows, as TOML has them."""
    low, high = option.spec.low, option.spec.high
    if option.kind is int:
        return st.integers(int(low or 0), int(high) if high else 2**62)
    if option.kind is float:
        return st.floats(low, high)
    if option.kind is bool:
        return st.booleans()
    if option.kind is tuple:
        return st.lists(st.builds("{}:{}".format, _names, _ports), min_size=1, max_size=5)
    if option.kind is Path:
        return _path_parts.map("/{}".format)
    return _texts[option.name]


def fitting_environment(role: Role) -> st.SearchStrategy[dict[str, str]]:
    def as_text(value: Any) -> str:
        return ",".join(value) if isinstance(value, list) else str(value)

    each = [st.tuples(st.just(o), fitting(o).map(as_text)) for o in options(role) if o.spec.unit != "octal"]
    chosen = st.lists(st.one_of(each), unique_by=lambda pair: pair[0].key)
    return chosen.map(lambda pairs: {o.variables(role)[0]: text for o, text in pairs})


@pytest.mark.parametrize("role", Role)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_shown_is_a_file_that_says_the_same(role: Role, tmp_path: Path, data: st.DataObject) -> None:
    environ = data.draw(fitting_environment(role))
    environ["RP_RUNTIME_DIR"] = "/run/of-test"
    (tmp_path / "empty").touch()
    try:
        config = load(role, environ, tmp_path / "empty")
    except ConfigError as exc:
        assert "must be at most" in str(exc)  # each fits, but not all together
        return
    shown = config_text.in_force(config)
    (tmp_path / "shown").write_text(shown)
    assert load(role, {}, tmp_path / "shown") == config
    for option in options(role):
        assert config.sources[option.key] in shown
    assert set(tomllib.loads(shown)) <= set(PARTS)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    option=st.sampled_from(list(options(Role.SERVER))),
    # What is white space or quotes alone sets nothing.
    text=st.text().filter(lambda text: "\0" not in text and text.strip().strip("\"'"))
    | st.integers().map(str),
)
def test_any_text_is_taken_or_refused_in_one_line(tmp_path: Path, option: Option, text: str) -> None:
    (tmp_path / "empty").touch()
    variable = option.variables(Role.SERVER)[0]
    try:
        config = load(Role.SERVER, {"RP_RUNTIME_DIR": "/r", variable: text}, tmp_path / "empty")
    except ConfigError as exc:
        assert variable in str(exc)
        assert option.key in str(exc)
        assert len(str(exc).splitlines()) == 1
    else:
        assert isinstance(value(config, option.key), option.kind)
        assert config.sources[option.key] == f"environment {variable}"


# --- read anew -------------------------------------------------------------------------------------------


def test_what_may_change_while_running_does_and_the_rest_is_named(tmp_path: Path) -> None:
    file, environ = tmp_path / "f.toml", {"RP_RUNTIME_DIR": "/run/of-test"}
    file.write_text("[pipe]\nport = 1\nmax_clients = 5\n")
    before = load(Role.SERVER, environ, file)
    assert renewed(before, environ) == (before, [])
    file.write_text("[pipe]\nport = 2\nmax_clients = 6\nbind = '::1'\n[state]\ndirectory = '/elsewhere'\n")
    after, kept = renewed(before, environ)
    assert kept == ["pipe.bind", "pipe.port", "state.directory"]
    assert (after.pipe.port, after.pipe.max_clients) == (1, 6)
    assert after.state == before.state
    # Named each time until they are as they were.
    assert renewed(after, environ)[1] == kept
    file.write_text("[pipe]\nport = 1\n")
    assert renewed(after, environ)[1] == []


@pytest.mark.parametrize("role", Role)
def test_every_option_is_either_taken_up_or_named(role: Role, tmp_path: Path) -> None:
    directory = str(tmp_path)
    before = load(role, {"RP_RUNTIME_DIR": directory}, Path(os.devnull))
    for option in options(role):
        text = another(option, before)
        environ = {"RP_RUNTIME_DIR": directory, option.variables(role)[0]: text}
        after, kept = renewed(before, environ)
        assert kept == ([option.key] if option.spec.restart else []), option.key
        changed = value(after, option.key) != value(before, option.key)
        assert changed is not option.spec.restart, option.key


def another(option: Option, config: Config) -> str:
    """A text that sets it to something else."""
    now = value(config, option.key)
    if option.kind is bool:
        return str(not now)
    if option.kind in (int, float):
        number = now / 2 if option.kind is float else now - 1 if now > 1 else now + 1
        return oct(number) if option.spec.unit == "octal" else str(number)
    if option.kind is tuple:
        return "elsewhere:5"
    return "else.Where" if "dotted" in option.spec.allowed else "elsewhere"


def test_the_users_module_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"user_settings_{next(_counter)}"
    environ = {"RP_RUNTIME_DIR": "/run/of-test", "RP_SERVER_USER_CONFIG_MODULE": name}
    (tmp_path / f"{name}.py").write_text("PIPE_MAX_CLIENTS = 5")
    before = load(Role.SERVER, environ, Path(os.devnull))
    (tmp_path / f"{name}.py").write_text("WEB_WORKERS = 3")
    after, _ = renewed(before, environ)
    del sys.modules[name]
    assert (after.pipe.max_clients, after.web.workers) == (10_000, 3)


def test_misspelt_variables_are_found() -> None:
    environ = {
        "RP_WEB_WROKERS": "2",
        "RP_QUITE_ANOTHER": "",
        "RP_PIPE_PORT": "1",
        "RP_CLIENT_TARGET_PORT": "1",
        "RP_CONFIG_FILE": "f",
        "HOME": "/",
        # Anybody's.
        "debug": "1",
        "RESTPIPE_COMPILE": "1",
        # Of another prefix or spelling.
        "RESTPIPE_PIPE_PORT": "1",
        "rp_web_workers": "1",
        "RP-TLS-DIRECTORY": "/",
        "RP_SERVER_PORT": "1",
    }
    assert without_effect(environ) == [
        "RESTPIPE_PIPE_PORT (RP_PIPE_PORT?)",
        "RP-TLS-DIRECTORY (RP_TLS_DIRECTORY?)",
        "RP_QUITE_ANOTHER",
        "RP_SERVER_PORT (RP_SERVER_BIND_PORT?)",
        "RP_WEB_WROKERS (RP_WEB_WORKERS?)",
        "rp_web_workers (RP_WEB_WORKERS?)",
    ]
