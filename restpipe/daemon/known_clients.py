"""The names of clients that outlive this process, in a file."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading
from pathlib import Path

from restpipe.daemon.peers import PeerTable
from restpipe.files import make_folder, read_file, replace_file
from restpipe.names import canonical

MAX_FILE = 64 << 20
"""Bytes of the file: more than the longest names of the most clients there can be."""

_log = logging.getLogger(__name__)


class KnownClients:
    """The names of clients seen, in a file, so that requests for them wait also after a restart."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "clients.json"
        self._written: dict[str, str] = {}
        self._lock = threading.Lock()
        self._told = itertools.count(1)
        self._latest = 0
        """Newest snapshot written; a slow thread must not overwrite it with an older one."""

    def load(self, peers: PeerTable) -> None:
        """Put clients seen before into the table. A file that cannot be read counts as none."""
        try:
            clients = json.loads(read_file(self._path, MAX_FILE))
            known = {canonical(str(name)): str(address) for name, address in clients.items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            _log.warning("%s: cannot be used, beginning anew: %s", self._path, error)
            return
        for name, address in known.items():
            peer = peers.add(name)
            if peer is not None:
                peer.address = address
        self._written = known

    def save(self, peers: PeerTable) -> None:
        """Write the file if something has changed, whole or not at all."""
        self._write(next(self._told), _addresses(peers))

    def _write(self, told: int, known: dict[str, str]) -> None:
        with self._lock:
            if told < self._latest:
                return
            self._latest = told
            if known == self._written:
                return
            try:
                make_folder(self._path.parent, 0o700)
                replace_file(self._path, json.dumps(known).encode(), 0o600)
            except OSError as error:
                _log.error("state.directory: %s: cannot be written: %s", self._path, error.strerror)
            else:
                self._written = known

    async def run(self, peers: PeerTable, changed: asyncio.Event) -> None:
        """Save at most once a second, when something has changed."""
        try:
            while True:
                await changed.wait()
                changed.clear()
                # A disk may be slow, and the loop must not wait for it.
                await asyncio.to_thread(self._write, next(self._told), _addresses(peers))
                await asyncio.sleep(1)
        finally:
            self.save(peers)


def _addresses(peers: PeerTable) -> dict[str, str]:
    return {peer.name: peer.address for peer in peers if peer.address}
