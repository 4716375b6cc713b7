"""`ssh -R` over loopback: a Unix socket here that stands for another one."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.bench.failures import BenchError, cause
from tests.bench.peers.scene import Scene, accepts, listens
from tests.support.nodes import free_port

ROOTS_FOLDER = Path("/run/sshd")
"""Where sshd, run by root, wants an empty folder."""
SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
StrictModes no
PidFile none
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowStreamLocalForwarding yes
LogLevel ERROR
"""
CLIENT = (
    "BatchMode=yes",
    "ControlPath=none",
    "ExitOnForwardFailure=yes",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "LogLevel=ERROR",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
)


class Tunnel(NamedTuple):
    socket: Path
    pids: Mapping[str, int]


def tunnel(scene: Scene, to: Path) -> Tunnel:
    """A connection to its socket goes through sshd and ssh to the socket `to`."""
    port, path = free_port(), scene.folder / "ssh.sock"
    _make_keys(scene.folder)
    (scene.folder / "sshd_config").write_text(SERVER.format(port=port, folder=scene.folder))
    _make_roots_folder(scene)
    # sshd starts itself again for each connection, by the path that it was called by.
    command = [program("sshd"), "-D", "-e", "-f", str(scene.folder / "sshd_config")]
    server = scene.start("sshd", *command, ready=lambda: accepts(port))
    client = scene.start("ssh", *_forward(scene.folder, port, path, to), ready=lambda: listens(path))
    return Tunnel(path, {"sshd": server.pid, "ssh": client.pid})


def _forward(folder: Path, port: int, path: Path, to: Path) -> list[str]:
    options = [word for option in CLIENT for word in ("-o", option)]
    user = pwd.getpwuid(os.getuid()).pw_name
    command = ["ssh", "-F", "none", "-N", "-p", str(port), "-i", str(folder / "user_key"), *options]
    return [*command, "-R", f"{path}:{to}", f"{user}@127.0.0.1"]


def program(name: str) -> str:
    """Its path, also where only root's PATH has it."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        raise BenchError(f"{name} is not installed")
    return path


def _make_keys(folder: Path) -> None:
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise BenchError(f"ssh-keygen: {cause(done.stderr)}")


def _make_roots_folder(scene: Scene) -> None:
    if os.geteuid() == 0 and not ROOTS_FOLDER.exists():
        ROOTS_FOLDER.mkdir(mode=0o755)
        scene.finally_do(ROOTS_FOLDER.rmdir)
