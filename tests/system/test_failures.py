"""What can go wrong under systemd, each with the ledger: lost 0, twice 0, and all comes back by itself."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.conditions import wait_for
from tests.support.processes import CHECKOUT
from tests.system.journal import cursor, lines_since, since
from tests.system.ledger import CODE, FOLDER, Load, config
from tests.system.machines import PARTS, Machine, unit_of


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("part", PARTS)
def test_killed(ledger: tuple[Machine, Machine], role: str, part: str) -> None:
    server, client = ledger
    machine = server if role == "server" else client
    unit = unit_of(role, part)
    before = machine.main_pid(unit)
    with Load(client, server, kills=1) as load:
        machine.run(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
        wait_for(lambda: machine.main_pid(unit) not in (0, before), f"{unit} to come back", 60)
        load.go_on()


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_daemon_that_stands_still_is_restarted(ledger: tuple[Machine, Machine], role: str) -> None:
    server, client = ledger
    machine = server if role == "server" else client
    unit = f"restpipe-{role}"
    before, start = machine.main_pid(unit), cursor(machine)
    with Load(client, server, kills=1) as load:
        machine.run(f"systemctl kill --kill-whom=main --signal=STOP {unit}")
        wait_for(lambda: machine.main_pid(unit) not in (0, before), f"{unit} to come back", 90)
        load.go_on()
    assert "watchdog" in lines_since(machine, start, unit).lower()


MEMORY_V1 = Path("/sys/fs/cgroup/memory")


@contextlib.contextmanager
def memory_limit(machine: Machine, unit: str, limit: int, pid: int) -> Iterator[None]:
    """A unit may have so much more than it has now, by MemoryMax=; where containers have no say over memory,
    a process in it, by the same kernel's own means from outside."""
    if (current := machine.show(unit, "MemoryCurrent")).isdecimal():
        shipped = machine.show(unit, "MemoryMax")
        machine.run(f"systemctl set-property --runtime {unit} MemoryMax={int(current) + limit}")
        try:
            yield
        finally:
            machine.run(f"systemctl set-property --runtime {unit} MemoryMax={shipped}")
        return
    group = MEMORY_V1 / f"restpipe-{uuid.uuid4().hex[:12]}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit))
        (group / "cgroup.procs").write_text(str(pid_here(machine, pid)))
        yield
    finally:
        wait_for(lambda: _removed(group), f"{group} to be empty", 60)


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        # Whoever has survived moves out.
        for pid in (group / "cgroup.procs").read_text().split():
            (MEMORY_V1 / "cgroup.procs").write_text(pid)
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def pid_here(machine: Machine, pid: int) -> int:
    """The number that a process of the machine has on this host."""
    space = Path(f"/proc/{machine.pid}/ns/pid").readlink()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, StopIteration):
            lines = (folder / "status").read_text().splitlines()
            numbers = next(line for line in lines if line.startswith("NSpid:")).split()
            if numbers[-1] == str(pid) and (folder / "ns/pid").readlink() == space:
                return int(folder.name)
    raise AssertionError(f"{machine.name} has no process {pid}")


def test_memory_limit_of_the_handlers(ledger: tuple[Machine, Machine]) -> None:
    """By code that eats it: the kernel kills the worker, and the event is never answered."""
    server, client = ledger
    unit = "restpipe-server-handlers@1"
    before, start = server.main_pid(unit), cursor(server)
    with Load(client, server) as load, memory_limit(server, unit, 200 << 20, before):
        answer = client.http("client").get("/server/eat", {"Prefer": "wait=4"})
        assert answer.event_code is None, answer
        wait_for(lambda: server.main_pid(unit) not in (0, before), f"{unit} to come back", 60)
        load.go_on()
        load.kills = lines_since(server, start, unit).count("Main process exited")


@pytest.mark.parametrize("part", ["pipe", "web"])
def test_memory_limit_of_the_pipe(ledger: tuple[Machine, Machine], part: str) -> None:
    """By large bodies, of which both keep some; gunicorn starts another worker by itself."""
    server, client = ledger
    unit = unit_of("server", part)
    main, start = server.main_pid(unit), cursor(server)
    victim = main if part == "pipe" else web_workers(server)[0]
    with Load(client, server) as load:
        with memory_limit(server, unit, 4 << 20, victim), large_bodies(server, "/client/web1/swallow"):
            wait_for(lambda: not server.file(f"/proc/{victim}").exists(), f"{unit} to meet its limit", 60)
        load.go_on()
        load.kills = max(1, lines_since(server, start, unit).count("Main process exited"))
    if part == "web":
        assert victim not in web_workers(server)
        assert server.main_pid(unit) == main


def restarts_of(machine: Machine, unit: str) -> int:
    return int(machine.show(unit, "NRestarts"))


def web_workers(machine: Machine) -> list[int]:
    return [int(pid) for pid in machine.run(f"pgrep -P {machine.main_pid('restpipe-server-web')}").split()]


@contextlib.contextmanager
def large_bodies(machine: Machine, target: str) -> Iterator[None]:
    """Many at once, for as long as the block runs."""
    over = threading.Event()

    def put() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                machine.http("server").request("PUT", target, {"Prefer": "wait=5"}, b"x" * (1 << 20))

    threads = [threading.Thread(target=put) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_user_code_that_cannot_be_loaded_is_tried_again_in_peace(ledger: tuple[Machine, Machine]) -> None:
    """What needs it waits, everything else goes on."""
    server, client = ledger
    unit = "restpipe-server-handlers@1"
    pipe, start = server.main_pid("restpipe-server"), cursor(server)
    with Load(client, server) as load:
        server.put("/srv/ledger/ledger.py", "import nowhere_to_be_found\n")
        try:
            server.try_run(f"systemctl restart {unit}")
            wait_for(lambda: restarts_of(server, unit) >= 2, "two restarts", 60)
            wait_for(
                lambda: "nowhere_to_be_found" in server.show(unit, "StatusText"), "a status that says why"
            )
            wait_for(lambda: failing(server) == [unit], "it to be listed as failed", 60)
            load.go_on(30, load.to_client)
            answer = client.http("client").get("/server/entry", {"Prefer": "wait=1"})
            assert (answer.status, answer.json["type"]) == (503, "urn:restpipe:problem:no-handler")
        finally:
            server.put("/srv/ledger/ledger.py", CODE)
        load.go_on()
    assert server.main_pid("restpipe-server") == pipe
    assert min(pauses(server, start, unit, "nowhere_to_be_found")) > 5
    assert not failing(server)


def failing(machine: Machine) -> list[str]:
    """What `systemctl --failed` has of RestPipe's."""
    listed = machine.run("systemctl list-units --failed --plain --no-legend 'restpipe*'").splitlines()
    return [line.split()[0].removeprefix("restpipe-failing@").removesuffix(".service") for line in listed]


def pauses(machine: Machine, start: str, unit: str, words: str) -> list[float]:
    """Seconds between the lines in its journal that say so."""
    said = since(machine, start, f"{unit}.service")
    times = [int(one["__MONOTONIC_TIMESTAMP"]) / 1e6 for one in said if words in one["MESSAGE"]]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def test_user_code_that_ends_its_process_time_and_again(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    unit = "restpipe-server-handlers@1"
    pipe, restarts, start = server.main_pid("restpipe-server"), restarts_of(server, unit), cursor(server)
    with Load(client, server) as load:
        for _ in range(3):
            before = server.main_pid(unit)
            # It is sent again, and ends the next worker too if that comes in time.
            answer = client.http("client").get("/server/die", {"Prefer": "wait=1"})
            assert answer.event_code is None, answer
            wait_for(lambda: reason(server, unit) == ["exit-code", "3"], "a status that says why")
            load.go_on(30, load.to_client)
            wait_for(lambda: server.main_pid(unit) not in (0, before), f"{unit} to come back", 60)  # noqa: B023
        load.go_on()
        load.kills = restarts_of(server, unit) - restarts
    assert server.main_pid("restpipe-server") == pipe
    assert server.show(unit, "ActiveState") == "active"
    assert min(pauses(server, start, unit, "status=3")) > 5


def reason(machine: Machine, unit: str) -> list[str]:
    """Why it does not run, as `systemctl status` has it."""
    return [machine.show(unit, name) for name in ("Result", "ExecMainStatus")]


@pytest.fixture
def small_disk(ledger: tuple[Machine, Machine]) -> Iterator[None]:
    """The handler worker's folder on a disk of its own."""
    server, client = ledger
    unit = "restpipe-server-handlers@1"
    # Lines that fit into a page without a rest: none is written by half.
    server.put("/srv/ledger/ledger.py", CODE.replace("{number}", "{number:<63}"))
    server.run(f"systemctl stop {unit} && mkdir -p {FOLDER} && chown restpipe-handlers: {FOLDER}")
    server.run(f"mount -t tmpfs -o size=256k,mode=755 tmpfs {FOLDER} && chown restpipe-handlers: {FOLDER}")
    server.run(f"systemctl start {unit}")
    client.wait_answer("client", "/server/entry")
    yield
    server.put("/srv/ledger/ledger.py", CODE)
    server.run(f"systemctl stop {unit} && umount {FOLDER} && systemctl start {unit}")
    client.wait_answer("client", "/server/entry")


@pytest.mark.usefixtures("small_disk")
def test_full_disk_of_the_handlers(ledger: tuple[Machine, Machine]) -> None:
    """User code fails by its own fault, and says so; nothing else does, and it goes on when there is room."""
    server, client = ledger
    pid = server.main_pid("restpipe-server-handlers@1")
    with Load(client, server) as load:
        server.try_run(f"dd if=/dev/zero of={FOLDER}/filler bs=4k")
        failed = wait_for(
            lambda: next((line for line in load.failed if "No space left on device" in line), ""),
            f"user code to fail\n{load}",
            60,
        )
        assert "500" in failed
        server.run(f"rm {FOLDER}/filler")
        load.go_on()
    assert server.main_pid("restpipe-server-handlers@1") == pid


def test_full_disk_of_the_journal(ledger: tuple[Machine, Machine]) -> None:
    """And a journal that begins anew: whoever logs does not wait for it."""
    server, client = ledger
    pid = server.main_pid("restpipe-server")
    server.run("mkdir -p /var/log/journal && mount -t tmpfs -o size=8k tmpfs /var/log/journal")
    try:
        server.try_run("dd if=/dev/zero of=/var/log/journal/filler bs=4k")
        server.run("systemctl restart systemd-journald && journalctl --flush", timeout_s=60)
        with Load(client, server) as load:
            for _ in range(3):
                client.restart_daemon("client")
                load.go_on()
    finally:
        server.run("umount -l /var/log/journal && systemctl restart systemd-journald")
    assert server.main_pid("restpipe-server") == pid
    start = cursor(server)
    client.restart_daemon("client")
    wait_for(
        lambda: "web1 at" in lines_since(server, start, "restpipe-server"),
        "the journal to be written again",
    )


CLOCK = """[Service]
Environment=LD_PRELOAD=/usr/lib/restpipe/clock.so CLOCK_BACK=/run/clock-back
"""


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A library that sets clocks back by a year, while a file says so."""
    compiler = shutil.which("cc")
    assert compiler, "there is no C compiler to fake a clock with: apt-get install gcc libc6-dev"
    library = tmp_path / "clock.so"
    source = CHECKOUT / "tests/faults/clock.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_clock_that_jumps_back_by_a_year_and_forth_again(
    ledger: tuple[Machine, Machine], role: str, clock: Path
) -> None:
    """Containers share a clock with this host: it is what their processes are told that jumps."""
    server, client = ledger
    machine = server if role == "server" else client
    parts = ("pipe", "web", "handlers@")
    drop_ins = [f"/etc/systemd/system/{unit_of(role, part)}.service.d/clock.conf" for part in parts]
    shutil.copy(clock, machine.file("/usr/lib/restpipe/clock.so"))
    for path in drop_ins:
        machine.put(path, CLOCK)
    machine.run(f"systemctl daemon-reload && systemctl restart restpipe-{role}")
    try:
        client.wait_answer("client", "/server/entry")
        pid = machine.main_pid(f"restpipe-{role}")
        other = client if role == "server" else server
        with Load(client, server) as load:
            assert abs(years_behind(ledger, role)) < 0.1
            machine.run("touch /run/clock-back")
            assert_faked(machine, role)
            assert years_behind(ledger, role) > 0.9
            load.go_on()
            # A new link, certificates of the future and all.
            other.restart_daemon("client" if role == "server" else "server")
            load.go_on()
            machine.run(f"systemctl restart restpipe-{role}-handlers@1 restpipe-{role}-web")
            load.go_on()
            assert_faked(machine, role)
            assert years_behind(ledger, role) > 0.9
            machine.run("rm /run/clock-back")
            assert abs(years_behind(ledger, role)) < 0.1
            load.go_on()
        assert machine.main_pid(f"restpipe-{role}") == pid
    finally:
        machine.run(f"rm -f /run/clock-back {' '.join(drop_ins)}")
        machine.run(f"systemctl daemon-reload && systemctl restart restpipe-{role}")
    client.wait_answer("client", "/server/entry")


def assert_faked(machine: Machine, role: str) -> None:
    """Each part has the library, and sees the file that it asks for."""
    for part in PARTS:
        pid = machine.main_pid(unit_of(role, part))
        assert "clock.so" in machine.run(f"cat /proc/{pid}/maps"), part
        machine.run(f"nsenter --target={pid} --mount test -e /run/clock-back")


def years_behind(ledger: tuple[Machine, Machine], role: str) -> float:
    """By the clock of a role's handler worker."""
    server, client = ledger
    asked, path = (client.http("client"), "/server/time")
    if role == "client":
        asked, path = (server.http("server"), f"/client/{client.name}/time")
    (told,) = asked.get(path).json.values()
    return float(time.time() - told) / (366 * 24 * 3600)


def test_full_disk(ledger: tuple[Machine, Machine]) -> None:
    """Of the pipe daemons' own folder; the ledger is elsewhere."""
    server, client = ledger
    server.run("systemctl stop restpipe-server && cp -a /var/lib/restpipe/server /root/saved")
    server.run("mount -t tmpfs -o size=256k,mode=700 tmpfs /var/lib/restpipe/server")
    try:
        server.run(
            "cp -a /root/saved/. /var/lib/restpipe/server/ && chown restpipe-pipe: /var/lib/restpipe/server"
        )
        server.try_run("dd if=/dev/zero of=/var/lib/restpipe/server/filler bs=4k")
        server.run("systemctl start restpipe-server")
        with Load(client, server) as load:
            load.go_on()
    finally:
        server.run(
            "systemctl stop restpipe-server; umount /var/lib/restpipe/server; systemctl start restpipe-server"
        )
    client.wait_answer("client", "/server/entry")


SQUATTER = (
    "import socket, time; s = socket.create_server(('0.0.0.0', 1234)); "
    "print('here', flush=True); time.sleep(1000)"
)


def test_a_port_that_is_taken_is_taken_later(ledger: tuple[Machine, Machine]) -> None:
    """Whoever asks meanwhile waits."""
    server, client = ledger
    server.run("systemctl stop restpipe-server")
    start = cursor(server)
    server.run(f'systemd-run --unit=squatter python3 -c "{SQUATTER}"')
    try:
        wait_for(lambda: "here" in lines_since(server, start, "squatter"), "the port to be taken")
        assert server.try_run("systemctl start restpipe-server").returncode != 0
        with Load(client, server, stuck=True) as load:
            wait_for(
                lambda: "cannot listen at 0.0.0.0:1234" in lines_since(server, start, "restpipe-server"),
                "a clear line",
            )
            server.run("systemctl stop squatter")
            load.go_on()
    finally:
        server.try_run("systemctl stop squatter")


@pytest.mark.parametrize("role", ["server", "client"])
def test_reboot(ledger: tuple[Machine, Machine], role: str) -> None:
    server, client = ledger
    with Load(client, server) as load:
        # Callers on a machine that goes down go with it.
        machine, way = (server, load.to_client) if role == "server" else (client, load.to_server)
        with load.closed(way):
            machine.reboot()
        load.go_on()


def test_no_name_and_no_network_at_boot(ledger: tuple[Machine, Machine]) -> None:
    """Machines boot with nothing plugged in, here also with nobody who knows the server's name."""
    server, client = ledger
    hosts = client.run("cat /etc/hosts")
    client.put("/etc/hosts", "127.0.0.1 localhost\n")
    client.reboot()
    try:
        wait_for(
            lambda: "cannot connect to " in client.journal("-b -u restpipe-client"),
            "a line that says so",
        )
        assert client.show("restpipe-client", "StatusText") == "not connected"
        assert client.show("restpipe-client", "ActiveState") == "active"
    finally:
        client.put("/etc/hosts", hosts)
    with Load(client, server) as load:
        load.go_on()
    assert client.show("restpipe-client", "NRestarts") == "0"


def test_an_address_that_comes_after_the_boot(ledger: tuple[Machine, Machine]) -> None:
    """The server is to listen at an address that it has only once it is plugged in."""
    server, client = ledger
    server.put("/etc/restpipe/server.toml", config("server") + '\n[pipe]\nbind = "10.77.0.1"\n')
    try:
        server.run("systemctl restart restpipe-server")
        client.wait_answer("client", "/server/entry")
        server.reboot()
        client.wait_answer("client", "/server/entry")
        assert "cannot listen at 10.77.0.1:1234" in server.journal("-b -u restpipe-server")
    finally:
        server.put("/etc/restpipe/server.toml", config("server"))
        server.run("systemctl restart restpipe-server")
    client.wait_answer("client", "/server/entry")
