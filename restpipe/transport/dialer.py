"""Connects to a server: looks its name up anew, tries all its addresses, sees the TLS handshake through."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator

from restpipe.transport.link import Link
from restpipe.transport.tls import LastWords

ATTEMPT_DELAY_S = 0.25
"""Head start of an address over the next (RFC 8305, section 5)."""
CONNECT_S = 5.0
"""For all addresses together. TCP asks ever more rarely: a new attempt finds a healed network sooner."""

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def dial(
    host: str,
    port: int,
    context: ssl.SSLContext,
    make_link: Callable[[], Link],
    *,
    server_name: str,
    timeout_s: float,
) -> Link:
    """A link whose TLS handshake is over. `OSError` (`ssl.SSLError`, `TimeoutError`) when that cannot be."""
    try:
        return await _dial(host, port, context, make_link, server_name=server_name, timeout_s=timeout_s)
    except OSError:
        raise
    except ValueError as error:
        # From the resolver or from TLS: what cannot be a name at all. (Some of TLS's are an OSError too.)
        raise OSError(f"{server_name or host!r} cannot be dialed: {error}") from error


async def _dial(
    host: str,
    port: int,
    context: ssl.SSLContext,
    make_link: Callable[[], Link],
    *,
    server_name: str,
    timeout_s: float,
) -> Link:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        sock = await _connect_in_time(_interleaved(found))
        with LastWords(sock) as last_words:
            try:
                _, link = await loop.create_connection(
                    make_link,
                    sock=sock,
                    ssl=context,
                    server_hostname=server_name or host,
                    ssl_handshake_timeout=timeout_s,
                )
            except BaseException as error:
                sock.close()
                if isinstance(error, ssl.SSLError):
                    await last_words.say(error)
                raise
    return link


def _interleaved(found: Iterable[AddressInfo]) -> list[AddressInfo]:
    """Families by turns, the resolver's favourite first (RFC 8305, section 4)."""
    families: dict[int, list[AddressInfo]] = {}
    for info in found:
        families.setdefault(info[0], []).append(info)
    rows: Iterator[tuple[AddressInfo | None, ...]] = itertools.zip_longest(*families.values())
    return [info for row in rows for info in row if info is not None]


async def _connect_in_time(addresses: list[AddressInfo]) -> socket.socket:
    try:
        async with asyncio.timeout(CONNECT_S) as limit:
            return await _connect_any(addresses)
    except TimeoutError:
        if not limit.expired():
            raise
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


async def _connect_any(addresses: list[AddressInfo]) -> socket.socket:
    """The first connection that stands, each address given a head start over the next."""
    attempts: list[asyncio.Task[socket.socket]] = []
    failures: list[OSError] = []
    waiting = list(addresses)
    try:
        while waiting or attempts:
            if waiting:
                attempts.append(asyncio.create_task(_connect(waiting.pop(0))))
            done, _ = await asyncio.wait(
                attempts,
                timeout=ATTEMPT_DELAY_S if waiting else None,
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


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    """Another address was faster."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
