"""Connects to a server: looks its name up anew, tries all its addresses, sees the TLS handshake through."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence

from restpipe.transport.link import Link
from restpipe.transport.lookups import AddressInfo, Lookups
from restpipe.transport.tls import LastWords

ATTEMPT_DELAY_S = 0.25
"""Head start of an address over the next (RFC 8305, section 5)."""
LAST_RESORT_DELAY_S = 2.0
"""Head start over an address that took a connection before, but of which came no link."""
MAX_REMEMBERED = 64
"""Addresses that came to nothing; a name may have ever new ones."""
CONNECT_S = 5.0
"""For all addresses together. TCP asks ever more rarely: a new attempt finds a healed network sooner."""


class Disappointments:
    """Addresses that took a connection, of which came no link: a server that hangs, or another than wanted.

    They are tried when all others have had their chance, for to connect is easy for them.
    """

    def __init__(self) -> None:
        self._addresses: dict[tuple[str, int], None] = {}
        """The latest last."""

    def add(self, address: tuple[str, int]) -> None:
        self.forget(address)
        self._addresses[address] = None
        if len(self._addresses) > MAX_REMEMBERED:
            del self._addresses[next(iter(self._addresses))]

    def forget(self, address: tuple[str, int]) -> None:
        """A link stands there. Without effect when it never disappointed."""
        self._addresses.pop(address, None)

    def order(self, found: Iterable[AddressInfo]) -> tuple[list[AddressInfo], list[AddressInfo]]:
        """Those to try first, and the last resorts: whoever disappointed longest ago goes first."""
        ranks = {address: rank for rank, address in enumerate(self._addresses)}
        all_found = list(found)
        first = [info for info in all_found if _host_and_port(info) not in ranks]
        last = [info for info in all_found if _host_and_port(info) in ranks]
        return first, sorted(last, key=lambda info: ranks[_host_and_port(info)])


def _host_and_port(info: AddressInfo) -> tuple[str, int]:
    host, port = info[4][:2]
    return str(host), int(port)


async def dial(
    host: str,
    port: int,
    context: ssl.SSLContext,
    make_link: Callable[[], Link],
    *,
    server_name: str,
    timeout_s: float,
    disappointments: Disappointments | None = None,
    lookups: Lookups | None = None,
) -> Link:
    """A link whose TLS handshake is over. `OSError` (`ssl.SSLError`, `TimeoutError`) when that cannot be.

    `disappointments` orders the addresses, and learns of one where TLS came to nothing. Of what happens after
    that it is for the caller to tell it. `lookups` holds look-ups that earlier attempts did not wait for.
    """
    past = Disappointments() if disappointments is None else disappointments
    try:
        end = asyncio.get_running_loop().time() + timeout_s
        found = await _look_up(host, port, Lookups() if lookups is None else lookups, end)
        async with asyncio.timeout_at(end):
            return await _dial(found, context, make_link, past, server_name or host, timeout_s)
    except OSError:
        raise
    except ValueError as error:
        # From the resolver or from TLS: what cannot be a name at all. (Some of TLS's are an OSError too.)
        raise OSError(f"{server_name or host!r} cannot be dialed: {error}") from error


async def _dial(
    found: Iterable[AddressInfo],
    context: ssl.SSLContext,
    make_link: Callable[[], Link],
    past: Disappointments,
    server_name: str,
    handshake_timeout_s: float,
) -> Link:
    first, last = past.order(_interleaved(found))
    sock = await _connect_in_time(first, last)
    address = _peer_of(sock)
    with LastWords(sock) as last_words:
        try:
            _, link = await asyncio.get_running_loop().create_connection(
                make_link,
                sock=sock,
                ssl=context,
                # A dot at the end says that a name is complete; no certificate has it.
                server_hostname=server_name.removesuffix("."),
                ssl_handshake_timeout=handshake_timeout_s,
            )
        except BaseException as error:
            past.add(address)
            sock.close()
            if isinstance(error, ssl.SSLError):
                await last_words.say(error)
            raise
    return link


async def _look_up(host: str, port: int, lookups: Lookups, end: float) -> Sequence[AddressInfo]:
    """Raises gaierror if there is no answer until then: no address of the server's has disappointed."""
    answer = lookups.begin(host, port)
    await asyncio.wait((answer,), timeout=end - asyncio.get_running_loop().time())
    if not answer.done():
        raise socket.gaierror(socket.EAI_AGAIN, "its name could not be looked up in time")
    return answer.result()


def _interleaved(found: Iterable[AddressInfo]) -> list[AddressInfo]:
    """Families by turns, the resolver's favourite first (RFC 8305, section 4)."""
    families: dict[int, list[AddressInfo]] = {}
    for info in found:
        families.setdefault(info[0], []).append(info)
    rows: Iterator[tuple[AddressInfo | None, ...]] = itertools.zip_longest(*families.values())
    return [info for row in rows for info in row if info is not None]


async def _connect_in_time(first: list[AddressInfo], last: list[AddressInfo]) -> socket.socket:
    try:
        async with asyncio.timeout(CONNECT_S) as limit:
            return await _connect_any(first, last)
    except TimeoutError:
        if not limit.expired():
            raise
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


async def _connect_any(first: list[AddressInfo], last: list[AddressInfo]) -> socket.socket:
    """The first connection that stands, each address given a head start over the next."""
    attempts: list[asyncio.Task[socket.socket]] = []
    failures: list[OSError] = []
    waiting = [*first, *last]
    done: set[asyncio.Task[socket.socket]] = set()
    try:
        while waiting or attempts:
            # A failure brings the next at once; a last resort only when nobody else is left.
            if waiting and (not done or not attempts or len(waiting) > len(last)):
                attempts.append(asyncio.create_task(_connect(waiting.pop(0))))
            done, _ = await asyncio.wait(
                attempts,
                timeout=_head_start_s(len(waiting), len(last)),
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                attempts.remove(task)
                if isinstance(error := task.exception(), OSError):
                    failures.append(error)
                else:
                    return task.result()
        raise failures[0] if failures else OSError("the name has no address")
    finally:
        for task in attempts:
            task.cancel()
            task.add_done_callback(_close_late)


def _head_start_s(waiting: int, last: int) -> float | None:
    """Over the next of those that wait, the `last` of whom are last resorts; None when nobody waits."""
    if not waiting:
        return None
    return ATTEMPT_DELAY_S if waiting > last else LAST_RESORT_DELAY_S


async def _connect(info: AddressInfo) -> socket.socket:
    family, kind, protocol, _, address = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _peer_of(sock: socket.socket) -> tuple[str, int]:
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        # It has reset the connection already.
        return "", 0
    return str(host), int(port)


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    """Another address was faster."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
