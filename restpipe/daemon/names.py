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
from typing import NamedTuple

from restpipe.daemon.peers import PeerTable, canonical_address
from restpipe.errors import Code, Delivered, Reset
from restpipe.files import make_folder, read_file, replace_file
from restpipe.names import canonical
from restpipe.protocol.shares import may_take

LIFETIME_S = 30.0
TIMEOUT_S = 5.0
MAX_NAMES = 1024
MAX_FILE = 64 << 20
"""Bytes of the file of clients: more than the longest names of the most clients there can be."""
MAX_LOOKUPS = 64
"""Names that are looked up at once. Askers share them (see `shares`)."""

_log = logging.getLogger(__name__)

STALE_S = 86400.0
"""How long addresses are used when they cannot be looked up again (RFC 8767, section 5)."""
FAILURE_S = 1.0
"""How long it is remembered that a name could not be looked up: longer than callers who come at once."""
KNOWN_NOT_TO_BE = (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY)
"""Said of a name that has no addresses. All other failures say nothing of the name (RFC 2308, section 7)."""
RESOLVER_FILE = "/etc/resolv.conf"

Found = frozenset[str] | Reset
"""The addresses of a name, of which there may be none; or why nobody can tell."""
Answer = Callable[[Found, float], None]
"""Takes what was found, and the loop's time."""


class _Known(NamedTuple):
    """What is known of a name."""

    until: float
    """The loop's time from which on it is looked up again."""
    addresses: frozenset[str]
    since: float
    """The loop's time when it was found that these are its addresses."""
    failure: Reset | None = None
    """Why the latest look-up failed. The addresses, if there are any, are those before."""

    @property
    def found(self) -> Found:
        return self.addresses if self.failure is None or self.addresses else self.failure


class _Lookup:
    """A name that is being looked up."""

    __slots__ = ("answers", "asker")

    def __init__(self, asker: object) -> None:
        self.asker = asker
        """The first that asked for it."""
        self.answers: list[Answer] = []


class Resolver:
    """Looks host names up in a thread, and remembers the answers for half a minute."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lookups: dict[str, _Lookup] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fails = False
        """The latest look-up failed: the administrator has been told."""

    def resolve(self, name: str, asker: object, answer: Answer) -> None:
        """Call `answer` with what is found of `name`."""
        loop = asyncio.get_running_loop()
        known = self._known.get(name)
        if known is not None and known.until > loop.time():
            answer(known.found, loop.time())
            return
        lookup = self._lookups.get(name) or self._begin(name, asker)
        if known is not None and known.failure is not None and known.addresses:
            # While names cannot be looked up, nobody waits for that again and again.
            answer(known.addresses, loop.time())
        elif lookup is None:
            too_many = Reset(Code.OVERLOADED, "too many names are being looked up", Delivered.NO)
            answer(too_many, loop.time())
        else:
            lookup.answers.append(answer)

    def _begin(self, name: str, asker: object) -> _Lookup | None:
        """Look the name up. None if too many are being looked up."""
        own = sum(lookup.asker is asker for lookup in self._lookups.values())
        if not may_take(own, MAX_LOOKUPS - len(self._lookups)):
            return None
        lookup = self._lookups[name] = _Lookup(asker)
        task = asyncio.get_running_loop().create_task(self._look_up(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return lookup

    async def _look_up(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        known = await self._ask(name)
        self._known.pop(name, None)
        self._known[name] = known
        if len(self._known) > MAX_NAMES:
            self._known.popitem(last=False)
        for answer in self._lookups.pop(name).answers:
            answer(known.found, loop.time())

    async def _ask(self, name: str) -> _Known:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except TimeoutError:
            return self._failed(name, f"no answer within {TIMEOUT_S:g} s")
        except OSError as error:
            if error.errno not in KNOWN_NOT_TO_BE and _asks_servers():
                return self._failed(name, error.strerror or str(error))
            addresses: frozenset[str] = frozenset()
        except ValueError:
            # It cannot be a name at all.
            addresses = frozenset()
        else:
            addresses = frozenset(filter(None, (canonical_address(str(info[4][0])) for info in found)))
        if self._fails:
            self._fails = False
            _log.info("host names can be looked up again")
        now = loop.time()
        return _Known(now + LIFETIME_S, addresses, now)

    def _failed(self, name: str, why: str) -> _Known:
        if not self._fails:
            self._fails = True
            _log.warning(
                "host names cannot be looked up (%r: %s): clients are found by the addresses known before, "
                "and requests for others by host name are answered 503",
                name,
                why,
            )
        failure = Reset(
            Code.UNREACHABLE,
            f"no client has the name {name!r}, and as a host name it cannot be looked up: {why}",
            Delivered.NO,
        )
        now = asyncio.get_running_loop().time()
        before = self._known.get(name)
        if before is None or now >= before.since + STALE_S:
            return _Known(now + FAILURE_S, frozenset(), now, failure)
        return _Known(now + FAILURE_S, before.addresses, before.since, failure)


def _asks_servers() -> bool:
    """Tell whether this host has a name server at all. Where none is configured, no answer is to be had."""
    try:
        lines = read_file(RESOLVER_FILE, MAX_FILE).splitlines()
    except OSError:
        return False
    return any(line.lstrip().startswith(b"nameserver") for line in lines)


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
