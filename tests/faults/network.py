"""Two hosts with a cable between them: network namespaces, and what can happen to the cable."""

from __future__ import annotations

import functools
import itertools
import os
import shlex
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

SERVER_ADDRESS = "192.0.2.1"
CLIENT_ADDRESS = "192.0.2.2"
OTHER_ADDRESS = "192.0.2.3"
OTHER_SERVER_ADDRESS = "192.0.2.101"
SERVER_V6_ADDRESS = "2001:db8::1"
CLIENT_V6_ADDRESS = "2001:db8::2"

_numbers = itertools.count()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@functools.cache
def unavailable() -> str:
    """Why there can be no namespaces here; empty when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Network() as network:
            network.drop()
    except OSError as error:
        return f"no network namespaces with nftables here: {error}"
    return ""


class Network:
    """A server's and a client's namespace. Their processes are started by `prefix`."""

    def __init__(self) -> None:
        mark = f"rp{os.getpid()}x{next(_numbers)}"
        self.server, self.client = f"{mark}s", f"{mark}c"

    def __enter__(self) -> Self:
        try:
            for name in (self.server, self.client):
                _run("ip", "netns", "add", name)
                self._in(name, "ip", "link", "set", "lo", "up")
            _run(
                *("ip", "-netns", self.server, "link", "add", "pipe", "type", "veth"),
                *("peer", "name", "pipe", "netns", self.client),
            )
            for name, address, v6 in (
                (self.server, SERVER_ADDRESS, SERVER_V6_ADDRESS),
                (self.client, CLIENT_ADDRESS, CLIENT_V6_ADDRESS),
            ):
                self._in(name, "ip", "address", "add", f"{address}/24", "dev", "pipe")
                # It need not ask whether somebody else has that address already.
                self._in(name, "ip", "address", "add", f"{v6}/64", "dev", "pipe", "nodad")
                self._in(name, "ip", "link", "set", "pipe", "up")
        except OSError:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for name in (self.server, self.client):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def prefix(self, role: str, hosts: Path | None = None) -> list[str]:
        """What to put before a command to run it on that host, whose /etc/hosts can be a file of the test."""
        name = self.server if role == "server" else self.client
        enter = ["nsenter", f"--net=/run/netns/{name}"]
        if hosts is None:
            return enter
        mount = f'mount --bind {shlex.quote(str(hosts))} /etc/hosts && exec "$@"'
        return [*enter, "unshare", "--mount", "sh", "-c", mount, "sh"]

    # What happens to the cable.

    def drop(self, *, from_client: bool = True, from_server: bool = True) -> None:
        """Packets vanish without a word, in one direction or both."""
        self._rules(
            *["ip saddr 192.0.2.2-192.0.2.9 drop"] * from_client, *["ip saddr 192.0.2.1 drop"] * from_server
        )

    def drop_family(self, family: str) -> None:
        """Packets of one family vanish: "ip" or "ip6"."""
        self._rules("drop", family=family)

    def reject(self) -> None:
        """A firewall resets all connections, and those to come."""
        # Not on the way out, or the resets themselves would be rejected.
        self._rules("ip protocol tcp reject with tcp reset", hooks=("input",))

    def unplug(self) -> None:
        """The client's host is gone without a word."""
        self._in(self.client, "ip", "link", "set", "pipe", "down")

    def heal(self) -> None:
        self._in(self.client, "ip", "link", "set", "pipe", "up")
        self._in(self.server, "nft", "flush", "ruleset")

    def change_address(self) -> None:
        """The client wakes up in another network: its old address is not its own any more."""
        for verb, address in (("del", CLIENT_ADDRESS), ("add", OTHER_ADDRESS)):
            self._in(self.client, "ip", "address", verb, f"{address}/24", "dev", "pipe")

    def move_server(self) -> None:
        """The server's old address is not its own any more."""
        for verb, address in (("del", SERVER_ADDRESS), ("add", OTHER_SERVER_ADDRESS)):
            self._in(self.server, "ip", "address", verb, f"{address}/24", "dev", "pipe")

    def _rules(self, *rules: str, hooks: tuple[str, ...] = ("input", "output"), family: str = "ip") -> None:
        table = [f"add table {family} cable"]
        for hook in hooks:
            table.append(f"add chain {family} cable {hook} {{ type filter hook {hook} priority 0; }}")
            table += [f"add rule {family} cable {hook} {rule}" for rule in rules]
        self._in(self.server, "nft", "; ".join(table))

    def _in(self, name: str, *command: str) -> None:
        _run("ip", "netns", "exec", name, *command)
