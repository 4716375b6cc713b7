"""One connection of a link: handshake, heartbeat, acknowledgement, and what to write next. No I/O, no clock.

Rules of the file: `now` is a monotonic time in seconds, passed in. Whoever owns a connection feeds it what
came off the transport (`receive`), handles the frames that this returns in their order, writes what
`data_to_send` gives, and calls `tick` when `next_tick` has come. A `ProtocolError` ends the connection: the
owner sends what `goodbye` returns and closes. The connection knows of its session only how to number and
acknowledge; streams are the owner's.
"""

from __future__ import annotations

import enum
import secrets

from restpipe import __version__
from restpipe.errors import Code, ProtocolError
from restpipe.protocol import frames
from restpipe.protocol.frames import FIRST_LINK_KIND, MANY, Frame, FrameDecoder
from restpipe.protocol.messages import encode_goaway, read_message
from restpipe.protocol.schema_pb2 import Hello, Role, Welcome
from restpipe.protocol.session import ID_SIZE, Session

MAJOR = 1
MINOR = 0
SOFTWARE = f"restpipe/{__version__}"

ACK_EVERY_FRAMES = 32
ACK_EVERY_BYTES = 65536
DEAD_AFTER_INTERVALS = 2
"""Heartbeats in which nothing at all was heard: the other side is given up."""
QUIET_INTERVALS = 1.25
"""Heartbeats of silence after which a listener pings: a dialer's own ping would have come by then."""


class Side(enum.Enum):
    """Who dialed. The dialer opens streams with odd numbers, the listener with even ones."""

    DIALER = 1
    LISTENER = 2


class Connection:
    """State of one link from its first byte to its last."""

    def __init__(
        self, side: Side, *, heartbeat_s: float, handshake_s: float, now: float, dead_s: float = 0.0
    ) -> None:
        """Pings each `heartbeat_s`; gives up after `dead_s` of silence, by default two heartbeats."""
        self.side = side
        self.session: Session | None = None
        """None until the handshake is over."""
        self.resumed = False
        """Whether this connection goes on with a session that another began (once open)."""
        self.peer_goes = False
        """The other side has said GOAWAY: it takes no new streams."""
        self.round_trip_s: float | None = None
        """Time between the last PING and its PONG."""
        self.pinged_at: float | None = None
        """When the first PING left that is not answered yet."""
        self.due = False
        """There may be something to send that no stream has queued: ask `data_to_send`."""
        self.behind = False
        """More whole frames are here than were taken."""
        self.link_frames: list[Frame] = []
        """Frames of the link itself for its owner, who takes them out."""
        self._decoder = FrameDecoder()
        self._control: list[bytes] = []
        self._heartbeat_s = heartbeat_s
        self._dead_s = dead_s or DEAD_AFTER_INTERVALS * heartbeat_s
        self._handshake_ends = now + handshake_s
        self._heard_at = now
        self._ping_at = now + heartbeat_s
        self._acknowledged = 0
        self._unacknowledged_bytes = 0
        self._count_due = 0
        """PONG or ACK if one is owed. One answers for all: a peer that asks without reading pins nothing."""
        self._buffer_size = 0
        self._asked_for: Session | None = None
        self.next_tick = now + min(handshake_s, heartbeat_s)

    @property
    def dead_s(self) -> float:
        """So much silence, in seconds, and the other side is given up."""
        return self._dead_s

    # The handshake.

    def say_hello(
        self, role: Role, *, capacity: int = 0, session: Session | None = None, buffer_size: int = 0
    ) -> None:
        """The dialer's first frame. `session` is the one to go on with, `buffer_size` is for a new one."""
        hello = Hello(major=MAJOR, minor=MINOR, role=role, capacity=capacity, software=SOFTWARE)
        if session is not None:
            hello.session = session.id
            hello.received = session.received
        self._asked_for = session
        self._buffer_size = buffer_size
        self.send_control(frames.encode(frames.HELLO, head=hello.SerializeToString()))

    def accept(self, session: Session, hello: Hello, *, now: float, name: str = "") -> None:
        """The listener's answer to HELLO: the connection is open with this session.

        It resumes when `hello` asks for this very session. `ProtocolError` when the counts do not fit.
        """
        self.resumed = bool(hello.session) and hello.session == session.id
        if self.resumed:
            session.resume(hello.received)
        welcome = Welcome(
            major=MAJOR,
            minor=MINOR,
            session=session.id,
            resumed=self.resumed,
            received=session.received,
            software=SOFTWARE,
            name=name,
        )
        self.send_control(frames.encode(frames.WELCOME, head=welcome.SerializeToString()))
        self._open(session, now)

    def _handle_welcome(self, frame: Frame, now: float) -> None:
        welcome = read_message(Welcome(), frame)
        self._check_version(welcome.major)
        session = self._asked_for
        self.resumed = welcome.resumed
        if welcome.resumed:
            if session is None or welcome.session != session.id:
                raise ProtocolError(Code.HANDSHAKE, "the listener resumes a session that was not asked for")
            session.resume(welcome.received)
        else:
            if len(welcome.session) != ID_SIZE:
                raise ProtocolError(Code.HANDSHAKE, f"a session is named by {ID_SIZE} bytes")
            session = Session(welcome.session, self._buffer_size)
        self._open(session, now)

    def _check_version(self, major: int) -> None:
        if major != MAJOR:
            raise ProtocolError(
                Code.VERSION,
                f"the other side speaks version {major} of the protocol, this side version {MAJOR}; "
                "upgrade the older of the two",
            )

    def _open(self, session: Session, now: float) -> None:
        self.session = session
        # What is to be sent again.
        self.due = True
        self._acknowledged = session.received
        self._ping_at = now + self._heartbeat_s
        self.next_tick = self._ping_at

    # What comes in.

    def receive(self, data: bytes, now: float, most: int = MANY) -> list[Frame]:
        """Take bytes off the transport and return the stream frames in them, in order.

        Frames of the link itself that concern its owner go to `link_frames`: HELLO (answer it with `accept`),
        WELCOME, GOAWAY, CAPACITY, NOTICE, TURN, and PONG (see `round_trip_s`). Kinds that this version does
        not know are left out. At most `most` frames are taken; while `behind` says that there are more,
        receive nothing (`b""`) to get them.
        """
        self._heard_at = now
        session, decoder = self.session, self._decoder
        if session is None:
            self._check_first_byte(data)
        streams: list[Frame] = []
        for frame in decoder.feed(data, most):
            if session is None:
                session = self._handle_first(frame, now)
            elif frame.kind < FIRST_LINK_KIND:
                streams.append(frame)
            elif self._handle_link_frame(frame, session, now):
                self.link_frames.append(frame)
        self.behind = decoder.behind
        if session is not None and session.durable:
            session.received += len(streams)
            self._unacknowledged_bytes += len(data)
            if (
                session.received - self._acknowledged >= ACK_EVERY_FRAMES
                or self._unacknowledged_bytes >= ACK_EVERY_BYTES
            ):
                self._count_due = self._count_due or frames.ACK
                self.due = True
        return streams

    def _check_first_byte(self, data: bytes) -> None:
        """Tells a stranger at once, before the length that his bytes seem to announce has come in."""
        first = frames.HELLO if self.side is Side.LISTENER else frames.WELCOME
        if self._decoder.empty and data and data[0] not in (first, frames.GOAWAY):
            raise ProtocolError(Code.HANDSHAKE, f"the first bytes are not RestPipe's: {data[:16]!r}")

    def _handle_first(self, frame: Frame, now: float) -> Session | None:
        """Handle a frame before the handshake is over. Return the session, if that is its end."""
        if self.link_frames:
            raise ProtocolError(Code.HANDSHAKE, f"frame kind {frame.kind} before the handshake is over")
        if frame.kind == frames.GOAWAY:
            self.peer_goes = True
        elif frame.kind == frames.HELLO and self.side is Side.LISTENER:
            self._check_version(read_message(Hello(), frame).major)
        elif frame.kind == frames.WELCOME and self.side is Side.DIALER:
            self._handle_welcome(frame, now)
        else:
            raise ProtocolError(Code.HANDSHAKE, f"frame kind {frame.kind} before the handshake is over")
        self.link_frames.append(frame)
        return self.session

    def _handle_link_frame(self, frame: Frame, session: Session, now: float) -> bool:
        """Whether the owner should see this frame too."""
        match frame.kind:
            case frames.ACK:
                session.acknowledge(frames.decode_count(frame))
                self.due = True
            case frames.PING:
                session.acknowledge(frames.decode_count(frame))
                self._count_due = frames.PONG
                self.due = True
            case frames.PONG:
                session.acknowledge(frames.decode_count(frame))
                self.due = True
                if self.pinged_at is not None:
                    self.round_trip_s = now - self.pinged_at
                    self.pinged_at = None
                return True
            case frames.GOAWAY:
                self.peer_goes = True
                return True
            case frames.HELLO | frames.WELCOME:
                raise ProtocolError(Code.HANDSHAKE, "a second handshake on the same connection")
            case frames.CAPACITY | frames.NOTICE | frames.TURN:
                return True
        return False

    def _count_frame(self, kind: int, session: Session) -> bytes:
        self._acknowledged = session.received
        self._unacknowledged_bytes = 0
        return frames.encode_count(kind, session.received)

    # What goes out.

    def send_control(self, frame: bytes) -> None:
        """Queue a frame of the link itself, before all streams."""
        self._control.append(frame)
        self.due = True

    def data_to_send(self, budget: int) -> bytes:
        """Return about `budget` bytes to write now; fewer than that only if nothing more may be written."""
        self.due = False
        session = self.session
        control = self._control
        if session is None:
            self._control = []
            return b"".join(control)
        if self._count_due:
            control.append(self._count_frame(self._count_due, session))
            self._count_due = 0
        taken = session.take(budget)
        if control:
            self._control = []
            taken = control + taken
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def goodbye(self, code: Code, detail: str) -> bytes:
        """The last bytes to write before this side closes."""
        return encode_goaway(code, detail)

    # Time.

    def tick(self, now: float) -> None:
        """To be called when `next_tick` has come. `ProtocolError` when the other side must be given up."""
        session = self.session
        if session is None:
            if now >= self._handshake_ends:
                raise ProtocolError(Code.HANDSHAKE, "no handshake in time")
            self.next_tick = min(self._handshake_ends, now + self._heartbeat_s)
            return
        if now - self.next_tick > self._heartbeat_s / 2:
            # This process itself was stopped or starved: what the peer sent meanwhile is still unread.
            self._heard_at = now
        dead_at = self._heard_at + self._dead_s
        if now >= dead_at:
            raise ProtocolError(Code.HEARTBEAT, f"nothing heard for {now - self._heard_at:.1f} s")
        if now >= self._next_ping():
            self._send_ping(session, now)
            self._ping_at = now + self._heartbeat_s
        self.next_tick = min(self._next_ping(), dead_at)

    def _next_ping(self) -> float:
        """The dialer pings at each interval, which is enough for both; the listener, if it hears nothing."""
        if self.side is Side.DIALER:
            return self._ping_at
        return max(self._ping_at, self._heard_at + QUIET_INTERVALS * self._heartbeat_s)

    def set_heartbeat(self, heartbeat_s: float, now: float) -> None:
        """Another interval, from the next `tick` on."""
        self._heartbeat_s = heartbeat_s
        self._dead_s = DEAD_AFTER_INTERVALS * heartbeat_s
        # Silence that was fine until now is no fault.
        self._heard_at = now
        self._ping_at = self.next_tick = now + heartbeat_s

    def ping(self, now: float) -> None:
        """Asks for a sign of life out of turn."""
        if self.session is not None:
            self._send_ping(self.session, now)

    def _send_ping(self, session: Session, now: float) -> None:
        self.send_control(self._count_frame(frames.PING, session))
        if self.pinged_at is None:
            self.pinged_at = now


def new_session_id() -> bytes:
    """A name that nobody can guess: knowing it is what lets the same peer take its session over."""
    return secrets.token_bytes(ID_SIZE)
