"""Host names turned into addresses, by which requests find clients."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from restpipe.daemon.peers import canonical_address
from restpipe.errors import Code, Delivered, Reset
from restpipe.files import read_file
from restpipe.protocol.shares import may_take
from restpipe.transport.lookups import MAX_LOOKUPS, Lookups
from restpipe.transport.lookups import Answer as Asked

LIFETIME_S = 30.0
TIMEOUT_S = 5.0
"""How long a look-up is waited for. It goes on after that, and what it finds is used."""
MAX_NAMES = 1024
STALE_S = 86400.0
"""How long addresses are used when they cannot be looked up again (RFC 8767, section 5)."""
FAILURE_S = 1.0
"""How long it is remembered that a name could not be looked up: longer than callers who come at once."""
NO_SUCH_NAME = (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY)
"""Said of a name that has no addresses. All other failures say nothing of the name (RFC 2308, section 7)."""
NEVER_A_HOST = (".invalid", ".invalid.")
"""Names that no name server need be asked for (RFC 6761, section 6.4)."""
TELL_EVERY_S = 60.0
"""How often it is told that a name could not be looked up; at DEBUG it is told each time."""
RESOLVER_FILE = "/etc/resolv.conf"
MAX_RESOLVER_FILE = 1 << 20

_log = logging.getLogger(__name__)

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

    __slots__ = ("answers", "asker", "overdue")

    def __init__(self, asker: object) -> None:
        self.asker = asker
        """The first that asked for it."""
        self.answers: list[Answer] = []
        self.overdue: Found | None = None
        """What is told while it is not waited for any longer; None before."""

    def answer(self, found: Found, now: float) -> None:
        """Tell all who wait."""
        answers, self.answers = self.answers, []
        for answer in answers:
            answer(found, now)


class Resolver:
    """Looks host names up, and remembers the answers for half a minute.

    At most MAX_LOOKUPS at once, which askers share (see `shares`). Each counts until the system has answered.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lookups: dict[str, _Lookup] = {}
        self._system = Lookups()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tell_from = float("-inf")
        """The loop's time from which on a failure is told again."""

    def resolve(self, name: str, asker: object, answer: Answer) -> None:
        """Call `answer` with what is found of `name`."""
        now = asyncio.get_running_loop().time()
        if name.endswith(NEVER_A_HOST):
            answer(frozenset(), now)
            return
        known = self._known.get(name)
        if known is not None and known.until > now:
            answer(known.found, now)
            return
        lookup = self._lookups.get(name) or self._begin(name, asker)
        if known is not None and known.failure is not None and known.addresses:
            # While names cannot be looked up, nobody waits for that again and again.
            answer(known.addresses, now)
        elif lookup is None:
            answer(Reset(Code.OVERLOADED, "too many names are being looked up", Delivered.NO), now)
        elif lookup.overdue is not None:
            answer(lookup.overdue, now)
        else:
            lookup.answers.append(answer)

    def _begin(self, name: str, asker: object) -> _Lookup | None:
        """Look the name up. None if too many are being looked up."""
        own = sum(lookup.asker is asker for lookup in self._lookups.values())
        if not may_take(own, MAX_LOOKUPS - len(self._lookups)):
            return None
        lookup = self._lookups[name] = _Lookup(asker)
        task = asyncio.get_running_loop().create_task(self._look_up(name, lookup))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return lookup

    async def _look_up(self, name: str, lookup: _Lookup) -> None:
        loop = asyncio.get_running_loop()
        asked = self._system.begin(name)
        await asyncio.wait((asked,), timeout=TIMEOUT_S)
        if not asked.done():
            lookup.overdue = self._failed(name, f"no answer within {TIMEOUT_S:g} s").found
            lookup.answer(lookup.overdue, loop.time())
            await asyncio.wait((asked,))
        known = self._learned(name, asked)
        self._known.pop(name, None)
        self._known[name] = known
        if len(self._known) > MAX_NAMES:
            self._known.popitem(last=False)
        del self._lookups[name]
        lookup.answer(known.found, loop.time())

    def _learned(self, name: str, asked: Asked) -> _Known:
        """Return what the system's answer says of the name."""
        try:
            found = asked.result()
        except OSError as error:
            if error.errno not in NO_SUCH_NAME and _asks_servers():
                return self._failed(name, error.strerror or str(error))
            addresses: frozenset[str] = frozenset()
        except ValueError:
            # It cannot be a name at all.
            addresses = frozenset()
        else:
            addresses = frozenset(filter(None, (canonical_address(str(info[4][0])) for info in found)))
        now = asyncio.get_running_loop().time()
        return _Known(now + LIFETIME_S, addresses, now)

    def _failed(self, name: str, why: str) -> _Known:
        now = asyncio.get_running_loop().time()
        level = logging.DEBUG
        if now >= self._tell_from:
            self._tell_from = now + TELL_EVERY_S
            level = logging.WARNING
        _log.log(
            level,
            "the host name %r cannot be looked up: %s; a client is found by the addresses known before, "
            "and requests are answered 503 where there are none",
            name,
            why,
        )
        failure = Reset(
            Code.UNREACHABLE,
            f"no client has the name {name!r}, and as a host name it cannot be looked up: {why}",
            Delivered.NO,
        )
        before = self._known.get(name)
        if before is None or now >= before.since + STALE_S:
            return _Known(now + FAILURE_S, frozenset(), now, failure)
        return _Known(now + FAILURE_S, before.addresses, before.since, failure)


def _asks_servers() -> bool:
    """Tell whether this host has a name server at all. Where none is configured, no answer is to be had."""
    try:
        lines = read_file(RESOLVER_FILE, MAX_RESOLVER_FILE).splitlines()
    except OSError:
        return False
    return any(line.lstrip().startswith(b"nameserver") for line in lines)
