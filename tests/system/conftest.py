"""Images for the session, a pair of machines for each."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT
from tests.system.inside import Inside, set_up
from tests.system.ledger import keep_ledgers
from tests.system.machines import SUITES, Image, Machine, booted, copy_checkout, have_own_mounts, missing
from tests.system.walkthrough import join

IMAGES = os.environ.get("RESTPIPE_SYSTEM_CACHE")
"""Names a folder whose images outlive the run, for whoever works on these tests."""
WANTED = os.environ.get("RESTPIPE_SYSTEM_SUITES", " ".join(SUITES)).split()


def pytest_collection_finish(session: pytest.Session) -> None:
    if not any(Path(__file__).parent in item.path.parents for item in session.items):
        return
    if reason := missing(WANTED, Path(IMAGES) if IMAGES else None):
        # Not skipped: who asks for these tests must not take it for a pass.
        raise pytest.UsageError(reason)
    have_own_mounts()
    # Like SIGINT, it ends the run in good order: machines and folders are cleared.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))


@pytest.fixture(scope="session")
def work() -> Iterator[Path]:
    # On a disk, and where no mount option is in the way of set-user-id programs and sockets.
    with tempfile.TemporaryDirectory(prefix="restpipe-system-", dir="/var/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def checkout(work: Path) -> Path:
    """All packages are built from the same files, whatever is edited meanwhile."""
    return copy_checkout(CHECKOUT, work / "checkout")


@pytest.fixture(scope="session", params=WANTED)
def image(request: pytest.FixtureRequest, work: Path, checkout: Path) -> Image:
    return Image(request.param, Path(IMAGES or work / "images"), checkout)


@pytest.fixture(scope="session")
def machines(image: Image, work: Path) -> Iterator[list[Machine]]:
    """`pipe`, a server, and `web1`, a client: two machines with nothing on them yet."""
    with tempfile.TemporaryDirectory(dir=work) as folder, booted(image, Path(folder), "pipe", "web1") as both:
        yield both


@pytest.fixture(scope="session")
def joined(machines: list[Machine]) -> tuple[Machine, Machine]:
    """The same after the walkthrough."""
    server, client = machines
    join(server, client)
    return server, client


@pytest.fixture(scope="session")
def ledger(joined: tuple[Machine, Machine]) -> tuple[Machine, Machine]:
    """The same with a ledger kept on both."""
    keep_ledgers(*joined)
    return joined


@pytest.fixture(scope="module")
def installed(image: Image, work: Path) -> Iterator[Machine]:
    """One machine with the package, where nothing has been started yet."""
    with tempfile.TemporaryDirectory(dir=work) as folder, booted(image, Path(folder), "server") as [machine]:
        machine.run("ip link set lo up")
        machine.install(image.package)
        yield machine


@pytest.fixture(scope="session")
def inside(image: Image, work: Path) -> Iterator[Inside]:
    """One machine with both roles, which serve what the integration tests ask for."""
    with tempfile.TemporaryDirectory(dir=work) as folder, booted(image, Path(folder), "server") as [machine]:
        machine.run("ip link set lo up")
        yield set_up(machine)
