"""The daemon of a server: listens for clients, and tells them when to come back."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Iterator
from typing import Any

from restpipe.daemon.accepting import Accepting
from restpipe.daemon.daemon import Daemon, tls_files
from restpipe.daemon.known_clients import KnownClients
from restpipe.daemon.links import peer_connection
from restpipe.daemon.notices import Idleness
from restpipe.daemon.peers import Peer, PeerTable
from restpipe.daemon.trust import Sources, Trust
from restpipe.daemon.turns import Turns
from restpipe.errors import RestPipeError
from restpipe.host.config import Config, join_address
from restpipe.host.limits import allow_open_files
from restpipe.host.socket_store import SocketStore
from restpipe.protocol import frames
from restpipe.protocol.connection import Side
from restpipe.protocol.schema_pb2 import Notice
from restpipe.transport.certificates import Use
from restpipe.transport.link import Link
from restpipe.transport.listener import MAX_HANDSHAKES, MAX_WAITING, Listener, listening_socket
from restpipe.transport.tls import server_context

OTHER_FILES = 1200
"""Files that a daemon may have open beside its clients: workers' links, for the most part."""

_log = logging.getLogger(__name__)


class ServerDaemon(Daemon):
    """Listens for clients."""

    def __init__(self, config: Config, store: SocketStore) -> None:
        """Raises `ConfigError` if its identity cannot be used."""
        pipe = config.pipe
        peers = PeerTable(pipe.max_clients, pipe.max_waiting)
        super().__init__(config, peers)
        self._store = store
        self._known = KnownClients(config.state.directory)
        self._known.load(peers)
        self._changed = asyncio.Event()
        """There are clients that `_known` has not written down."""
        self._turns = Turns()
        self._idleness = Idleness(self.notices.tell)
        self._trust = Trust(_sources(config), links=self.links, peers=peers, use=Use.CLIENT)
        self._accepting = Accepting(
            peers,
            self.links,
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
            lambda: Link(peer_connection(Side.LISTENER, self.pipe, loop.time()), self._accepting, loop),
            handshake_s=self.pipe.handshake_timeout_s,
        )
        yield self._listener.run()
        yield self._trust.run()
        yield self._known.run(self.peers, self._changed)
        self._idleness.begin()

    def _allow_open_files(self) -> None:
        allow_open_files(self.pipe.max_clients + MAX_HANDSHAKES * 2 + MAX_WAITING + OTHER_FILES)

    def _listening_socket(self) -> socket.socket:
        """Return the socket that an earlier start has left, where clients queue already; or a new one."""
        bind, port = self.pipe.bind, self.pipe.port
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

    def stop_taking_newcomers(self) -> None:
        self._accepting.draining = True

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def reload(self, config: Config) -> None:
        pipe = config.pipe
        # First of all: nothing else can fail.
        self._trust.reload(_sources(config))
        super().reload(config)
        self.peers.limit = pipe.max_clients
        self._accepting.buffer_size = pipe.session_buffer_bytes
        self._accepting.max_clients = pipe.max_clients
        if self._listener is not None:
            self._listener.handshake_s = pipe.handshake_timeout_s
            self._allow_open_files()

    @property
    def status(self) -> str:
        count = len(self.links)
        return f"{count} client{'' if count == 1 else 's'}"

    def joined(self, peer: Peer) -> None:
        self._changed.set()
        self._idleness.end()
        if not self._tell_changed_turns():
            self._tell_turn(peer)
        self.notices.tell(self._notice(Notice.CONNECTION_ADDED, peer))

    def left(self, peer: Peer, reason: str) -> None:
        self.notices.tell(self._notice(Notice.CONNECTION_REMOVED, peer))
        if not len(self.links):
            self._idleness.begin()

    def gone(self, peer: Peer) -> None:
        self._tell_changed_turns()

    def present(self) -> Iterator[Notice]:
        yield from self._idleness.present()
        yield from (self._notice(Notice.CONNECTION_ADDED, peer) for peer in self.peers if peer.online)

    def _tell_changed_turns(self) -> bool:
        """Tell all clients their turns if those have changed.

        A client whose session waits for it counts: it may be back any moment, and the others may be about to
        be lost as well.
        """
        changed = self._turns.changed(self.links.expected)
        for peer in self.links.peers() if changed else ():
            self._tell_turn(peer)
        return changed

    def _tell_turn(self, peer: Peer) -> None:
        link = self.links.link(peer)
        if link is not None:
            round_s = self._turns.round_s
            link.send_control(frames.encode_turn(peer.place * round_s, round_s))

    def _notice(self, kind: Notice.Kind, peer: Peer) -> Notice:
        return Notice(kind=kind, peer=peer.name, peer_address=peer.address, connected=len(self.links))


def _sources(config: Config) -> Sources:
    files = tls_files(config)
    return Sources(files, (files.crl, config.tls.ca_directory / "crl.pem"), lambda: server_context(files))
