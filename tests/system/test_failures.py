"""What can go wrong under systemd, each with the ledger: lost 0, twice 0, and all comes back by itself."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.conditions import wait_for
from tests.support.processes import CHECKOUT
from tests.system.ledger import CODE, CONFIG, FOLDER, Load, keep_ledger
from tests.system.machines import Machine


@pytest.fixture(scope="module")
def ledger(joined: tuple[Machine, Machine]) -> tuple[Machine, Machine]:
    server, client = joined
    keep_ledger(server)
    client.wait_answer("client", "/server/entry")
    return server, client


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("part", ["pipe", "web", "handlers@1"])
def test_killed(ledger: tuple[Machine, Machine], role: str, part: str) -> None:
    server, client = ledger
    machine = server if role == "server" else client
    unit = f"restpipe-{role}-{part}"
    before = machine.main_pid(unit)
    with Load(client, server) as load:
        machine.run(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
        wait_for(lambda: machine.main_pid(unit) not in (0, before), f"{unit} to come back", 60)
        load.go_on()


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_daemon_that_stands_still_is_restarted(ledger: tuple[Machine, Machine], role: str) -> None:
    server, client = ledger
    machine = server if role == "server" else client
    unit = f"restpipe-{role}-pipe"
    before = machine.main_pid(unit)
    with Load(client, server) as load:
        machine.run(f"systemctl kill --kill-whom=main --signal=STOP {unit}")
        wait_for(lambda: machine.main_pid(unit) not in (0, before), f"{unit} to come back", 90)
        load.go_on()
    assert "watchdog" in machine.journal(f"-u {unit}").lower()


MEMORY_V1 = Path("/sys/fs/cgroup/memory")


@contextlib.contextmanager
def memory_limit(machine: Machine, unit: str, limit: int) -> Iterator[None]:
    """MemoryMax= for what runs in a unit now; where containers have no say over memory, by the same kernel's
    own means from outside."""
    if machine.show(unit, "MemoryCurrent").isdecimal():
        machine.run(f"systemctl set-property --runtime {unit} MemoryMax={limit}")
        try:
            yield
        finally:
            machine.run(f"systemctl set-property --runtime {unit} MemoryMax=2G")
        return
    group = MEMORY_V1 / f"restpipe-{uuid.uuid4().hex[:12]}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit))
        (group / "cgroup.procs").write_text(str(pid_here(machine, machine.main_pid(unit))))
        yield
    finally:
        wait_for(lambda: _removed(group), f"{group} to be empty", 60)


def _removed(group: Path) -> bool:
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


def test_memory_limit(ledger: tuple[Machine, Machine]) -> None:
    """Of the handler worker, by code that eats it: the kernel kills it, and the event is never answered."""
    server, client = ledger
    unit = "restpipe-server-handlers@1"
    before = server.main_pid(unit)
    with Load(client, server, threads=2) as load, memory_limit(server, unit, 200 << 20):
        answer = client.http("client").get("/server/eat", {"Prefer": "wait=4"})
        assert answer.event_code is None, answer
        wait_for(lambda: server.main_pid(unit) not in (0, before), f"{unit} to come back", 60)
        load.go_on()


def test_user_code_that_fails_in_a_loop(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    unit = "restpipe-server-handlers@1"
    pipe = server.main_pid("restpipe-server-pipe")
    server.put("/srv/ledger/ledger.py", "import nowhere_to_be_found\n")
    try:
        server.try_run(f"systemctl restart {unit}")
        wait_for(lambda: int(server.show(unit, "NRestarts")) >= 2, "two restarts", 60)
        wait_for(lambda: "nowhere_to_be_found" in server.show(unit, "StatusText"), "a status that says why")
        answer = client.http("client").get("/server/entry", {"Prefer": "wait=1"})
        assert (answer.status, answer.json["type"]) == (503, "urn:restpipe:problem:no-handler")
        assert json.loads(server.http("server").get("/client/web1/time").body)
        assert server.main_pid("restpipe-server-pipe") == pipe
    finally:
        server.put("/srv/ledger/ledger.py", CODE)
    client.wait_answer("client", "/server/entry")


def test_user_code_that_ends_its_process_time_and_again(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    unit = "restpipe-server-handlers@1"
    pipe = server.main_pid("restpipe-server-pipe")
    with Load(client, server) as load:
        for _ in range(3):
            before = server.main_pid(unit)
            # It is sent again, and ends the next worker too if that comes in time.
            answer = client.http("client").get("/server/die", {"Prefer": "wait=1"})
            assert answer.event_code is None, answer
            wait_for(lambda: server.main_pid(unit) not in (0, before), f"{unit} to come back", 60)  # noqa: B023
        load.go_on()
    assert server.main_pid("restpipe-server-pipe") == pipe
    assert server.show(unit, "ActiveState") == "active"


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
            lambda: next((line for line in load.unknown if "No space left on device" in line), ""),
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
    pid = server.main_pid("restpipe-server-pipe")
    server.run("mkdir -p /var/log/journal && mount -t tmpfs -o size=8k tmpfs /var/log/journal")
    try:
        server.try_run("dd if=/dev/zero of=/var/log/journal/filler bs=4k")
        server.run("systemctl restart systemd-journald && journalctl --flush", timeout_s=60)
        with Load(client, server) as load:
            for _ in range(3):
                client.run("systemctl restart restpipe-client-pipe")
                load.go_on()
    finally:
        server.run("umount -l /var/log/journal && systemctl restart systemd-journald")
    assert server.main_pid("restpipe-server-pipe") == pid
    client.run("systemctl restart restpipe-client-pipe")
    wait_for(
        lambda: "web1 at" in server.journal("-u restpipe-server-pipe"), "the journal to be written again"
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
    drop_ins = [f"/etc/systemd/system/restpipe-{role}-{part}.service.d/clock.conf" for part in parts]
    shutil.copy(clock, machine.file("/usr/lib/restpipe/clock.so"))
    for path in drop_ins:
        machine.put(path, CLOCK)
    machine.run(f"systemctl daemon-reload && systemctl restart restpipe-{role}")
    try:
        client.wait_answer("client", "/server/entry")
        pid = machine.main_pid(f"restpipe-{role}-pipe")
        other = client if role == "server" else server
        with Load(client, server) as load:
            machine.run("touch /run/clock-back")
            load.go_on()
            # A new link, certificates of the future and all.
            other.run(f"systemctl restart restpipe-{'client' if role == 'server' else 'server'}-pipe")
            load.go_on()
            machine.run(f"systemctl restart restpipe-{role}-handlers@1 restpipe-{role}-web")
            load.go_on()
            machine.run("rm /run/clock-back")
            load.go_on()
        assert machine.main_pid(f"restpipe-{role}-pipe") == pid
    finally:
        machine.run(f"rm -f /run/clock-back {' '.join(drop_ins)}")
        machine.run(f"systemctl daemon-reload && systemctl restart restpipe-{role}")
    client.wait_answer("client", "/server/entry")


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


def test_a_port_that_is_taken_is_taken_later(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    server.run("systemctl stop restpipe-server")
    server.run(
        "systemd-run --unit=squatter python3 -c "
        "'import socket,time; s=socket.create_server((\"0.0.0.0\",1234)); time.sleep(1000)'"
    )
    server.run("sleep 1; systemctl start restpipe-server")
    wait_for(
        lambda: "cannot listen at 0.0.0.0:1234" in server.journal("-u restpipe-server-pipe"), "a clear line"
    )
    server.run("systemctl stop squatter")
    client.wait_answer("client", "/server/entry")


def test_reboot(ledger: tuple[Machine, Machine]) -> None:
    server, client = ledger
    with Load(client, server) as load:
        server.reboot()
        load.go_on()
    client.reboot()
    client.wait_answer("client", "/server/entry")
    server.wait_answer("server", "/client/web1/time")


def test_no_name_and_no_network_at_boot(ledger: tuple[Machine, Machine]) -> None:
    """Machines boot with nothing plugged in, here also with nobody who knows the server's name."""
    server, client = ledger
    hosts = client.run("cat /etc/hosts")
    client.put("/etc/hosts", "127.0.0.1 localhost\n")
    client.reboot()
    try:
        wait_for(
            lambda: "cannot connect to " in client.journal("-b -u restpipe-client-pipe"),
            "a line that says so",
        )
        assert client.show("restpipe-client-pipe", "StatusText") == "not connected"
        assert client.show("restpipe-client", "ActiveState") == "active"
    finally:
        client.put("/etc/hosts", hosts)
    with Load(client, server) as load:
        load.go_on()
    assert client.show("restpipe-client-pipe", "NRestarts") == "0"


def test_an_address_that_comes_after_the_boot(ledger: tuple[Machine, Machine]) -> None:
    """The server is to listen at an address that it has only once it is plugged in."""
    server, client = ledger
    server.put("/etc/restpipe/server.toml", CONFIG + '\n[pipe]\nbind = "10.77.0.1"\n')
    try:
        server.run("systemctl restart restpipe-server")
        client.wait_answer("client", "/server/entry")
        server.reboot()
        client.wait_answer("client", "/server/entry")
        assert "cannot listen at 10.77.0.1:1234" in server.journal("-b -u restpipe-server-pipe")
    finally:
        server.put("/etc/restpipe/server.toml", CONFIG)
        server.run("systemctl restart restpipe-server")
    client.wait_answer("client", "/server/entry")
