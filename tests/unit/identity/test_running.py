"""The daemon that runs is found by its socket, and nobody else is signalled."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from restpipe.host.config import Role
from restpipe.identity.running import folder_of, reload
from tests.support.conditions import TIMEOUT_S

DAEMON = textwrap.dedent(
    """
    import os, signal, socket, sys
    # Not print: the signal may come while "up" is being printed.
    signal.signal(signal.SIGHUP, lambda *_: os.write(1, b"reloaded\\n"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        print("up", flush=True)
        sys.stdin.read()
    """
)


@pytest.mark.parametrize("words", [("/usr/bin/restpipe", "pipe"), ("something", "else")])
def test_only_a_daemon_is_told(short_path: Path, words: tuple[str, str]) -> None:
    address = short_path / "events.sock"
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(address), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "up\n"
        told = reload(address)
        if words[1] == "pipe":
            assert told == process.pid
            assert process.stdout.readline() == "reloaded\n"
        else:
            assert told is None
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(TIMEOUT_S) == 0


def test_nobody_runs(short_path: Path) -> None:
    assert reload(short_path / "events.sock") is None
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(short_path / "events.sock"))
    assert reload(short_path / "events.sock") is None


@pytest.mark.parametrize(
    ("variables", "words", "inside", "found"),
    [
        ({"RP_TLS_DIRECTORY": "/srv/a"}, (), "elsewhere", "/srv/a"),
        ({"RP_CLIENT_CERT_PATH": "/srv/a"}, (), "here", "/srv/a"),
        ({"RP_SERVER_CERT_PATH": "/srv/a"}, (), "elsewhere", "/var/lib/restpipe/client"),
        ({}, ("--config", "FOLDER/client.toml"), "elsewhere", "/srv/file"),
        ({}, ("--config=FOLDER/client.toml",), "elsewhere", "/srv/file"),
        ({}, ("--config", "client.toml"), "here", "/srv/file"),
        # What cannot be known.
        ({}, ("--config", "client.toml"), "elsewhere", None),
        ({"RP_TLS_DIRECTORY": "a"}, (), "elsewhere", None),
        ({"RP_TLS_DIRECTORY": "/srv/a", "RP_CLIENT_USER_CONFIG_MODULE": "settings"}, (), "here", None),
        ({"RP_PIPE_PORT": "none"}, ("--config", "/none"), "here", None),
    ],
)
def test_whose_identity_a_daemon_has(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    words: tuple[str, ...],
    inside: str,
    found: str | None,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "client.toml").write_text('[tls]\ndirectory = "/srv/file"\n')
    monkeypatch.chdir(tmp_path)
    words = tuple(word.replace("FOLDER", str(tmp_path)) for word in words)
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", "pipe", "client", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path if inside == "here" else tmp_path / inside,
        env={"RP_RUNTIME_DIR": str(tmp_path)} | variables,
    ) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        assert folder_of(process.pid, Role.CLIENT) == (Path(found) if found else None)
        process.stdin.write(b"\n")
    assert folder_of(process.pid, Role.CLIENT) is None
