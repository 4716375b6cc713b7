from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restpipe.daemon import names
from restpipe.daemon.names import KnownClients, Resolver
from restpipe.daemon.peers import PeerTable
from restpipe.errors import Code, Delivered, Reset
from tests.unit.transport.kit import logged, run, until

ASKER = "a web worker"
TOO_MANY = Reset(Code.OVERLOADED, "too many names are being looked up", Delivered.NO)


class Lookups:
    """In place of the loop's resolver: answers when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}
        self.go = asyncio.Event()
        self.now = 1000.0
        loop = asyncio.get_running_loop()
        lookups = self

        class Loop:
            """The running loop, but for its resolver and its clock."""

            def __getattr__(self, name: str) -> Any:
                return getattr(loop, name)

            def time(self) -> float:
                return lookups.now

            async def getaddrinfo(self, host: str, port: object, **how: object) -> Any:
                lookups.asked.append(host)
                await lookups.go.wait()
                answer = lookups.answers.get(host, [])
                if isinstance(answer, Exception):
                    raise answer
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answer]

        class Asyncio:
            def __getattr__(self, name: str) -> Any:
                return getattr(asyncio, name)

            def get_running_loop(self) -> Loop:
                return Loop()

        monkeypatch.setattr(names, "asyncio", Asyncio())


def test_a_name_is_looked_up_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        lookups = Lookups(monkeypatch)
        lookups.answers["host"] = ["10.0.0.1", "::ffff:10.0.0.2", "::1"]
        resolver, told = Resolver(), []
        for _ in range(3):
            resolver.resolve("host", ASKER, lambda *answer: told.append(answer))
        await until(lambda: lookups.asked)
        assert told == []
        lookups.go.set()
        await until(lambda: len(told) == 3)
        assert set(told) == {(frozenset({"10.0.0.1", "10.0.0.2", "::1"}), 1000.0)}
        resolver.resolve("host", ASKER, lambda *answer: told.append(answer))
        assert len(told) == 4
        assert lookups.asked == ["host"]
        lookups.now += names.LIFETIME_S
        resolver.resolve("host", ASKER, lambda *answer: told.append(answer))
        await until(lambda: len(told) == 5)
        assert lookups.asked == ["host", "host"]

    run(main())


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "unknown"),
        socket.gaierror(socket.EAI_NODATA, "no address"),
        UnicodeError("label too long"),
        ValueError("a null character"),
    ],
)
def test_a_name_that_is_known_not_to_be_has_no_addresses(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def main() -> None:
        lookups = Lookups(monkeypatch)
        lookups.answers["host"] = error
        lookups.go.set()
        resolver, told = Resolver(), []
        resolver.resolve("host", ASKER, lambda found, _: told.append(found))
        await until(lambda: told)
        assert told == [frozenset()]
        assert resolver._lookups == {}

    run(main())


class Stage:
    """A resolver, and what it was asked and has told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.lookups = Lookups(monkeypatch)
        self.lookups.go.set()
        self.resolver = Resolver()
        self.servers = folder / "resolv.conf"
        self.servers.write_text("search example\nnameserver 192.0.2.53\n")
        monkeypatch.setattr(names, "RESOLVER_FILE", self.servers)

    async def ask(self, name: str = "host") -> Any:
        told: list[Any] = []
        self.resolver.resolve(name, ASKER, lambda found, _: told.append(found))
        await until(lambda: told)
        return told[0]

    async def settle(self) -> None:
        await until(lambda: not self.resolver._tasks)


AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
FAILURES = [
    AGAIN,
    socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure"),
    OSError(24, "Too many"),
    TimeoutError(),
]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_a_resolver_that_fails_says_nothing_of_the_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    async def main() -> None:
        stage = Stage(monkeypatch, tmp_path)
        stage.lookups.answers |= {"host": error, "other": error}
        for name in ("host", "host", "other"):
            told = await stage.ask(name)
            assert (told.code, told.delivered) == (Code.UNREACHABLE, Delivered.NO)
            assert repr(name) in told.detail
        assert stage.lookups.asked == ["host", "other"]
        stage.lookups.answers["host"] = ["10.0.0.1"]
        stage.lookups.now += names.FAILURE_S
        assert await stage.ask() == {"10.0.0.1"}

    with logged("restpipe.daemon.names") as lines:
        run(main())
    assert [line.partition(" (")[0] for line in lines.texts] == [
        "host names cannot be looked up",
        "host names can be looked up again",
    ]


def test_what_was_known_last_is_used_while_the_resolver_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        stage = Stage(monkeypatch, tmp_path)
        stage.lookups.answers["host"] = ["10.0.0.1"]
        assert await stage.ask() == {"10.0.0.1"}
        stage.lookups.answers["host"] = AGAIN
        stage.lookups.now += names.LIFETIME_S
        assert await stage.ask() == {"10.0.0.1"}
        # From then on it is asked for again, but nobody waits for that.
        stage.lookups.now += names.FAILURE_S
        stage.lookups.go.clear()
        assert await stage.ask() == {"10.0.0.1"}
        stage.lookups.answers["host"] = ["10.0.0.2"]
        stage.lookups.go.set()
        await stage.settle()
        assert await stage.ask() == {"10.0.0.2"}
        stage.lookups.answers["host"] = AGAIN
        stage.lookups.now += names.STALE_S
        assert (await stage.ask()).code is Code.UNREACHABLE

    run(main())


def test_that_a_name_had_no_address_is_no_knowledge_to_keep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        stage = Stage(monkeypatch, tmp_path)
        assert await stage.ask() == frozenset()
        stage.lookups.answers["host"] = AGAIN
        stage.lookups.now += names.LIFETIME_S
        assert (await stage.ask()).code is Code.UNREACHABLE

    run(main())


@pytest.mark.parametrize("content", [None, "", "# nameserver 192.0.2.53\nsearch example\n"])
def test_where_no_name_server_is_configured_a_name_that_is_not_found_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    async def main() -> None:
        stage = Stage(monkeypatch, tmp_path)
        stage.servers.unlink()
        if content is not None:
            stage.servers.write_text(content)
        stage.lookups.answers["host"] = AGAIN
        assert await stage.ask() == frozenset()

    run(main())


@pytest.mark.parametrize("name", ["\0", "a\0b", "x" * 300, "a..b", ".", "", "%", "ä" * 70, "127.0.0.1\n"])
def test_no_name_however_odd_leaves_anybody_waiting(name: str) -> None:
    async def main() -> None:
        resolver, told = Resolver(), []
        resolver.resolve(name, ASKER, lambda found, _: told.append(found))
        await until(lambda: told)
        assert resolver._lookups == {}

    run(main())


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(names, "MAX_NAMES", 5)
        lookups = Lookups(monkeypatch)
        lookups.go.set()
        resolver, told = Resolver(), []
        for number in range(20):
            resolver.resolve(f"host{number}", ASKER, lambda found, _: told.append(found))
            await until(lambda number=number: len(told) > number)
        assert len(resolver._known) == 5
        await until(lambda: not resolver._tasks)

    run(main())


def test_lookups_at_once_are_bounded_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        lookups = Lookups(monkeypatch)
        resolver, told = Resolver(), []

        def look_up(name: str, asker: object) -> None:
            resolver.resolve(name, asker, lambda found, _: told.append(found))

        for number in range(100):
            look_up(f"host{number}", "one")
        # It is told that there are too many. Another is not yet told so.
        assert told == [TOO_MANY] * (100 - len(resolver._lookups))
        assert 8 / 9 <= len(resolver._lookups) / names.MAX_LOOKUPS < 1
        refused = len(told)
        look_up("another", "other")
        assert len(told) == refused
        # A name that is being looked up costs nothing more.
        look_up("another", "one")
        assert len(told) == refused
        number = 0
        while len(resolver._lookups) < names.MAX_LOOKUPS:
            number += 1
            look_up(f"more{number}", f"asker{number}")
        look_up("one too many", "new")
        assert told[refused:] == [TOO_MANY]
        lookups.go.set()
        await until(lambda: len(told) == 100 + 2 + number + 1)
        assert resolver._lookups == {}

    run(main())


# Clients that were seen before.


def table(limit: int = 10) -> PeerTable:
    return PeerTable(limit, 5)


def seen(peers: PeerTable, **clients: str) -> PeerTable:
    for name, address in clients.items():
        peer = peers.add(name)
        assert peer is not None
        peer.address = address
    return peers


def test_clients_are_known_after_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    KnownClients(folder).save(seen(table(), alpha="10.0.0.1", beta="::1", never_connected=""))
    peers = table()
    KnownClients(folder).load(peers)
    assert {peer.name: peer.address for peer in peers} == {"alpha": "10.0.0.1", "beta": "::1"}
    assert not any(peer.online for peer in peers)
    assert [entry.name for entry in folder.iterdir()] == ["clients.json"]


def test_no_file_is_no_fault(tmp_path: Path) -> None:
    peers = table()
    with logged("restpipe.daemon.names") as lines:
        KnownClients(tmp_path / "nowhere").load(peers)
    assert len(peers) == 0
    assert lines.texts == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"null", b'"x"', b"\xff\xfe", b'{"a": 1', b"[" * 100_000]
)
def test_a_corrupt_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clients.json").write_bytes(content)
    peers = table()
    known = KnownClients(tmp_path)
    with logged("restpipe.daemon.names") as lines:
        known.load(peers)
    assert len(peers) == 0
    (line,) = lines.texts
    assert str(tmp_path / "clients.json") in line
    known.save(seen(peers, alpha="10.0.0.1"))
    assert json.loads((tmp_path / "clients.json").read_text()) == {"alpha": "10.0.0.1"}


@settings(deadline=None, max_examples=50)
@given(content=st.binary(max_size=60))
def test_no_content_keeps_a_server_from_starting(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("state")
    (folder / "clients.json").write_bytes(content)
    KnownClients(folder).load(table())


def test_more_clients_than_there_is_room_for_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "clients.json").write_text(json.dumps({f"c{number}": "10.0.0.1" for number in range(50)}))
    peers = table(10)
    KnownClients(tmp_path).load(peers)
    assert len(peers) == 10


def test_what_cannot_be_written_is_one_line_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.write_text("a file where the folder should be")
    known = KnownClients(folder)
    peers = seen(table(), alpha="10.0.0.1")
    with logged("restpipe.daemon.names") as lines:
        known.save(peers)
    (line,) = lines.texts
    assert line.startswith(f"state.directory: {folder}/")
    assert "cannot be written" in line
    folder.unlink()
    known.save(peers)
    assert json.loads((folder / "clients.json").read_text()) == {"alpha": "10.0.0.1"}


def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    known = KnownClients(tmp_path)
    peers = seen(table(), alpha="10.0.0.1")
    known.save(peers)
    (tmp_path / "clients.json").unlink()
    known.save(peers)
    assert list(tmp_path.iterdir()) == []


def test_changes_are_written_as_they_come_and_at_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "clients.json"
        known, peers, changed = KnownClients(tmp_path), table(), asyncio.Event()
        task = asyncio.create_task(known.run(peers, changed))
        seen(peers, alpha="10.0.0.1")
        changed.set()
        await until(path.exists)
        seen(peers, beta="10.0.0.2")
        changed.set()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert set(json.loads(path.read_text())) == {"alpha", "beta"}

    run(main())


def test_a_slow_disk_does_not_hold_up_the_loop_and_the_newest_is_written_last(tmp_path: Path) -> None:
    async def main() -> None:
        known, peers, changed = KnownClients(tmp_path), table(), asyncio.Event()
        written, go, begun = known._write, threading.Event(), threading.Event()

        def slowly(told: int, addresses: dict[str, str]) -> None:
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                go.wait()
            written(told, addresses)

        known._write = slowly  # type: ignore[method-assign]
        task = asyncio.create_task(known.run(peers, changed))
        seen(peers, alpha="10.0.0.1")
        changed.set()
        await until(begun.is_set)
        seen(peers, beta="10.0.0.2")
        task.cancel()
        await asyncio.wait((task,))
        go.set()
        await asyncio.get_running_loop().shutdown_default_executor()
        assert set(json.loads((tmp_path / "clients.json").read_text())) == {"alpha", "beta"}

    run(main())
