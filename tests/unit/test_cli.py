"""The command line: what each command starts, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

import restpipe
from restpipe.cli import cli
from restpipe.errors import ConfigError, NotConnected
from restpipe.host import logs
from restpipe.host.config import Config, Role
from restpipe.identity import running
from tests.support.certificates import authority, leaf


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "given.toml").write_text("[pipe]\nport = 5\n")
    for name in [name for name in os.environ if name.startswith("RP_") or name in ("DEBUG", "BIND_PORT")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RP_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("RP_CONFIG_FILE", str(tmp_path / "given.toml"))
    # An identity that is there: a server without one would make its own.
    for name in ("key.pem", "certificate.pem", "ca.pem"):
        (tmp_path / name).touch()
    monkeypatch.setenv("RP_SERVER_CERT_PATH", str(tmp_path))
    monkeypatch.setenv("RP_CLIENT_CERT_PATH", str(tmp_path))


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


class Started:
    """Stands in for the module of a process and keeps what its `main` was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.options: dict[str, object] = {}
        self.failure: Exception | None = None
        stand_in = ModuleType(module)
        stand_in.main = self._main  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module, stand_in)
        monkeypatch.setattr(logs, "configure", lambda log, *, process: self.calls.append((process,)))

    def _main(self, *given: object, **options: object) -> int:
        self.calls.append(given)
        self.options = options
        if self.failure:
            raise self.failure
        return 5


PROCESSES = (
    ("pipe", "restpipe.daemon.service"),
    ("web", "restpipe.web.server"),
    ("handlers", "restpipe.handler.worker"),
)


@pytest.mark.parametrize(("command", "module"), PROCESSES)
def test_each_process(monkeypatch: pytest.MonkeyPatch, command: str, module: str) -> None:
    started = Started(monkeypatch, module)
    assert invoke(command, "server").exit_code == 5
    (process,), (config,) = started.calls
    assert process == command
    assert isinstance(config, Config)
    assert (config.role, config.pipe.port) == (Role.SERVER, 5)


@pytest.mark.parametrize(
    ("manager", "parent", "in_place"), [(True, False, False), (True, True, True), (False, False, True)]
)
def test_only_a_service_manager_follows_a_worker_to_another_process(
    monkeypatch: pytest.MonkeyPatch, manager: bool, parent: bool, in_place: bool
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if manager:
        monkeypatch.setenv("NOTIFY_SOCKET", "@nobody")
    monkeypatch.setattr("restpipe.cli.die_with", lambda parent: None)
    started = Started(monkeypatch, "restpipe.handler.worker")
    assert invoke("handlers", "server", *(["--parent", "1"] if parent else [])).exit_code == 5
    assert started.options == {"in_place": in_place}


def test_run_passes_its_file_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = Started(monkeypatch, "restpipe.run")
    (tmp_path / "other.toml").write_text("[web]\nworkers = 3")
    assert invoke("run", "client", "--config", str(tmp_path / "other.toml")).exit_code == 5
    monkeypatch.setenv("RP_CONFIG_FILE", str(tmp_path / "other.toml"))  # a child inherits this by itself
    assert invoke("run", "client").exit_code == 5
    _, (config, passthrough), _, (_, without) = started.calls
    assert isinstance(config, Config)
    assert (config.role, config.web.workers) == (Role.CLIENT, 3)
    assert passthrough == ("--config", str(tmp_path / "other.toml"))
    assert without == ()


@pytest.mark.parametrize(("failure", "status"), [(ConfigError("no key"), 78), (NotConnected("no link"), 1)])
def test_errors_on_purpose_are_one_line(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int
) -> None:
    Started(monkeypatch, "restpipe.web.server").failure = failure
    result = invoke("web", "server")
    assert result.exit_code == status
    assert result.output == f"restpipe: {failure}\n"


def test_wrong_configuration_is_one_line_and_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIND_PORT", "http")
    result = invoke("config", "server")
    assert result.exit_code == os.EX_CONFIG
    assert result.output.startswith("restpipe: environment BIND_PORT: pipe.port must be")
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [("pipe",), ("pipe", "both"), ("config",), ("nothing",), ("web", "server", "-x")]
)
def test_a_command_line_that_cannot_be_understood(arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_config_shows_value_and_source(tmp_path: Path) -> None:
    lines = [" ".join(line.split()) for line in invoke("config", "server").output.splitlines()]
    assert f"port = 5 # {tmp_path / 'given.toml'}" in lines
    shown = json.loads(invoke("config", "server", "--json").output)
    assert shown["pipe.port"] == {"value": 5, "source": str(tmp_path / "given.toml")}


def test_the_table_needs_no_role_and_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_CONFIG_FILE", "/none")
    both, one = invoke("config", "--markdown"), invoke("config", "client", "--markdown")
    assert (both.exit_code, one.exit_code) == (0, 0)
    assert "`pipe.port` (server only)" in both.output
    assert "pipe.port" not in one.output


def test_version() -> None:
    kind = "compiled" if restpipe.COMPILED else "pure"
    assert invoke("--version").output == f"restpipe ({kind}), version {restpipe.__version__}\n"


def test_the_command_line_itself_carries_no_code_of_a_process() -> None:
    code = "import restpipe.cli, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    imported = set(done.stdout.split())
    heavy = {"falcon", "gunicorn", "uvloop", "cryptography", "google", "asyncio", "statsd"}
    rooms = {"restpipe.daemon", "restpipe.web", "restpipe.handler", "restpipe.transport", "restpipe.protocol"}
    assert imported & (heavy | rooms) == set()
    assert "restpipe.cli" in imported


def test_module_and_parent_option(tmp_path: Path) -> None:
    """`python -m restpipe` works, and a child whose parent is gone does not even start."""
    command = [sys.executable, "-m", "restpipe", "pipe", "server", "--config", str(tmp_path / "none")]
    gone = subprocess.run([*command, "--parent", "1"], capture_output=True, check=False)
    assert (gone.returncode, gone.stderr) == (0, b"")
    alone = subprocess.run(command, capture_output=True, check=False)
    assert alone.returncode == os.EX_CONFIG
    assert alone.stderr.decode() == f"restpipe: {tmp_path / 'none'}: there is no such file\n"


def test_a_configuration_can_be_checked(tmp_path: Path) -> None:
    assert invoke("config", "server", "--check").output == ""
    (tmp_path / "given.toml").write_text("[pipe]\nprot = 5\n")
    refused = invoke("config", "server", "--check")
    assert refused.exit_code == os.EX_CONFIG
    assert "pipe.prot: unknown" in refused.output


def test_a_variable_without_effect_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Started(monkeypatch, "restpipe.daemon.service")
    monkeypatch.setenv("RP_PIPE_PROT", "5")
    assert invoke("pipe", "server").exit_code == 5
    assert [one.getMessage() for one in caplog.records] == [
        "no option has this environment variable: RP_PIPE_PROT (RP_PIPE_PORT?)"
    ]


def test_a_constant_without_effect_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    Started(monkeypatch, "restpipe.daemon.service")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings_for_cli.py").write_text("PIPE_PROT = 5")
    monkeypatch.setenv("RP_SERVER_USER_CONFIG_MODULE", "settings_for_cli")
    assert invoke("pipe", "server").exit_code == 5
    assert [one.getMessage() for one in caplog.records] == [
        "no option has this constant: PIPE_PROT (PIPE_PORT?)"
    ]
    del sys.modules["settings_for_cli"]


@pytest.mark.parametrize("options", [(), ("--json",), ("--check",)])
def test_config_tells_what_has_no_effect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = invoke("config", "server", *options)
    (tmp_path / "settings_to_check.py").write_text("PIPE_PROT = 5")
    monkeypatch.setenv("RP_SERVER_USER_CONFIG_MODULE", "settings_to_check")
    monkeypatch.setenv("RP_PIPE_PROT", "5")
    # Apart, so that what is for machines stays so.
    done = subprocess.run(
        [sys.executable, "-m", "restpipe", "config", "server", *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, before.output)
    assert done.stderr.splitlines() == [
        "restpipe: no option has this environment variable: RP_PIPE_PROT (RP_PIPE_PORT?)",
        "restpipe: no option has this constant: PIPE_PROT (PIPE_PORT?)",
    ]


def test_the_variable_of_an_example_is_no_mistake(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Started(monkeypatch, "restpipe.daemon.service")
    monkeypatch.setenv("RP_FILES_ROOT", "/srv")
    assert invoke("pipe", "server").exit_code == 5
    assert caplog.records == []


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("client", "The client that runs here (process 7) takes it up now.\n"),
        ("other", "The client that runs here (process 7) has its identity in {other}, not there.\n"),
        ("", ""),
    ],
)
def test_a_daemon_takes_up_only_what_is_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str, told: str
) -> None:
    ca = authority("CA")
    files = leaf("web1", ca).write(tmp_path / "from", ca)
    monkeypatch.setenv("RP_CLIENT_CERT_PATH", str(tmp_path / "client"))
    monkeypatch.delenv("RP_CONFIG_FILE")
    monkeypatch.setattr(running, "reload", lambda events: 7)
    monkeypatch.setattr(running, "folder_of", lambda pid, role: tmp_path / folder if folder else None)
    done = invoke(
        "identity", "install", *(str(files / f"{name}.pem") for name in ("key", "certificate", "ca"))
    )
    assert done.exit_code == 0, done.output
    first, _, rest = done.output.partition("\n")
    assert first.startswith("Installed client web1 in ")
    assert rest == told.format(other=tmp_path / "other")
