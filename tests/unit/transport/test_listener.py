from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from restpipe_ca.profiles import Role

from restpipe.protocol.connection import Side, new_session_id
from restpipe.protocol.frames import PONG
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Hello
from restpipe.protocol.session import Session
from restpipe.transport import listener as listener_module
from restpipe.transport.dialer import dial
from restpipe.transport.link import Link
from restpipe.transport.listener import Listener, listening_socket
from restpipe.transport.tls import client_context, server_context
from tests.unit.transport.kit import Identities, Lines, Recorder, connection, logged, run, until

TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("listener")


@pytest.fixture(scope="module")
def ids(folder: Path) -> Identities:
    return Identities.make(folder / "ours")


@pytest.fixture(scope="module")
def strangers(folder: Path) -> Identities:
    return Identities.make(folder / "theirs")


class Port:
    """A listener at work, what it logs, and clients of it."""

    def __init__(self, listener: Listener, port: int, owner: Recorder, lines: Lines) -> None:
        self.listener = listener
        self.port = port
        self.owner = owner
        self.lines = lines
        self.callers = Recorder()

    async def dial(self, context: ssl.SSLContext) -> Link:
        loop = asyncio.get_running_loop()

        def make_link() -> Link:
            made = Link(connection(Side.DIALER), self.callers, loop)
            made.connection.say_hello(ROLE_PIPE, buffer_size=1000)
            return made

        return await dial("127.0.0.1", self.port, context, make_link, server_name="", timeout_s=TIMEOUT_S)

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def refusal(self) -> str:
        """The one line that there is about it."""
        await until(lambda: self.lines.texts)
        (line,) = self.lines.texts
        assert line.startswith("127.0.0.1:")
        assert "\n" not in line
        return line

    async def serves(self, context: ssl.SSLContext) -> None:
        """A newcomer gets through."""
        link = await self.dial(context)
        await until(lambda: link.connection.session)


def accept(link: Link, hello: Hello) -> None:
    now = asyncio.get_running_loop().time()
    link.connection.accept(Session(new_session_id(), 1000), hello, now=now)


@asynccontextmanager
async def listening(context: ssl.SSLContext, *, handshake_s: float = TIMEOUT_S) -> AsyncIterator[Port]:
    loop = asyncio.get_running_loop()
    owner = Recorder(accept)
    sock = listening_socket("127.0.0.1", 0)
    port = sock.getsockname()[1]
    made = Listener(
        sock, lambda: context, lambda: Link(connection(Side.LISTENER), owner, loop), handshake_s=handshake_s
    )
    task = asyncio.create_task(made.run())
    with logged("restpipe.transport.listener") as lines:
        place = Port(made, port, owner, lines)
        try:
            yield place
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            for link in (*owner.made, *place.callers.made):
                link.abort()
            await until(lambda: len(owner.lost) == len(owner.made))
            await until(lambda: len(place.callers.lost) == len(place.callers.made))


def contexts(ids: Identities, strangers: Identities) -> dict[str, tuple[ssl.SSLContext, str]]:
    """Clients that are not let in, and what is said of each."""
    stranger = strangers.client("alpha")
    stranger.load_verify_locations(ids.folder / "ca.pem")
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.load_verify_locations(ids.folder / "ca.pem")
    old = ids.client("alpha")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    return {
        "another CA": (stranger, "its certificate is refused"),
        "expired": (
            ids.client("alpha", issued_ago=timedelta(days=20), days=10),
            "its certificate is refused: certificate has expired",
        ),
        "for servers": (client_context(ids.issue(["alpha"], Role.SERVER)), "its certificate is refused: "),
        "none": (nobody, "peer did not return a certificate"),
        "old TLS": (old, "an older version than TLS 1.3"),
    }


@pytest.mark.parametrize("which", ["another CA", "expired", "for servers", "none", "old TLS"])
def test_whoever_has_no_good_certificate_is_one_clear_line(
    ids: Identities, strangers: Identities, which: str
) -> None:
    async def main() -> None:
        context, said = contexts(ids, strangers)[which]
        async with listening(ids.server()) as port:
            good = await port.dial(ids.client("beta"))
            await until(lambda: good.connection.session)
            with contextlib.suppress(OSError):
                await port.dial(context)
            assert said in await port.refusal()
            assert len(port.owner.made) == 1
            # Everyone else's traffic goes on.
            now = asyncio.get_running_loop().time()
            good.connection.ping(now)
            good.wake()
            await until(lambda: PONG in port.callers.kinds())
            await port.serves(ids.client("gamma"))

    run(main())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "http request instead of TLS"),
        (b"\x80\x00\x00\x00\x00\x00\x00\x00" * 4, "refused: "),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "refused: "),
        (b"", "it closed in the middle of the handshake"),
        (b"\x16\x03\x01\x02\x00\x01", "it closed in the middle of the handshake"),
    ],
)
def test_whoever_speaks_no_tls_is_one_clear_line(ids: Identities, data: bytes, said: str) -> None:
    async def main() -> None:
        async with listening(ids.server()) as port:
            reader, writer = await port.raw()
            writer.write(data)
            if said.startswith("it closed"):
                writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            assert said in await port.refusal()
            assert port.owner.made == []
            await port.serves(ids.client("beta"))

    run(main())


def test_silence_is_bounded(ids: Identities) -> None:
    async def main() -> None:
        async with listening(ids.server(), handshake_s=0.1) as port:
            reader, writer = await port.raw()
            assert await reader.read() == b""
            writer.close()
            assert "no TLS handshake in time: no whole greeting came" in await port.refusal()
            await until(lambda: len(port.listener._handshakes) == 0)

    run(main())


def test_a_crowd_of_silent_callers_keeps_nobody_out(ids: Identities, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(listener_module, "MAX_HANDSHAKES", 4)
        monkeypatch.setattr(listener_module, "GRACE_S", 0.05)
        async with listening(ids.server()) as port:
            crowd = [await port.raw() for _ in range(12)]
            # The oldest are hung up on, the newest are not.
            for reader, _ in crowd[:8]:
                assert await reader.read() == b""
            assert len(port.listener._handshakes) == 4
            await port.serves(ids.client("beta"))
            assert not crowd[-1][0].at_eof()
            for _, writer in crowd:
                writer.close()
            await until(lambda: len(port.listener._handshakes) == 0)
            assert sum("too many handshakes" in line for line in port.lines.texts) == 1

    run(main())


def test_who_waits_goes_on_as_soon_as_another_is_over(
    ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is given up for it: all of them are young."""

    async def main() -> None:
        monkeypatch.setattr(listener_module, "MAX_HANDSHAKES", 2)
        monkeypatch.setattr(listener_module, "GRACE_S", 1e6)
        async with listening(ids.server()) as port:
            silent = [await port.raw() for _ in range(2)]
            await until(lambda: len(port.listener._handshakes) == 2)
            guests = [asyncio.create_task(port.serves(ids.client(f"guest-{n}"))) for n in range(10)]
            await until(lambda: port.listener._handshakes.waiting == 10)
            assert port.owner.made == []
            silent[0][1].close()
            await asyncio.gather(*guests)
            assert not silent[1][0].at_eof()
            silent[1][1].close()

    run(main())


def test_who_finds_no_room_to_wait_is_hung_up_on(ids: Identities, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(listener_module, "MAX_HANDSHAKES", 1)
        monkeypatch.setattr(listener_module, "MAX_WAITING", 2)
        monkeypatch.setattr(listener_module, "GRACE_S", 1e6)
        async with listening(ids.server()) as port:
            crowd = [await port.raw() for _ in range(4)]
            assert await crowd[3][0].read() == b""
            assert port.listener._handshakes.waiting == 2
            assert not any(reader.at_eof() for reader, _ in crowd[:3])
            port.listener.close()
            # Nor does the listener's end leave anybody waiting.
            for reader, writer in crowd:
                assert await reader.read() == b""
                writer.close()

    run(main())


def test_closing_lets_nobody_new_in_and_keeps_who_is_there(ids: Identities) -> None:
    async def main() -> None:
        async with listening(ids.server()) as port:
            await port.serves(ids.client("beta"))
            port.listener.close()
            await until(lambda: port.listener._sock.fileno() < 0)
            with pytest.raises(ConnectionRefusedError):
                await port.dial(ids.client("gamma"))
            assert port.owner.lost == []

    run(main())


def test_running_out_of_file_descriptors_is_survived(
    ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(listener_module, "PAUSE_AFTER_FAILURE_S", 0.001)
        real = asyncio.get_running_loop
        failures = 3

        class Loop:
            def __getattr__(self, name: str) -> object:
                return getattr(real(), name)

            async def sock_accept(self, sock: socket.socket) -> object:
                nonlocal failures
                if failures:
                    failures -= 1
                    raise OSError(24, "Too many open files")
                return await real().sock_accept(sock)

        class Asyncio:
            def __getattr__(self, name: str) -> object:
                return getattr(asyncio, name)

            def get_running_loop(self) -> Loop:
                return Loop()

        monkeypatch.setattr(listener_module, "asyncio", Asyncio())
        async with listening(ids.server()) as port:
            await until(lambda: not failures)
            await port.serves(ids.client("beta"))
            assert port.lines.texts == ["cannot accept a connection: Too many open files"] * 3

    run(main())


def test_a_port_that_is_taken_is_an_error() -> None:
    with listening_socket("127.0.0.1", 0) as sock, pytest.raises(OSError, match="in use"):
        listening_socket("127.0.0.1", sock.getsockname()[1])
    with listening_socket("::1", 0) as sock:
        assert sock.family == socket.AF_INET6


class Stranger:
    """A client that speaks TLS rightly until its handshake is over, and whatever it likes from then on."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def __enter__(self) -> Stranger:
        self.step(self.tls.do_handshake)
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()

    def step(self, action: Callable[[], Any]) -> Any:
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._outgoing.read())
                data = self._sock.recv(65536)
                if not data:
                    raise ConnectionError("closed without a word") from None
                self._incoming.write(data)
            else:
                self._sock.sendall(self._outgoing.read())
                return result

    def record(self, data: bytes) -> bytearray:
        """As it would be sent."""
        self.tls.write(data)
        return bytearray(self._outgoing.read())

    def answer_to(self, record: bytes) -> str:
        """The reason of the alert that comes back."""
        self._sock.sendall(record)
        with pytest.raises(ssl.SSLError) as raised:
            self.step(lambda: self.tls.read(65536))
        return str(raised.value.reason)


def with_wrong_tag(record: bytearray) -> bytes:
    record[-1] ^= 1
    return bytes(record)


def too_large(record: bytearray) -> bytes:
    return bytes(record[:3]) + (0x4101).to_bytes(2, "big") + bytes(0x4101)


def in_plain(record: bytearray) -> bytes:
    return b"\x14\x03\x03\x00\x01\x01"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_wrong_tag, "SSLV3_ALERT_BAD_RECORD_MAC"),
        (too_large, "TLSV1_ALERT_RECORD_OVERFLOW"),
        (in_plain, "SSLV3_ALERT_UNEXPECTED_MESSAGE"),
    ],
)
def test_what_breaks_tls_after_the_handshake_is_answered_by_an_alert(
    ids: Identities, change: Callable[[bytearray], bytes], reason: str
) -> None:
    """RFC 8446, sections 5 and 5.2."""

    async def main() -> None:
        server = server_context(ids.issue(["localhost"], Role.SERVER))
        client = client_context(ids.issue(["alpha"], Role.CLIENT))
        async with listening(server) as place:

            def speak() -> str:
                with Stranger(place.port, client) as stranger:
                    return stranger.answer_to(change(stranger.record(b"hello")))

            assert await asyncio.to_thread(speak) == reason
            await until(lambda: place.owner.lost)

    run(main())
