"""A CA and identities, made by the real `restpipe-ca`."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import clean_environment, python

_CA = "import sys; from restpipe_ca.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Identity:
    """A folder with key.pem, certificate.pem, ca.pem and crl.pem."""

    name: str
    directory: Path


class Authority:
    """A CA of its own, and one identity for each name asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Identity] = {}
        self.run("init")

    def server(self, name: str = "localhost") -> Identity:
        return self._identity(name, "--server", "127.0.0.1", "::1")

    def client(self, name: str = "client-1") -> Identity:
        return self._identity(name)

    def run(self, *arguments: str) -> str:
        """`restpipe-ca ARGUMENTS`; its output. AssertionError with what it said if it fails."""
        command = [*python(), "-c", _CA, "--directory", str(self._folder / "ca"), *arguments]
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"restpipe-ca {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def _identity(self, name: str, *more: str) -> Identity:
        if name not in self._made:
            directory = self._folder / "identities" / name
            directory.parent.mkdir(exist_ok=True)
            self.run("issue", name, *more, "--pem-directory", str(directory))
            self._made[name] = Identity(name, directory)
        return self._made[name]
