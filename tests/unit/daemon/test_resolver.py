from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from restpipe.daemon import resolver as module
from restpipe.daemon.resolver import Resolver
from restpipe.errors import Code, Delivered, Reset
from restpipe.transport import lookups as system
from tests.unit.transport.kit import logged, run, until

ASKER = "a web worker"
TOO_MANY = Reset(Code.OVERLOADED, "too many names are being looked up", Delivered.NO)


class Lookups:
    """In place of the system's: answers when the test says so. The loop's clock is the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}
        self.go = asyncio.Event()
        self.now = 1000.0
        loop = asyncio.get_running_loop()
        lookups = self

        class Loop:
            """The running loop, but for its clock."""

            def __getattr__(self, name: str) -> Any:
                return getattr(loop, name)

            def time(self) -> float:
                return lookups.now

        class Asyncio:
            def __getattr__(self, name: str) -> Any:
                return getattr(asyncio, name)

            def get_running_loop(self) -> Loop:
                return Loop()

        monkeypatch.setattr(module, "asyncio", Asyncio())
        monkeypatch.setattr(module, "Lookups", lambda: self)

    def begin(self, host: str) -> asyncio.Future[Any]:
        self.asked.append(host)
        return asyncio.create_task(self._answer(host))

    async def _answer(self, host: str) -> Any:
        await self.go.wait()
        answer = self.answers.get(host, [])
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answer]


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
        lookups.now += module.LIFETIME_S
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
        monkeypatch.setattr(module, "RESOLVER_FILE", self.servers)

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
    OSError(errno.EAGAIN, "no thread can be started for it"),
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
        stage.lookups.now += module.FAILURE_S
        assert await stage.ask() == {"10.0.0.1"}

    run(main())


def test_that_names_cannot_be_looked_up_is_told_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        stage = Stage(monkeypatch, tmp_path)
        stage.lookups.answers |= {"broken": AGAIN, "good": ["10.0.0.1"]}
        for _ in range(5):
            assert (await stage.ask("broken")).code is Code.UNREACHABLE
            assert await stage.ask("good") == {"10.0.0.1"}
            stage.lookups.now += module.LIFETIME_S / 2
            stage.resolver._known.clear()

    with logged("restpipe.daemon.resolver") as lines:
        run(main())
    told = "the host name 'broken' cannot be looked up: Temporary failure in name resolution; "
    warned = lines.at_least(logging.WARNING)
    assert [line.startswith(told) for line in warned] == [True, True]


def test_a_look_up_counts_until_the_system_has_answered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        monkeypatch.setattr(module, "TIMEOUT_S", 0.01)
        stage = Stage(monkeypatch, tmp_path)
        stage.lookups.go.clear()
        stage.lookups.answers["host"] = ["10.0.0.1"]
        for _ in range(3):
            # Nobody but the first waits for it, and it is not asked for again.
            told = await stage.ask()
            assert (told.code, told.delivered) == (Code.UNREACHABLE, Delivered.NO)
            assert "no answer within" in told.detail
            stage.lookups.now += module.LIFETIME_S
        assert list(stage.resolver._lookups) == stage.lookups.asked == ["host"]
        stage.lookups.go.set()
        await stage.settle()
        assert stage.resolver._lookups == {}
        assert await stage.ask() == {"10.0.0.1"}
        assert stage.lookups.asked == ["host"]

    run(main())


def test_names_whose_servers_are_silent_keep_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    class Socket:
        """The library, but for its resolver."""

        def __getattr__(self, name: str) -> Any:
            return getattr(socket, name)

        def getaddrinfo(self, host: str, *_: object, **__: object) -> Any:
            if host.startswith("silent"):
                released.wait(20)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0))]

    async def main() -> None:
        resolver, told = Resolver(), []
        for number in range(50):
            resolver.resolve(f"silent{number}", "one", lambda *_: None)
        resolver.resolve("good", "other", lambda found, _: told.append(found))
        await until(lambda: told)
        assert told == [frozenset({"10.0.0.1"})]
        assert not released.is_set()
        released.set()
        await until(lambda: not resolver._tasks)

    monkeypatch.setattr(system, "socket", Socket())
    try:
        run(main())
    finally:
        released.set()


def test_what_was_known_last_is_used_while_the_resolver_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        stage = Stage(monkeypatch, tmp_path)
        stage.lookups.answers["host"] = ["10.0.0.1"]
        assert await stage.ask() == {"10.0.0.1"}
        stage.lookups.answers["host"] = AGAIN
        stage.lookups.now += module.LIFETIME_S
        assert await stage.ask() == {"10.0.0.1"}
        # From then on it is asked for again, but nobody waits for that.
        stage.lookups.now += module.FAILURE_S
        stage.lookups.go.clear()
        assert await stage.ask() == {"10.0.0.1"}
        stage.lookups.answers["host"] = ["10.0.0.2"]
        stage.lookups.go.set()
        await stage.settle()
        assert await stage.ask() == {"10.0.0.2"}
        stage.lookups.answers["host"] = AGAIN
        stage.lookups.now += module.STALE_S
        assert (await stage.ask()).code is Code.UNREACHABLE

    run(main())


def test_that_a_name_had_no_address_is_no_knowledge_to_keep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        stage = Stage(monkeypatch, tmp_path)
        assert await stage.ask() == frozenset()
        stage.lookups.answers["host"] = AGAIN
        stage.lookups.now += module.LIFETIME_S
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


def test_no_server_is_asked_for_a_name_that_is_never_a_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        lookups = Lookups(monkeypatch)
        found: list[object] = []
        for name in ("nobody.invalid", "nobody.invalid."):
            Resolver().resolve(name, ASKER, lambda addresses, _: found.append(addresses))
        assert found == [frozenset(), frozenset()]
        assert lookups.asked == []

    run(main())


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(module, "MAX_NAMES", 5)
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
        assert 8 / 9 <= len(resolver._lookups) / module.MAX_LOOKUPS < 1
        refused = len(told)
        look_up("another", "other")
        assert len(told) == refused
        # A name that is being looked up costs nothing more.
        look_up("another", "one")
        assert len(told) == refused
        number = 0
        while len(resolver._lookups) < module.MAX_LOOKUPS:
            number += 1
            look_up(f"more{number}", f"asker{number}")
        look_up("one too many", "new")
        assert told[refused:] == [TOO_MANY]
        lookups.go.set()
        await until(lambda: len(told) == 100 + 2 + number + 1)
        assert resolver._lookups == {}

    run(main())
