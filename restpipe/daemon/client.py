"""The daemon of a client: dials its one server."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any

from restpipe.daemon.daemon import Daemon, tls_files
from restpipe.daemon.dialing import Dialing
from restpipe.daemon.peers import Peer, PeerTable
from restpipe.daemon.trust import Sources, Trust
from restpipe.host.config import Config
from restpipe.host.stats import Stats
from restpipe.protocol.schema_pb2 import Notice
from restpipe.transport.certificates import Use
from restpipe.transport.tls import client_context

SERVER_NAME = "server"
"""What a client calls its one peer."""


class ClientDaemon(Daemon):
    """Dials the one server."""

    def __init__(self, config: Config, stats: Stats | None = None) -> None:
        """Raises `ConfigError` if its identity cannot be used."""
        pipe = config.pipe
        peers = PeerTable(1, pipe.max_waiting)
        server = self.server = Peer(SERVER_NAME, pipe.max_waiting)
        peers.put(server)
        super().__init__(config, peers, server=server)
        self._stats = stats or Stats(config.statsd)
        self._trust = Trust(_sources(config), links=self.links, peers=peers, use=Use.SERVER)
        self.dialing = Dialing(server, self.links, self._trust, self._stats, pipe, failed=self._failed)

    def tasks(self) -> Iterator[Coroutine[Any, Any, None]]:
        yield self.dialing.run()
        yield self._trust.run()
        yield self._stats.run()

    def stop_taking_newcomers(self) -> None:
        self.dialing.hurry()

    def stop(self) -> None:
        self.dialing.stop()

    def reload(self, config: Config) -> None:
        # First of all: nothing else can fail.
        self._trust.reload(_sources(config))
        super().reload(config)
        self._stats.configure(config.statsd)
        self.dialing.configure(config.pipe)

    @property
    def status(self) -> str:
        link = self.links.link(self.server)
        return f"connected to {link}" if link is not None else "not connected"

    def joined(self, peer: Peer) -> None:
        self.notices.tell(self._success())

    def left(self, peer: Peer, reason: str) -> None:
        self._failed(0, self.dialing.broken_at)

    def present(self) -> Iterator[Notice]:
        if self.server.online:
            yield self._success()

    def _failed(self, attempts: int, broken_at: float) -> None:
        self.notices.tell(self._notice(Notice.CONNECTION_FAIL, attempts, broken_at))

    def _success(self) -> Notice:
        return self._notice(Notice.CONNECTION_SUCCESS, self.dialing.attempts, self.dialing.broken_at)

    def _notice(self, kind: Notice.Kind, attempts: int, broken_at: float) -> Notice:
        return Notice(
            kind=kind,
            peer=self.server.name,
            peer_address=self.server.address,
            attempts=attempts,
            since=broken_at,
        )


def _sources(config: Config) -> Sources:
    files = tls_files(config)
    # TLS checks host names; `trust` checks names of other kinds.
    uri = config.pipe.server_name if "://" in config.pipe.server_name else ""
    return Sources(files, (files.crl,), lambda: client_context(files, check_hostname=not uri), uri)
