"""A wall clock that is set back by a year under load: nothing but the time of day depends on it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.scene import Scene
from tests.faults.test_links import all_answered
from tests.support.conditions import wait_for

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="there is no C compiler to fake a clock with"
)

MakeScene = Callable[..., Scene]
SOURCE = Path(__file__).with_name("clock.c")
PRINT_YEAR = "import time; print(time.gmtime().tm_year)"


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_clock_set_back_by_a_year_is_not_even_noticed(scene: MakeScene, folder: Path, role: str) -> None:
    """Links that stand go on, and broken ones come back, though all certificates seem to be of the future."""
    library, back = folder / "clock.so", folder / "back"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    made = scene()
    environ = {"LD_PRELOAD": str(library), "CLOCK_BACK": str(back)}
    getattr(made, role).environ.update(environ)
    with made:
        with made.load(seed=31) as load:
            wait_for(load.more(30), "requests")
            dialed = len(made.link.dialed)
            back.touch()
            assert _year(environ) < _year({})
            wait_for(load.more(200), "requests go on over the same link")
            assert len(made.link.dialed) == dialed
            made.link.reset()
            wait_for(load.more(50), "requests go on over a new link")
            back.unlink()
            made.link.reset()
            wait_for(load.more(50), "requests go on when the clock is right again")
        all_answered(made.verdict(load))


def _year(environ: dict[str, str]) -> int:
    return int(
        subprocess.run(["python3", "-c", PRINT_YEAR], env=environ, capture_output=True, check=True).stdout
    )
