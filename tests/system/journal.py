"""What a machine's journal says, from a moment on."""

from __future__ import annotations

import json
from fnmatch import fnmatch

from tests.system.machines import Machine

Entry = dict[str, str]


def cursor(machine: Machine) -> str:
    """The end of the journal now."""
    machine.run("journalctl --sync")
    return machine.run("journalctl --no-pager -n 0 --show-cursor").split("cursor: ")[1].strip()


def entries(machine: Machine, arguments: str) -> list[Entry]:
    return [
        json.loads(line) for line in machine.run(f"journalctl --no-pager -o json {arguments}").splitlines()
    ]


def since(machine: Machine, start: str, unit: str) -> list[Entry]:
    """Of a service (or several, by a pattern) and about it, since a cursor."""
    # Not by `-u`: systemd 252 leaves out the first entry that it finds behind the cursor of another unit.
    found = entries(machine, f"--after-cursor={start!r}")
    names = [(entry, entry.get("_SYSTEMD_UNIT", ""), entry.get("UNIT", "")) for entry in found]
    return [entry for entry, of, about in names if fnmatch(of, unit) or fnmatch(about, unit)]


def lines_since(machine: Machine, start: str, unit: str) -> str:
    return "\n".join(str(entry["MESSAGE"]) for entry in since(machine, start, f"{unit}.service"))
