"""What a user types, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.system.machines import Machine

FOUR = (
    ("client", "/server/time", "time_from_server"),
    ("client", "/server/cat//hello%20/world", "result_from_server"),
    ("server", "/client/web1/time", "time_from_client"),
    ("server", "/client/web1/cat//hello%20/world", "result_from_client"),
)


def join(server: Machine, client: Machine, package: Path | None = None) -> None:
    """From two empty machines to a pipe. `package` is another one than the image's."""
    server.install(package or server.image.package)
    server.run("systemctl start restpipe-server")
    said = server.run("cd /root && restpipe-ca issue web1")
    command = said.strip().splitlines()[-1].strip()
    assert "restpipe identity install" in command, said
    client.install(package or client.image.package)
    shutil.copy(server.file("/root/web1.bundle"), client.file("/root/web1.bundle"))
    client.run(f"cd /root && {command}")
    client.run("systemctl start restpipe-client")


def ask(machine: Machine, role: str, target: str, user: str = "root") -> str:
    return machine.run(
        f"curl -sS --unix-socket /run/restpipe-{role}/web.sock http://localhost{target}", user=user
    )
