"""Which certificates this daemon trusts at this moment: authorities, revocation lists, and time.

OpenSSL judges a certificate once, in the handshake. This module handles what changes later: a certificate
that is revoked or expires takes its link with it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from restpipe.daemon.links import PeerLinks
from restpipe.daemon.peers import Peer, PeerTable
from restpipe.errors import Code, ConfigError, RestPipeError
from restpipe.files import read_file
from restpipe.names import canonical
from restpipe.transport.certificates import (
    MAX_FILE,
    SOON_S,
    Certificate,
    Use,
    authority_of,
    describe,
    fault_of_use,
    issuer_name,
    load_certificates,
    read_chain,
    stamp,
)
from restpipe.transport.link import Link
from restpipe.transport.revocation import RevocationList, Revocations, read_lists
from restpipe.transport.tls import TlsFiles, judge_dates, verified_chain

POLL_S = 0.5
"""How often lists and expiries are looked at: a revocation takes effect within a second."""
REMIND_S = 86400.0

Lists = dict[Path, list[RevocationList]]
Seen = tuple[tuple[int, int, int, int] | None, ...]

_log = logging.getLogger(__name__)


class Refused(RestPipeError):
    """A certificate that is good enough for OpenSSL, but not here."""

    def __init__(self, code: Code, name: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.name = name
        """The certificate's, where it has one."""


class Trusted(NamedTuple):
    """What the files of an identity say, read together."""

    context: ssl.SSLContext
    own: Certificate
    authorities: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...]

    @property
    def known(self) -> tuple[x509.Certificate, ...]:
        """Those whose revocation lists count."""
        return (*self.authorities, *self.intermediates)

    @property
    def roots(self) -> dict[bytes, str]:
        """The authorities' names, by what tells each from all others."""
        return {authority_of(each): issuer_name(each.subject) for each in self.authorities}


class Sources(NamedTuple):
    """Where trust comes from: configuration."""

    files: TlsFiles
    lists: tuple[Path, ...]
    """Revocation lists; those that are not there are left out."""
    make_context: Callable[[], ssl.SSLContext]
    """Reads the files."""
    name: str = ""
    """What the other side's certificate must bear, if anything is said here."""


class Trust:
    """Judges the certificate of each link to another host, when it comes and for as long as it stands."""

    def __init__(
        self,
        sources: Sources,
        *,
        links: PeerLinks,
        peers: PeerTable,
        use: Use,
    ) -> None:
        """`use` is what the other side's certificate must be for; this side's is for the other one.

        `ConfigError` when the identity or a list cannot be used.
        """
        self._sources = sources
        self._links = links
        self._peers = peers
        self._use = use
        self._own_use = Use.SERVER if use is Use.CLIENT else Use.CLIENT
        self._certificates: dict[Link, Certificate] = {}
        self._next_expiry = float("inf")
        self._remind_at = 0.0
        self._trusted = _load(sources, self._own_use)
        self._judges_dates: bool | None = None
        """What the context was last told; None if nothing."""
        self._seen = _look_at(sources.lists)
        self._lists = _read_all(sources, self._trusted)
        """What each file says, or said when it could be read last."""
        self._revocations = _together(self._lists)

    @property
    def context(self) -> ssl.SSLContext:
        """For connections to come."""
        # A clock that is behind our own certificate is wrong, and no judge of anybody's.
        wanted = time.time() >= self._trusted.own.not_before
        if wanted != self._judges_dates:
            self._judges_dates = wanted
            judge_dates(self._trusted.context, wanted=wanted)
        return self._trusted.context

    # Links that come and go.

    def admit(self, link: Link) -> Certificate:
        """The certificate of the other side; from now on it is watched. `Refused` when it is not good."""
        certificate = self._certificate_of(link)
        self._check(certificate)
        self._certificates[link] = certificate
        self._next_expiry = min(self._next_expiry, certificate.not_after)
        return certificate

    def joined(self, link: Link, peer: Peer) -> None:
        """The link is that peer's: its session goes with its certificate."""
        peer.certificate = self._certificates.get(link)

    def forget(self, link: Link) -> None:
        """The link is gone."""
        self._certificates.pop(link, None)

    def _certificate_of(self, link: Link) -> Certificate:
        transport = link.transport
        connection = transport.get_extra_info("ssl_object") if transport is not None else None
        try:
            return read_chain(verified_chain(connection) if connection is not None else ())
        except ValueError as error:
            raise Refused(Code.HANDSHAKE, "", f"the certificate cannot be read: {error}") from error

    def _check(self, certificate: Certificate) -> None:
        name = certificate.name
        if not name:
            raise Refused(Code.HANDSHAKE, "", "the certificate bears no name")
        if self._use not in certificate.uses:
            raise Refused(Code.HANDSHAKE, name, f"the certificate of {name} is not for use as a {self._use}")
        wanted = self._sources.name
        if wanted and canonical(wanted) not in certificate.names:
            raise Refused(Code.HANDSHAKE, name, f"the certificate is for {name}, not for {wanted}")
        if self._revocations.covers(certificate):
            raise Refused(Code.REVOKED, name, _revoked(certificate))

    # What changes.

    def reload(self, sources: Sources | None = None) -> None:
        """Takes up new certificates, authorities and lists, or those of other sources.

        `ConfigError` leaves everything as it was.
        """
        sources = sources or self._sources
        trusted = _load(sources, self._own_use)
        seen = _look_at(sources.lists)
        lists = _kept(self._lists, _read_all(sources, trusted), trusted.known, sources.lists)
        self._sources = sources
        before, self._trusted = self._trusted, trusted
        self._judges_dates = None
        self._seen = seen
        self._lists = lists
        self._remind_at = 0.0
        self._take_up()
        self._part_with(before)

    async def run(self) -> None:
        """Looks after lists and expiries until cancelled."""
        while True:
            await self._look_at_lists()
            now = time.time()
            if now >= self._next_expiry:
                self._expire(now)
            if now >= self._remind_at or now < self._remind_at - REMIND_S:
                self._remind(now)
            await asyncio.sleep(POLL_S)

    async def _look_at_lists(self) -> None:
        sources = self._sources
        seen = _look_at(sources.lists)
        if seen == self._seen:
            return
        before, self._seen = self._seen, seen
        changed = [path for path, was, now in zip(sources.lists, before, seen, strict=True) if was != now]
        # Lists can be long.
        read = await asyncio.to_thread(_read_anew, changed, self._trusted.known)
        if not read or sources is not self._sources:
            # Or others were named meanwhile, and have been read.
            return
        _log.info("the revocation list has been read anew")
        self._lists |= _kept(self._lists, read, self._trusted.known)
        self._take_up()

    def _take_up(self) -> None:
        revocations = self._revocations = _together(self._lists)
        for link, certificate in list(self._certificates.items()):
            if revocations.covers(certificate):
                self._cut(link, _revoked(certificate))
        for peer in self._peers:
            if peer.certificate is not None and revocations.covers(peer.certificate):
                # A new certificate of the same name may not go on with it: it may be another's.
                self._links.forget_session(peer, _revoked(peer.certificate))
                peer.certificate = None

    def _expire(self, now: float) -> None:
        for link, certificate in list(self._certificates.items()):
            if certificate.not_after < now:
                # The session stays: with a renewed certificate the other side goes on where it was.
                end = stamp(certificate.not_after)
                self._cut(link, f"the certificate of {certificate.name} has expired at {end}")
        self._next_expiry = min(
            (certificate.not_after for certificate in self._certificates.values()), default=float("inf")
        )

    def _part_with(self, before: Trusted) -> None:
        """Cut the links that an authority let in which is trusted no longer; the others stay."""
        roots = before.roots
        gone = roots.keys() - self._trusted.roots
        for link, certificate in list(self._certificates.items()) if gone else ():
            if certificate.root in gone:
                detail = f"{roots[certificate.root]} may no longer be trusted: connect anew"
                self._cut(link, detail, Code.AUTHORITY_GONE)

    def _cut(self, link: Link, detail: str, code: Code = Code.REVOKED) -> None:
        self.forget(link)
        self._links.cut(link, code, detail)

    # Telling the administrator.

    def _remind(self, now: float) -> None:
        self._remind_at = now + REMIND_S
        own = self._trusted.own
        server = "--server " if self._own_use is Use.SERVER else ""
        self._warn_of_end(
            now,
            "this host's certificate",
            self._sources.files.certificate,
            own.not_after,
            f" (restpipe-ca renew {server}{own.name}, and restpipe identity install)",
        )
        ends = [
            _described(authority, self._sources.files.ca).not_after for authority in self._trusted.authorities
        ]
        self._warn_of_end(now, "the last of the authorities", self._sources.files.ca, max(ends))
        for issuer in self._revocations.stale(now):
            _log.error(
                "the revocation list of %s is out of date; what it says still holds, "
                "but later revocations are not known: renew it",
                issuer,
            )

    def _warn_of_end(self, now: float, what: str, path: Path, end: float, how: str = "") -> None:
        if end <= now:
            _log.error(
                "%s (%s) expired at %s: no connection is possible, renew it%s", what, path, stamp(end), how
            )
        elif end - now <= SOON_S:
            days = int((end - now) // 86400)
            _log.warning("%s (%s) expires in %d days, at %s: renew it%s", what, path, days, stamp(end), how)


# Reading files.


def _load(sources: Sources, use: Use) -> Trusted:
    context = sources.make_context()
    path = sources.files.certificate
    own, *intermediates = _certificates(path, "tls.certificate")
    described = _described(own, path)
    # OpenSSL would show it all the same, and every other side refuse it.
    if fault := fault_of_use(described, use):
        raise ConfigError(f"tls.certificate {path}: {fault}")
    return Trusted(
        context,
        described,
        tuple(_certificates(sources.files.ca, "tls.ca")),
        tuple(intermediates),
    )


def _read_all(sources: Sources, trusted: Trusted) -> Lists:
    """Return what the files say that are there. Raises ConfigError if one of them cannot be used."""
    return {path: _lists_in(path, trusted.known) for path in sources.lists if _is_there(path)}


def _read_anew(paths: Iterable[Path], known: Sequence[x509.Certificate]) -> Lists:
    """The same of files that have changed, without those that are gone or cannot be used: it is told."""
    read: Lists = {}
    for path in paths:
        try:
            if _is_there(path):
                read[path] = _lists_in(path, known)
            else:
                _log.error(
                    "a revocation list is gone; what it said still holds until the next start: %s", path
                )
        except ConfigError as error:
            _log.error("the new revocation list is not used, the one before still holds: %s", error)
    return read


def _kept(before: Lists, read: Lists, known: Sequence[x509.Certificate], gone: Iterable[Path] = ()) -> Lists:
    """Return what was read, and what the same files said before for authorities they have no list of now.

    A list of another authority, put there by mistake, would let revoked certificates in again. `gone` are
    files that may not have been read.
    """
    trusted = {authority_of(each) for each in known}
    kept = dict(read)
    for path in dict.fromkeys((*read, *gone)):
        new = read.get(path, [])
        there = {entry.authority for entry in new}
        missing = [
            entry
            for entry in before.get(path, ())
            if entry.authority not in there and entry.authority in trusted
        ]
        for issuer in dict.fromkeys(entry.issuer for entry in missing):
            _log.error(
                "%s: the list of %s is no longer there; what it said still holds until the next start, or "
                "until a newer one is there",
                path,
                issuer,
            )
        if missing:
            kept[path] = [*new, *missing]
    return kept


def _together(lists: Lists) -> Revocations:
    return Revocations(itertools.chain.from_iterable(lists.values()))


def _lists_in(path: Path, known: Sequence[x509.Certificate]) -> list[RevocationList]:
    found, unknown = read_lists(path, known)
    names = {issuer_name(each.subject) for each in known}
    for issuer in unknown:
        if issuer in names:
            # The authority was made anew, it seems, and one of the two files is the older one's.
            _log.error(
                "%s: the list of %s is left out: the authority of that name in tls.ca has another key",
                path,
                issuer,
            )
        else:
            _log.warning("%s: the list of %s is left out: that authority is not in tls.ca", path, issuer)
    return found


def _revoked(certificate: Certificate) -> str:
    return f"the certificate of {certificate.name}, serial {certificate.serial_text}, is revoked"


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        _log.error("%s: may not be read: what is revoked there has no effect here", path)
        return False
    except OSError:
        # To read it will say what is wrong.
        return True
    return True


def _look_at(paths: Sequence[Path]) -> Seen:
    """What tells one version of a file from the next, without reading it."""
    return tuple(map(_marks, paths))


def _marks(path: Path) -> tuple[int, int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _certificates(path: Path, key: str) -> list[x509.Certificate]:
    try:
        return load_certificates(read_file(path, MAX_FILE))
    except OSError as error:
        raise ConfigError(f"{key} {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{key} {path}: {error}") from error


def _described(certificate: x509.Certificate, path: Path) -> Certificate:
    try:
        return describe(certificate)
    except ValueError as error:
        raise ConfigError(f"{path}: a certificate in it cannot be understood: {error}") from error
