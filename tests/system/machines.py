"""Debian machines: root file systems built once a run, containers booted from them, cables between them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.conditions import wait_for
from tests.support.http import Answer, Http
from tests.support.processes import CHECKOUT

SUITES = {"bookworm": 12, "trixie": 13}
TOOLS = {
    "cc": "gcc libc6-dev",
    "git": "git",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}
"""And the packages that they are in."""
RIGHTS = {
    "to make mount namespaces (CAP_SYS_ADMIN)": "unshare --mount true",
    "to mount overlayfs": (
        "unshare --mount --propagation=private sh -euc 'mount -t tmpfs tmpfs /mnt; cd /mnt; mkdir a b c d; "
        "mount -t overlay -o lowerdir=a,upperdir=b,workdir=c,volatile overlay d'"
    ),
    "to make network interfaces (CAP_NET_ADMIN, veth)": (
        "unshare --net ip link add here type veth peer name there"
    ),
}
"""What must be allowed here, and what tries it out without leaving anything."""
INCLUDED = (
    "systemd,systemd-sysv,dbus,sudo,curl,iproute2,procps,passwd,"
    "bash-completion,man-db,python3,init-system-helpers"
)
BESIDE = (
    "firewalld gnutls-bin nginx-light openssl ufw "
    "python3-httpx python3-hypothesis python3-pytest python3-requests"
)
"""What some tests install beside the package, without network like that."""
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root", "TERM": "dumb"}
PARTS = ("pipe", "web", "handlers@1")
BOOT_S = 180.0
COMMAND_S = 120.0


def missing(suites: Iterable[str], images: Path | None) -> str:
    """What keeps these tests from running here, in one line; empty when nothing does.

    `images` is where root file systems may be from an earlier run.
    """
    if os.geteuid() != 0:
        return "system tests need root"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        packages = sorted({TOOLS[tool] for tool in absent})
        return f"system tests need {', '.join(absent)}: apt-get install {' '.join(packages)}"
    for right, attempt in RIGHTS.items():
        if subprocess.run(["sh", "-c", attempt], capture_output=True).returncode != 0:
            return f"system tests need the right {right}"
    if not _may_make_groups():
        return "system tests need the right to make control groups below /sys/fs/cgroup"
    for suite in suites:
        at_hand = images is not None and (images / suite / "root/etc").exists()
        if not at_hand and (reason := _out_of_reach(suite)):
            return reason
    return ""


def _may_make_groups() -> bool:
    try:
        groups = Groups()
    except OSError:
        return False
    groups.kill()
    return bool(_hierarchies())


def _out_of_reach(suite: str) -> str:
    """Asked for in the way that apt goes itself, by a proxy perhaps."""
    with tempfile.TemporaryDirectory() as folder:
        fetch = (
            'mirror=$("$1/packaging/debian-root" "$2") && exec /usr/lib/apt/apt-helper -o Acquire::Retries=0 '
            '-o Acquire::http::Timeout=20 download-file "${mirror%/}/dists/$2/InRelease" "$3/InRelease"'
        )
        command = ["sh", "-c", fetch, "-", str(CHECKOUT), suite, folder]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    said = " ".join(done.stderr.split())
    return f"system tests need a mirror of Debian to make {suite} from: {said}"


def call(*command: str | Path, timeout_s: float = 1200.0, **environ: str) -> str:
    """Runs a command of this machine; what it wrote. AssertionError with all of it if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_s,
        env=os.environ | environ,
    )
    assert done.returncode == 0, f"{shlex.join(map(str, command))}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def have_own_mounts() -> None:
    """From here on this process' mounts are nobody else's, and go with it, however it ends."""
    new_mounts = 0x00020000
    if ctypes.CDLL(None, use_errno=True).unshare(new_mounts) != 0:
        raise OSError(ctypes.get_errno(), "a mount namespace of its own")
    call("mount", "--make-rprivate", "/")


def copy_checkout(of: Path, to: Path) -> Path:
    """A copy of all files that are not ignored, for packaging/build-deb to build."""
    listed = call("git", "-c", f"safe.directory={of}", "-C", of, "ls-files", "-z", "--cached", "--others",
                  "--exclude-standard", "--deduplicate")  # fmt: skip
    for name in filter(None, listed.split("\0")):
        # What is deleted and not committed is listed, too.
        if (of / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(of / name, to / name)
    call("git", "init", "--quiet", to)
    return to


def unit_of(role: str, part: str) -> str:
    """The pipe daemon bears the role's own name."""
    return f"restpipe-{role}" if part == "pipe" else f"restpipe-{role}-{part}"


class Image:
    """A release of Debian with the package beside it, and all that the package needs in apt's cache."""

    def __init__(self, suite: str, folder: Path, checkout: Path) -> None:
        """Builds what is not in `folder` yet, and the package from `checkout` in any case."""
        self.suite = suite
        self.checkout = checkout
        self.version = f"{_upstream(checkout)}~deb{SUITES[suite]}"
        self.folder = folder / suite
        self.root = self.folder / "root"
        self.packages = self.folder / "packages"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._build_root = self.folder / "build"
        # What packages are built in and what they are tried on have most in common: it is fetched once.
        self._downloads = {"RESTPIPE_DOWNLOADS": str(self.folder / "downloads")}
        self.package = self.build(self.version, lintian=True)
        if not (self.root / "etc").exists():
            self._make_root()

    def build(self, version: str, *, lintian: bool = False, checkout: Path | None = None) -> Path:
        """The package in this version. AssertionError for anything that lintian has to say."""
        command = (checkout or self.checkout) / "packaging/build-deb"
        environ = {"RESTPIPE_BUILD_ROOT": str(self._build_root), "LINTIAN": "1" if lintian else ""}
        call(command, self.suite, self.packages, version, **environ, **self._downloads)
        return self.packages / f"restpipe_{version}_all.deb"

    def _make_root(self) -> None:
        draft = self.folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        call(
            self.checkout / "packaging/debian-root", self.suite, draft, "--skip=cleanup/apt",
            f"--include={INCLUDED}",
            f"--customize-hook=copy-in {self.package} /var/cache",
            f'--customize-hook=chroot "$1" apt-get install --quiet --yes --no-install-recommends '
            f"--download-only /var/cache/{self.package.name} {BESIDE}",
            f'--customize-hook=rm "$1/var/cache/{self.package.name}"',
            **self._downloads,
        )  # fmt: skip
        draft.rename(self.root)


def _upstream(checkout: Path) -> str:
    first = (checkout / "packaging/debian/changelog").read_text().splitlines()[0]
    return first.partition("(")[2].partition(")")[0]


class Machine:
    """A container with its own systemd, booted from an image. Leaving the `with` block removes all of it."""

    def __init__(self, name: str, image: Image, folder: Path, hosts: str = "") -> None:
        self.name = name
        self.image = image
        self.folder = folder / name
        self.root = self.folder / "root"
        self.pid = 0
        self._hosts = hosts
        self._groups: Groups | None = None
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._cables: list[Cable] = []

    def __enter__(self) -> Self:
        try:
            for part in ("upper", "work", "root"):
                (self.folder / part).mkdir(parents=True)
            layers = (
                f"lowerdir={self.image.root},upperdir={self.folder}/upper,workdir={self.folder}/work,volatile"
            )
            # Volatile: nothing waits for the disk; what is on it need not outlive this machine.
            call("mount", "-t", "overlay", "-o", layers, "overlay", self.root)
            (self.root / "etc/hostname").write_text(f"{self.name}\n")
            (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{self._hosts}")
            (self.root / "etc/machine-id").write_text("")
            self.boot()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clear()

    def boot(self) -> None:
        """Returns when it has booted."""
        self._groups = Groups()
        nspawn = [
            "systemd-nspawn", "--quiet", "--boot",
            # A name of its own for each boot: what the boot before has left in /run is in nobody's way.
            f"--directory={self.root}", f"--hostname={self.name}", f"--machine={self._groups.name}",
            "--register=no", "--keep-unit", "--private-network", "--link-journal=no",
            "--resolv-conf=off", "--timezone=off", "--console=pipe",
        ]  # fmt: skip
        alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
        with (self.folder / "console").open("ab") as console:
            self._nspawn = subprocess.Popen(
                # Should the tests be killed, the kernel kills the machines: all processes of the namespace.
                ["setpriv", "--pdeathsig", "KILL", "--", *self._groups.inside([*alone, *nspawn])],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={**os.environ, "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE": "1"},
            )
        found = wait_for(lambda: self._find_init() or self._ended(), f"{self.name} to boot", BOOT_S)
        assert not self._ended(), self.console()
        self.pid = int(found)
        wait_for(self._is_up, f"{self.name} to boot\n{self.console()}", BOOT_S)

    def reboot(self) -> None:
        """In good order, as a user does; returns when it has booted again.

        Switched off and on again: that a container's manager boots it again by itself cannot be relied on.
        """
        self.run("systemctl --no-block poweroff")
        wait_for(self._ended, f"{self.name} to go down", BOOT_S)
        self._switch_off()
        self.boot()
        for cable in self._cables:
            cable.plug()

    def console(self) -> str:
        """What it wrote there, for messages."""
        return (self.folder / "console").read_text(errors="replace")

    def _ended(self) -> bool:
        return self._nspawn is None or self._nspawn.poll() is not None

    def _find_init(self) -> int | None:
        assert self._groups is not None
        for pid in self._groups.pids():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
                # In this namespace, in that of systemd-nspawn, and in the machine's own.
                if len(ids) == 3 and ids[-1] == "1":
                    return pid
        return None

    def _is_up(self) -> bool:
        done = self.try_run("systemctl is-system-running")
        return done.stdout.strip() in ("running", "degraded")

    def _switch_off(self) -> None:
        """Nothing runs of it afterwards."""
        self.pid = 0
        if self._groups is not None:
            self._groups.kill()
            self._groups = None
        if self._nspawn is not None:
            self._nspawn.kill()
            self._nspawn.wait()
            self._nspawn = None

    def _clear(self) -> None:
        self._switch_off()
        wait_for(lambda: _unmounted(self.root), f"{self.root} to be free")
        shutil.rmtree(self.folder)

    def try_run(
        self, script: str, *, user: str = "root", timeout_s: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Runs a line of shell on the machine."""
        into = ["nsenter", f"--target={self.pid}", "--all", "--root", "--wd", "--"]
        drop = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        words = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        return subprocess.run(
            [*into, "env", "-i", *words, *drop, "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )

    def run(self, script: str, *, user: str = "root", timeout_s: float = COMMAND_S) -> str:
        """The same, and what it wrote; AssertionError if it fails."""
        done = self.try_run(script, user=user, timeout_s=timeout_s)
        assert done.returncode == 0, f"{self.name}: {script}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def file(self, path: str) -> Path:
        """A file of the machine, as it can be reached from here."""
        return Path(f"/proc/{self.pid}/root{path}")

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        self.run(f"mkdir -p {shlex.quote(str(Path(path).parent))}")
        self.file(path).write_text(text)
        self.file(path).chmod(mode)

    def copy(self, folder: Path, to: str) -> None:
        """A folder from here."""
        shutil.copytree(folder, self.file(to), symlinks=True)

    def install(self, package: Path) -> str:
        """`apt install ./PACKAGE`."""
        shutil.copy(package, self.file("/root") / package.name)
        return self.run(
            f"cd /root && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "
            f"-o Dpkg::Options::=--force-confdef ./{package.name} 2>&1"
        )

    def http(self, role: str) -> Http:
        """The web socket of a role."""
        return Http(self.file(f"/run/restpipe-{role}/web.sock"))

    def wait_answer(self, role: str, target: str, timeout_s: float = 60.0) -> Answer:
        """Ask until a handler answers."""

        def ask() -> Answer | None:
            try:
                answer = self.http(role).get(target, {"Prefer": "wait=2"})
            except OSError:
                return None
            return answer if answer.event_code == 0 else None

        try:
            return wait_for(ask, f"{self.name}: an answer to {target}", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.journal()}") from None

    def journal(self, arguments: str = "") -> str:
        return self.try_run(f"journalctl --no-pager -o short-monotonic -n 200 {arguments}").stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run(f"systemctl show --value --property={name} {shlex.quote(unit)}").strip()

    def parts(self) -> list[str]:
        """The services of RestPipe's that have a process now."""
        units = self.run(
            "systemctl list-units --plain --no-legend --state=active 'restpipe-*.service'"
        ).splitlines()
        return [unit for line in units if self.main_pid(unit := line.split()[0])]

    def main_pid(self, unit: str) -> int:
        return int(self.show(unit, "MainPID"))

    def restart_daemon(self, role: str) -> None:
        """A role's pipe daemon alone, in good order. Returns when another serves."""
        unit = unit_of(role, "pipe")
        before = self.main_pid(unit)
        self.run(f"systemctl kill {unit}")
        wait_for(lambda: self.main_pid(unit) not in (0, before), f"another daemon of the {role}", 60)
        wait_for(lambda: self.show(unit, "ActiveState") == "active", f"the {role} to serve", 60)


def _unmounted(path: Path) -> bool:
    return subprocess.run(["umount", path], capture_output=True).returncode == 0 or not path.is_mount()


class Groups:
    """Control groups of a machine's own: two managers in one would take each other's services for theirs.

    They are also how all of its processes are found, whoever has become their parent.
    """

    def __init__(self) -> None:
        self.name = f"restpipe-{uuid.uuid4().hex[:12]}"
        self._folders = [top / self.name for top in _hierarchies()]
        for folder in self._folders:
            folder.mkdir()

    def inside(self, command: list[str]) -> list[str]:
        """The command, started in them."""
        enter = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
        return ["sh", "-euc", enter, "-", *map(str, self._folders), "--", *command]

    def pids(self) -> set[int]:
        found: set[int] = set()
        for folder in self._folders:
            for procs in folder.rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    found |= set(map(int, procs.read_text().split()))
        return found

    def kill(self) -> None:
        """Ends all that is in them, and removes them."""
        wait_for(self._killed, f"all processes of {self.name} to be gone")

    def _killed(self) -> bool:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for folder in self._folders:
            inner_first = [*sorted(folder.rglob("*/"), key=lambda path: -len(path.parts)), folder]
            with contextlib.suppress(OSError):
                for group in inner_first:
                    group.rmdir() if group.is_dir() else None
        return not any(folder.exists() for folder in self._folders)


def _hierarchies() -> list[Path]:
    """Where systemd keeps its groups: one place, or two where the kernel was started with the old kind."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top]
    return [top / name for name in ("systemd", "unified") if (top / name / "cgroup.procs").exists()]


class Cable:
    """A wire between two machines, each with an address."""

    def __init__(self, ends: Mapping[Machine, str]) -> None:
        self._ends = dict(ends)
        for machine in ends:
            machine._cables.append(self)
        self.plug()

    def plug(self) -> None:
        """Again after a reboot, which takes an end with it, and some time later the other."""
        names = [f"rp{uuid.uuid4().hex[:8]}{side}" for side in "ab"]
        for machine in self._ends:
            machine.run(
                "! ip link show cable0 >/dev/null 2>&1 || ip link delete cable0 || ! ip link show cable0"
            )
        call("ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for name, (machine, address) in zip(names, self._ends.items(), strict=True):
            call("ip", "link", "set", name, "netns", str(machine.pid), "name", "cable0")
            machine.run(f"ip address add {address}/24 dev cable0; ip link set cable0 up; ip link set lo up")


@contextlib.contextmanager
def booted(image: Image, folder: Path, *names: str) -> Iterator[list[Machine]]:
    """Machines on one wire (one or two), which know each other's names; the first is 10.77.0.1."""
    addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
    hosts = "".join(f"{address} {name}.example.test {name}\n" for name, address in addresses.items())
    with contextlib.ExitStack() as stack:
        machines = [stack.enter_context(Machine(name, image, folder, hosts)) for name in names]
        if len(machines) == 2:
            Cable({machine: addresses[machine.name] for machine in machines})
        yield machines
