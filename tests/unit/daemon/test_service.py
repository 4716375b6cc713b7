from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from restpipe.daemon import service
from restpipe.errors import ConfigError, RestPipeError
from restpipe.protocol.schema_pb2 import ROLE_WEB
from restpipe.transport.daemon_link import DaemonLink
from restpipe.transport.unix import unix_socket
from tests.unit.daemon.roles import Pair
from tests.unit.transport.kit import logged, run, until


class Notified:
    """In place of the service manager."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def status(self, text: str) -> None:
        self.told.append(text)


async def greet(path: Path) -> None:
    """As a web worker does."""
    link = DaemonLink(str(path), ROLE_WEB)
    running = asyncio.create_task(link.run())
    await link.wait_connected()
    await link.drain(1.0)
    running.cancel()
    await asyncio.wait((running,))


def test_a_door_is_open_while_the_body_runs(tmp_path: Path, short_path: Path) -> None:
    async def main() -> None:
        daemon, path = Pair(tmp_path).client(), short_path / "events.sock"
        async with service._door(daemon.events, path, 0o660, None):
            await greet(path)
        assert not path.exists()

    run(main())


def test_the_file_of_a_socket_that_was_inherited_stays(tmp_path: Path, short_path: Path) -> None:
    async def main() -> None:
        daemon, path = Pair(tmp_path).client(), short_path / "events.sock"
        async with service._door(daemon.events, path, 0o660, unix_socket(path, 0o660)):
            await greet(path)
        assert path.exists()

    run(main())


def test_a_door_that_cannot_be_opened_is_one_clear_line(tmp_path: Path) -> None:
    async def main() -> None:
        daemon, path = Pair(tmp_path).client(), tmp_path / ("x" * 200)
        with pytest.raises(RestPipeError, match=f"cannot listen at {path}: "):
            async with service._door(daemon.events, path, 0o660, None):
                pytest.fail("it is open")

    run(main())


def test_a_task_that_ends_by_a_fault_brings_the_daemon_down() -> None:
    async def main() -> None:
        async def fail() -> None:
            raise RestPipeError("broken")

        with pytest.raises(ExceptionGroup) as caught:
            async with service._background(asyncio.sleep(3600), fail()):
                await asyncio.sleep(3600)
        assert [str(error) for error in caught.value.exceptions] == ["broken"]

    run(main())


def test_the_status_is_told_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(service, "STATUS_EVERY_S", 0.001)
        daemon, notifier = Pair(tmp_path).client(), Notified()
        async with service._background(service._report(daemon, notifier)):  # type: ignore[arg-type]
            await until(lambda: notifier.told)
            await asyncio.sleep(0.01)
        assert notifier.told == ["not connected"]

    run(main())


def test_a_hangup_reloads_and_a_configuration_that_cannot_be_used_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        daemon, config = pair.client(), pair.client_config()
        fresh = pair.client_config(max_waiting=7)
        answers: list[object] = [(fresh, ["pipe.port"]), ConfigError("nonsense")]

        def renewed(_: object) -> object:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(service, "renewed", renewed)
        service._reload_on_hangup(daemon, config)
        with logged("restpipe.daemon.service") as lines:
            for count in (1, 0):
                os.kill(os.getpid(), signal.SIGHUP)
                await until(lambda count=count: len(answers) == count)
        assert daemon.pipe is fresh.pipe
        assert lines.texts == [
            "changed, but in force only after a restart: pipe.port",
            "configuration, certificates and revocation lists reloaded",
            "not reloaded, going on as before: nonsense",
        ]
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        daemon.deadlines.close()

    run(main())


def test_silent_callers_at_a_door_are_given_up() -> None:
    made = service._local_connection(100.0)
    assert (made.dead_s, made.next_tick) == (service.LOCAL_DEAD_S, 100.0 + service.LOCAL_HEARTBEAT_S)
