"""The foreground parent, with small scripts in the place of the three processes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

import restpipe
from restpipe.errors import ConfigError
from restpipe.host import logs, loop
from restpipe.host.config import Config, Role, load
from restpipe.run import Job, ProcessTree, jobs, main
from restpipe.transport.listener import listening_socket
from restpipe.transport.unix import unix_socket
from tests.support.nodes import free_port

PATIENCE_S = 30.0

READY = "from restpipe.host.notify import Notifier; Notifier().ready()"
STAY = f"{READY}; import signal; signal.pause()"
REFUSE = f"import sys; sys.exit({os.EX_CONFIG})"


class Journal:
    """Children write their process ids in it, one a line and a start, and the tests wait for lines."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._path = path

    def job(self, name: str, script: str, *, essential: bool = True) -> Job:
        note = (
            f"import os; f = open({str(self._path)!r}, 'a'); print({name!r}, os.getpid(), file=f, flush=True)"
        )
        return Job(name, [sys.executable, "-c", f"{note}; f.close()\n{textwrap.dedent(script)}"], essential)

    def starts(self, name: str) -> list[int]:
        lines = [line.split() for line in self._path.read_text().splitlines()]
        return [int(pid) for started, pid in lines if started == name]

    async def started(self, name: str, times: int) -> int:
        """Waits until it was started so often; the newest process id."""
        await until(lambda: len(self.starts(name)) >= times)
        return self.starts(name)[-1]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - files and processes wake nobody
            await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    """A zombie that nobody has waited for yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


class Running:
    """A tree under way."""

    def __init__(self, jobs: list[Job], patience_s: float) -> None:
        self.up = asyncio.Event()
        self.ups = 0
        self.tree = ProcessTree(jobs, patience_s, self._on_up)
        self.task = asyncio.create_task(self.tree.run())

    def _on_up(self) -> None:
        self.ups += 1
        self.up.set()


@contextlib.asynccontextmanager
async def running(*jobs: Job, patience_s: float = PATIENCE_S) -> AsyncIterator[Running]:
    """Cancelled at the end, as a signal does; all of it must then be over."""
    tree = Running(list(jobs), patience_s)
    try:
        yield tree
    finally:
        tree.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tree.task


def test_up_when_all_are_ready_and_gone_at_the_end(journal: Journal) -> None:
    async def scenario() -> None:
        async with running(journal.job("a", STAY), journal.job("b", STAY)) as tree:
            await tree.up.wait()
            pids = journal.starts("a") + journal.starts("b")
            assert [alive(pid) for pid in pids] == [True, True]
        assert [alive(pid) for pid in pids] == [False, False]
        assert (tree.tree.status, tree.ups) == (0, 1)

    asyncio.run(scenario())


def test_not_up_before_all_are_ready(journal: Journal, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    async def scenario() -> None:
        waiting = f"open({str(gate)!r}).read()\n{STAY}"
        async with running(journal.job("a", STAY), journal.job("late", waiting)) as tree:
            await journal.started("late", 1)
            assert not tree.up.is_set()
            with await asyncio.to_thread(gate.open, "w"):
                pass
            await tree.up.wait()

    asyncio.run(scenario())


def test_a_child_that_dies_is_started_again(journal: Journal) -> None:
    async def scenario() -> None:
        async with running(journal.job("a", STAY), journal.job("b", STAY)) as tree:
            await tree.up.wait()
            os.kill(await journal.started("a", 1), signal.SIGKILL)
            assert alive(await journal.started("a", 2))
            assert len(journal.starts("b")) == 1
            assert tree.ups == 1

    asyncio.run(scenario())


def test_what_it_started_itself_goes_with_it(journal: Journal) -> None:
    script = f"""
        import subprocess, sys
        note = [sys.executable, *{journal.job("grandchild", "import signal; signal.pause()").command[1:]!r}]
        subprocess.Popen(note)
        import signal
        signal.pause()
    """

    async def scenario() -> None:
        async with running(journal.job("a", script)):
            grandchild = await journal.started("grandchild", 1)
            os.kill(journal.starts("a")[0], signal.SIGKILL)
            await until(lambda: not alive(grandchild))
            await journal.started("a", 2)

    asyncio.run(scenario())


def test_an_essential_child_that_refuses_its_configuration_ends_all(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with running(journal.job("a", STAY), journal.job("b", REFUSE)) as tree:
            await tree.task
        assert tree.tree.status == os.EX_CONFIG
        assert not any(map(alive, journal.starts("a")))
        assert len(journal.starts("b")) == 1
        assert caplog.messages == ["b cannot be run with this configuration: all ends"]

    asyncio.run(scenario())


def test_a_handler_worker_that_cannot_start_is_tried_again(journal: Journal) -> None:
    async def scenario() -> None:
        async with running(journal.job("a", STAY), journal.job("b", REFUSE, essential=False)) as tree:
            await journal.started("b", 3)
            assert not tree.task.done()
            assert alive(journal.starts("a")[0])
            assert not tree.up.is_set()

    asyncio.run(scenario())


def test_configuration_that_breaks_later_does_not_end_what_runs(journal: Journal, tmp_path: Path) -> None:
    second = f"""
        import os, sys
        if os.path.exists({str(tmp_path / "broken")!r}):
            sys.exit(os.EX_CONFIG)
        {STAY}
    """

    async def scenario() -> None:
        async with running(journal.job("a", second)) as tree:
            await tree.up.wait()
            (tmp_path / "broken").touch()
            os.kill(journal.starts("a")[0], signal.SIGKILL)
            await journal.started("a", 3)
            assert not tree.task.done()

    asyncio.run(scenario())


def test_one_that_ignores_sigterm_is_killed(journal: Journal) -> None:
    async def scenario() -> None:
        deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{STAY}"
        async with running(journal.job("a", deaf), patience_s=0.05) as tree:
            await tree.up.wait()
            pid = journal.starts("a")[0]
        assert not alive(pid)

    asyncio.run(scenario())


def test_one_that_needs_time_to_end_gets_it(journal: Journal, tmp_path: Path) -> None:
    slow = f"""
        import signal, sys
        def stop(*_):
            open({str(tmp_path / "clean")!r}, "w").close()
            sys.exit()
        signal.signal(signal.SIGTERM, stop)
        {STAY}
    """

    async def scenario() -> None:
        async with running(journal.job("a", slow)) as tree:
            await tree.up.wait()

    asyncio.run(scenario())
    assert (tmp_path / "clean").exists()


def test_stopping_when_a_child_has_just_ended_by_itself(journal: Journal, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    async def scenario() -> None:
        async with running(journal.job("a", f"open({str(gate)!r}).read()")) as tree:
            pid = await journal.started("a", 1)
            gate.open("w").close()
            while alive(pid):  # without a turn of the loop: nobody but the kernel knows yet
                pass
        assert tree.task.cancelled()

    asyncio.run(scenario())


@pytest.mark.parametrize(("status", "words"), [(3, "status 3"), (-9, "signal 9, Killed")])
def test_how_it_ended_is_said(
    journal: Journal, caplog: pytest.LogCaptureFixture, status: int, words: str
) -> None:
    end = f"import os; os.kill(os.getpid(), {-status})" if status < 0 else f"import sys; sys.exit({status})"

    async def scenario() -> None:
        async with running(journal.job("a", end)):
            await journal.started("a", 2)

    asyncio.run(scenario())
    assert f"a ended ({words}); starting it again in 0.1 s" in caplog.text


def test_a_command_that_does_not_exist_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with running(Job("a", [str(tmp_path / "none")])):
            await until(lambda: caplog.text.count("a cannot be started") >= 2)

    asyncio.run(scenario())


# --- the whole command -----------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "f.toml").write_text(f"[handlers]\nworkers = 2\n[pipe]\nport = {free_port()}")
    return load(Role.SERVER, {"RP_RUNTIME_DIR": str(tmp_path / "sockets")}, tmp_path / "f.toml")


def test_the_commands_are_those_of_systemd(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    found = jobs(config, ("--config", "f.toml"))
    assert [job.name for job in found] == ["pipe", "web", "handlers 1", "handlers 2"]
    assert [job.essential for job in found] == [True, True, False, False]
    common = ["server", "--config", "f.toml", "--parent", str(os.getpid())]
    assert found[0].command == [sys.executable, "-P", "-m", "restpipe", "pipe", *common]
    assert found[3].command == [sys.executable, "-P", "-m", "restpipe", "handlers", *common]


def test_a_checkout_finds_itself(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(restpipe.__file__).parent.parent)
    assert jobs(config)[0].command[1:3] == ["-m", "restpipe"]


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "configure", lambda log, *, process: None)
    (tmp_path / "file").touch()
    config = load(Role.SERVER, {"RP_RUNTIME_DIR": str(tmp_path / "file" / "x")}, tmp_path / "file")
    with pytest.raises(
        ConfigError, match=r"^sockets\.directory: .*/file/x: cannot be made: Not a directory$"
    ):
        main(config)


def test_a_folder_that_an_ordinary_user_may_not_make(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(logs, "configure", lambda log, *, process: None)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError, match="Permission denied; XDG_RUNTIME_DIR or RP_SOCKETS_DIRECTORY"):
        main(config)


@pytest.mark.parametrize("name", ["events", "handlers", "web"])
def test_a_second_one_ends_before_it_starts_anything(
    config: Config, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(logs, "configure", lambda log, *, process: None)
    monkeypatch.setattr("restpipe.run.jobs", lambda *_: pytest.fail("children were to be started"))
    path = getattr(config.sockets, name)
    with (
        unix_socket(path, 0o600),
        pytest.raises(
            ConfigError, match=f"^a server runs here already, another process serves {path}: end it first, "
        ),
    ):
        main(config)
    path.unlink()


def test_a_socket_that_cannot_be_asked(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(logs, "configure", lambda log, *, process: None)
    monkeypatch.setattr("restpipe.run.is_served", refuse)
    with pytest.raises(ConfigError, match=r"^sockets\.directory: .*/events\.sock: Permission denied$"):
        main(config)


def test_a_port_that_is_taken_ends_it_before_it_starts_anything(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda log, *, process: None)
    monkeypatch.setattr("restpipe.run.jobs", lambda *_: pytest.fail("children were to be started"))
    port = config.pipe.port
    expected = rf"^pipe\.bind, pipe\.port: cannot listen at .*:{port}: Address already in use$"
    with (
        listening_socket("0.0.0.0", port),  # noqa: S104
        pytest.raises(ConfigError, match=expected),
    ):
        main(config)


def test_leftover_sockets_are_no_second_one(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "configure", lambda log, *, process: None)
    monkeypatch.setattr("restpipe.run.jobs", lambda *_: [Job("a", ["true"])])
    monkeypatch.setattr(loop, "run", lambda main: main.close())
    unix_socket(config.sockets.events, 0o600).close()
    assert main(config) == 0
    config.sockets.events.unlink()


PARENT = """
import sys
from pathlib import Path
from restpipe import run
from restpipe.host.config import Role, load
child = '''
import sys
from restpipe.host.parent import die_with
die_with(int(sys.argv[1]))
{stay}
'''
run.jobs = lambda config, passthrough: [
    run.Job(name, [sys.executable, "-c", child, str(run.os.getpid())]) for name in ("pipe", "web")
]
sys.exit(run.main(load(Role.CLIENT, {{"RP_RUNTIME_DIR": {folder!r}}}, Path({file!r}))))
"""


@pytest.fixture
def foreground(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`restpipe run client`, up, with children that hold its stderr open."""
    (tmp_path / "f").touch()
    text = PARENT.format(stay=STAY, folder=str(tmp_path / "sockets"), file=str(tmp_path / "f"))
    with subprocess.Popen([sys.executable, "-c", text], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_it_says_how_to_try_it_and_ends_on_signals(foreground: subprocess.Popen[str], tmp_path: Path) -> None:
    assert foreground.stderr
    line = foreground.stderr.readline()
    assert (
        "client is up, and dials localhost:1234; when it is connected, try: "
        f"curl --unix-socket {tmp_path}/sockets/web.sock http://localhost/server/time" in line
    )
    foreground.send_signal(signal.SIGINT)
    assert foreground.stderr.read() == ""  # the end of it means that the children have ended too
    assert foreground.wait() == 0
    assert (tmp_path / "sockets").stat().st_mode & 0o027 == 0


def test_no_child_outlives_a_parent_that_is_killed(foreground: subprocess.Popen[str]) -> None:
    assert foreground.stderr
    foreground.stderr.readline()
    foreground.send_signal(signal.SIGKILL)
    assert foreground.stderr.read() == ""
