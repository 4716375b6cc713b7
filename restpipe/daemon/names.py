"""Names: host names turned into addresses, and the client names that outlive this process."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from restpipe.daemon.peers import PeerTable, canonical_address
from restpipe.protocol.shares import may_take

LIFETIME_S = 30.0
TIMEOUT_S = 5.0
MAX_NAMES = 1024
MAX_LOOKUPS = 64
"""Names that are looked up at once. Askers share them (see `shares`)."""

_log = logging.getLogger(__name__)

Answer = Callable[[frozenset[str] | None, float], None]
"""Takes the addresses of a name, None if too many names are being looked up, and the loop's time."""


class _Lookup:
    """A name that is being looked up."""

    __slots__ = ("answers", "asker")

    def __init__(self, asker: object, answer: Answer) -> None:
        self.asker = asker
        """The first that asked for it."""
        self.answers = [answer]


class Resolver:
    """Looks host names up in a thread, and remembers the answers for half a minute."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[float, frozenset[str]]] = OrderedDict()
        self._lookups: dict[str, _Lookup] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def resolve(self, name: str, asker: object, answer: Answer) -> None:
        """Call `answer` with the addresses of `name`, of which there may be none."""
        loop = asyncio.get_running_loop()
        until, addresses = self._known.get(name, (0.0, frozenset()))
        if until > loop.time():
            answer(addresses, loop.time())
        elif name in self._lookups:
            self._lookups[name].answers.append(answer)
        elif self._may_look_up(asker):
            self._lookups[name] = _Lookup(asker, answer)
            task = loop.create_task(self._look_up(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            answer(None, loop.time())

    def _may_look_up(self, asker: object) -> bool:
        own = sum(lookup.asker is asker for lookup in self._lookups.values())
        return may_take(own, MAX_LOOKUPS - len(self._lookups))

    async def _look_up(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            addresses = frozenset(filter(None, (canonical_address(str(info[4][0])) for info in found)))
        except (OSError, ValueError, TimeoutError):  # a ValueError for what cannot be a name at all
            addresses = frozenset()
        self._known[name] = (loop.time() + LIFETIME_S, addresses)
        if len(self._known) > MAX_NAMES:
            self._known.popitem(last=False)
        for answer in self._lookups.pop(name).answers:
            answer(addresses, loop.time())


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
            clients = json.loads(self._path.read_text())
            known = {str(name): str(address) for name, address in clients.items()}
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
            draft = self._path.with_suffix(".new")
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                draft.write_text(json.dumps(known))
                draft.replace(self._path)
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
