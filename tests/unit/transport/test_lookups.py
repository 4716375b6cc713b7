from __future__ import annotations

import asyncio
import errno
import gc
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from restpipe.transport import lookups as module
from restpipe.transport.lookups import MAX_LOOKUPS, Lookups
from tests.unit.transport.kit import logged, run, until

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443))]


class System:
    """The library, but for its resolver, which answers when the test says so."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    def getaddrinfo(self, host: str, port: int, *_: object, **__: object) -> Any:
        self.asked.append((host, port))
        self.go.wait(20)
        if host == "broken":
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return FOUND


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    made = System()
    monkeypatch.setattr(module, "socket", made)
    yield made
    made.go.set()


def test_the_real_system_is_asked() -> None:
    async def main() -> None:
        lookups = Lookups()
        (info, *_) = await lookups.begin("127.0.0.1", 443)
        assert (info[0], info[4]) == (socket.AF_INET, ("127.0.0.1", 443))
        with pytest.raises(ValueError, match="null character"):
            await lookups.begin("127.0.0.1\0b")
        assert len(lookups) == 0

    run(main())


def test_the_same_question_is_asked_once(system: System) -> None:
    async def main() -> None:
        lookups = Lookups()
        first = lookups.begin("host", 443)
        assert lookups.begin("host", 443) is first
        other = lookups.begin("host", 80)
        await until(lambda: len(system.asked) == 2)
        # Nobody waits for them any longer, and they still count.
        await asyncio.wait((first,), timeout=0)
        assert len(lookups) == 2
        system.go.set()
        assert await first == await other == FOUND
        assert len(lookups) == 0

    run(main())


def test_they_are_bounded(system: System) -> None:
    async def main() -> None:
        lookups = Lookups()
        answers = [lookups.begin(f"host{number}") for number in range(MAX_LOOKUPS)]
        with pytest.raises(socket.gaierror, match="too many names are being looked up"):
            await lookups.begin("one too many")
        system.go.set()
        await asyncio.wait(answers)
        assert await lookups.begin("one too many") == FOUND

    run(main())


def test_a_thread_that_cannot_be_started_is_an_error_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        lookups = Lookups()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            with pytest.raises(OSError, match="no thread can be started") as caught:
                await lookups.begin("127.0.0.1")
        assert caught.value.errno == errno.EAGAIN
        assert len(lookups) == 0

    run(main())


def test_a_failure_that_nobody_waits_for_is_not_logged(system: System) -> None:
    async def main() -> None:
        lookups = Lookups()
        lookups.begin("broken")
        system.go.set()
        await until(lambda: len(lookups) == 0)

    with logged("asyncio") as lines:
        run(main())
        gc.collect()
    assert lines.texts == []


def test_the_end_waits_for_none(system: System) -> None:
    async def main() -> None:
        Lookups().begin("silent")
        await until(lambda: system.asked)

    run(main())
    assert not system.go.is_set()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "look-up"]
    system.go.set()
    # Its loop is closed: it has nobody to tell, and does so without a word.
    thread.join(20)
    assert not thread.is_alive()
