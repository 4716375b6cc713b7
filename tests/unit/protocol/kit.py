"""What the tests of the protocol share."""

from __future__ import annotations

from restpipe.protocol.connection import Connection
from restpipe.protocol.frames import Frame


def received(connection: Connection, data: bytes, now: float) -> list[Frame]:
    """All frames that a connection hands its owner for these bytes, those of the link itself first."""
    streams = connection.receive(data, now)
    of_link, connection.link_frames = connection.link_frames, []
    return of_link + streams
