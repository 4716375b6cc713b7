"""The one place of the daemon that asks for the role: a server listens, a client dials."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol

from restpipe.daemon.accepting import Accepting
from restpipe.daemon.core import Core
from restpipe.daemon.dialing import Dialing
from restpipe.daemon.names import KnownClients
from restpipe.daemon.notices import Idleness
from restpipe.daemon.peers import Peer, PeerTable
from restpipe.daemon.trust import Sources, Trust
from restpipe.daemon.turns import Turns
from restpipe.errors import RestPipeError
from restpipe.host.config import Config, Role, join_address
from restpipe.host.limits import allow_open_files
from restpipe.host.socket_store import SocketStore
from restpipe.host.stats import Stats
from restpipe.protocol import frames
from restpipe.protocol.connection import Side
from restpipe.protocol.schema_pb2 import Notice
from restpipe.transport.certificates import Use
from restpipe.transport.link import Link
from restpipe.transport.listener import MAX_HANDSHAKES, MAX_WAITING, Listener, listening_socket
from restpipe.transport.tls import TlsFiles, client_context, server_context

SERVER_NAME = "server"
"""What a client calls its one peer until its certificate says more."""
OTHER_FILES = 1200
"""What a daemon may have open beside its clients: workers' links, for the most part."""

_log = logging.getLogger(__name__)


class PipeEnd(Protocol):
    """What differs between the roles."""

    core: Core

    def tasks(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What runs as long as the daemon serves. `RestPipeError` when it cannot begin."""

    def stop(self) -> None:
        """Lets nobody new in."""

    def reload(self, config: Config) -> None:
        """Goes on with these values, and reads certificates and lists anew. `ConfigError` leaves the old."""

    @property
    def status(self) -> str:
        """One line for the administrator."""


class ServerEnd:
    """Listens for clients."""

    def __init__(self, config: Config, store: SocketStore) -> None:
        pipe = config.pipe
        self._store = store
        self._known = KnownClients(config.state.directory)
        self._changed = asyncio.Event()
        self._turns = Turns()
        peers = PeerTable(pipe.max_clients, pipe.max_waiting)
        self._known.load(peers)
        self.core = Core(
            pipe,
            peers,
            server=None,
            joined=self._joined,
            left=self._left,
            present=self._present,
            gone=self._tell_if_changed,
        )
        self._idleness = Idleness(self.core.notices.tell)
        self._trust = Trust(_server_sources(config), links=self.core.links, peers=peers, use=Use.CLIENT)
        self._accepting = Accepting(
            peers,
            self.core.links,
            self._trust,
            buffer_size=pipe.session_buffer_bytes,
            max_clients=pipe.max_clients,
        )
        self._listener: Listener | None = None

    def tasks(self) -> Iterator[Coroutine[Any, Any, None]]:
        loop = asyncio.get_running_loop()
        self._allow_open_files()
        sock = self._listening_socket()
        _log.info("listening at %s", join_address(*sock.getsockname()[:2]))
        self._listener = Listener(
            sock,
            lambda: self._trust.context,
            lambda: Link(self.core.make_connection(Side.LISTENER), self._accepting, loop),
            handshake_s=self.core.pipe.handshake_timeout_s,
        )
        yield self._listener.run()
        yield self._trust.run()
        yield self._known.run(self.core.peers, self._changed)
        self._idleness.begin()

    def _allow_open_files(self) -> None:
        allow_open_files(self.core.pipe.max_clients + MAX_HANDSHAKES * 2 + MAX_WAITING + OTHER_FILES)

    def _listening_socket(self) -> socket.socket:
        """The one that an earlier start has left, refusing nobody meanwhile; else a new one."""
        bind, port = self.core.pipe.bind, self.core.pipe.port
        detail = f"{bind}-{port}"
        sock = self._store.take("pipe", detail)
        if sock is None:
            try:
                sock = listening_socket(bind, port)
            except OSError as error:
                address = join_address(bind, port)
                raise RestPipeError(f"cannot listen at {address}: {error.strerror}") from error
            self._store.keep("pipe", detail, sock)
        return sock

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def reload(self, config: Config) -> None:
        pipe = config.pipe
        self._trust.reload(_server_sources(config))
        self.core.configure(pipe, pipe.max_clients)
        self._accepting.buffer_size = pipe.session_buffer_bytes
        self._accepting.max_clients = pipe.max_clients
        if self._listener is not None:
            self._listener.handshake_s = pipe.handshake_timeout_s
            self._allow_open_files()

    @property
    def status(self) -> str:
        count = len(self.core.links)
        return f"{count} client{'' if count == 1 else 's'}"

    def _joined(self, peer: Peer) -> None:
        self._changed.set()
        self._idleness.end()
        if not self._tell_if_changed():
            self._tell_turn(peer)
        self.core.notices.tell(self._notice(Notice.CONNECTION_ADDED, peer))

    def _tell_if_changed(self) -> bool:
        """Tells all who are here their turns, where those have changed.

        Who was lost is counted until its session is given up: it may be back any moment, and the others may
        be about to be lost as well.
        """
        changed = self._turns.changed(self.core.links.expected)
        for peer in self.core.links.peers() if changed else ():
            self._tell_turn(peer)
        return changed

    def _tell_turn(self, peer: Peer) -> None:
        link = self.core.links.link(peer)
        if link is not None:
            round_s = self._turns.round_s
            link.connection.send_control(frames.encode_turn(peer.place * round_s, round_s))
            link.wake()

    def _left(self, peer: Peer, reason: str) -> None:
        self.core.notices.tell(self._notice(Notice.CONNECTION_REMOVED, peer))
        if not len(self.core.links):
            self._idleness.begin()

    def _present(self) -> Iterator[Notice]:
        yield from self._idleness.present()
        yield from (self._notice(Notice.CONNECTION_ADDED, peer) for peer in self.core.peers if peer.online)

    def _notice(self, kind: Notice.Kind, peer: Peer) -> Notice:
        return Notice(kind=kind, peer=peer.name, peer_address=peer.address, connected=len(self.core.links))


class ClientEnd:
    """Dials the one server."""

    def __init__(self, config: Config) -> None:
        pipe = config.pipe
        peers = PeerTable(1, pipe.max_waiting)
        server = self._server = Peer(SERVER_NAME, pipe.max_waiting)
        peers.put(server)
        stats = self._stats = Stats(config.statsd)
        self.core = Core(
            pipe,
            peers,
            server=server,
            joined=self._joined,
            left=self._left,
            present=self._present,
        )
        self._trust = Trust(_client_sources(config), links=self.core.links, peers=peers, use=Use.SERVER)
        self._dialing = Dialing(
            server,
            self.core.links,
            self._trust,
            stats,
            pipe,
            make_connection=self.core.make_connection,
            failed=self._failed,
        )

    def tasks(self) -> Iterator[Coroutine[Any, Any, None]]:
        yield self._dialing.run()
        yield self._trust.run()
        yield self._stats.run()

    def stop(self) -> None:
        self._dialing.stop()

    def reload(self, config: Config) -> None:
        self._trust.reload(_client_sources(config))
        self.core.configure(config.pipe, 1)
        self._stats.configure(config.statsd)
        self._dialing.configure(config.pipe)

    @property
    def status(self) -> str:
        link = self.core.links.link(self._server)
        return f"connected to {link}" if link is not None else "not connected"

    def _joined(self, peer: Peer) -> None:
        self.core.notices.tell(self._success())

    def _left(self, peer: Peer, reason: str) -> None:
        self._failed(0, self._dialing.broken_at)

    def _failed(self, attempts: int, broken_at: float) -> None:
        self.core.notices.tell(
            Notice(
                kind=Notice.CONNECTION_FAIL,
                peer=self._server.name,
                peer_address=self._server.address,
                attempts=attempts,
                since=broken_at,
            )
        )

    def _present(self) -> Iterator[Notice]:
        if self._server.online:
            yield self._success()

    def _success(self) -> Notice:
        return Notice(
            kind=Notice.CONNECTION_SUCCESS,
            peer=self._server.name,
            peer_address=self._server.address,
            attempts=self._dialing.attempts,
            since=self._dialing.broken_at,
        )


def make_end(config: Config, store: SocketStore) -> PipeEnd:
    """The end of the pipe that this host is. `ConfigError` when its identity cannot be used."""
    return ServerEnd(config, store) if config.role is Role.SERVER else ClientEnd(config)


def _server_sources(config: Config) -> Sources:
    files = tls_files(config)
    return Sources(files, (files.crl, config.tls.ca_directory / "crl.pem"), lambda: server_context(files))


def _client_sources(config: Config) -> Sources:
    files = tls_files(config)
    # Host names are checked in the handshake, names of other kinds by ourselves.
    uri = config.pipe.server_name if "://" in config.pipe.server_name else ""
    return Sources(files, (files.crl,), lambda: client_context(files, check_hostname=not uri), uri)


def tls_files(config: Config) -> TlsFiles:
    tls = config.tls
    return TlsFiles(tls.key, tls.certificate, tls.ca, tls.crl)
