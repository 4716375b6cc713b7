"""A process that runs code of others ends in time, whatever that has left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging, sys
from restpipe.errors import ConfigError
from restpipe.host import ending, loop

logging.basicConfig(format="%(message)s")
ending.GRACE_S = 0.2
end = ending.Ending()
sys.path.insert(0, {folder!r})

async def main():
    import asyncio
    end.loop = asyncio.get_running_loop()
    try:
        import left
        await left.leave()
    finally:
        end.within(ending.GRACE_S)

with end.after():
    loop.run(main())
{more}
"""
LEAVE = "async def leave():\n"


def run(folder: Path, code: str, more: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "left.py").write_text(code)
    program = PROGRAM.format(folder=str(folder), more=more)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (
            "import threading, time\n"
            f"{LEAVE}    threading.Thread(target=time.sleep, args=[1000], name='mine').start()\n",
            "thread 'mine' at ",
        ),
        (
            "import asyncio\n"
            f"{LEAVE}    asyncio.create_task(stubborn())\n    await asyncio.sleep(0)\n"
            "async def stubborn():\n    while True:\n        try:\n            await asyncio.sleep(1000)\n"
            "        except BaseException:\n            pass\n",
            "task 'stubborn' at {folder}/left.py:8",
        ),
        (
            "import asyncio, time\n"
            f"{LEAVE}    asyncio.get_running_loop().run_in_executor(None, time.sleep, 1000)\n",
            # Older versions of uvloop have another name for it.
            "_0' at ",
        ),
        (
            f"import concurrent.futures, time\n{LEAVE}"
            "    concurrent.futures.ThreadPoolExecutor(1, 'mine').submit(time.sleep, 1000)\n",
            "thread 'mine_0' at ",
        ),
        (
            f"import concurrent.futures, threading, time\n{LEAVE}"
            "    pool = concurrent.futures.ThreadPoolExecutor(1, 'mine')\n"
            "    daemon = threading.Thread(target=pool.submit, args=[time.sleep, 1000], daemon=True)\n"
            "    daemon.start()\n    daemon.join()\n",
            "(beside the threads 'mine_0')",
        ),
        (
            f"import atexit, time\n{LEAVE}    atexit.register(lambda: time.sleep(1000))\n",
            "what the main thread waits for at {folder}/left.py:3",
        ),
        (
            f"import multiprocessing, time\n{LEAVE}"
            "    multiprocessing.get_context('fork')"
            ".Process(target=time.sleep, args=[1000], name='one').start()\n",
            "(one)",
        ),
    ],
)
def test_what_is_left_behind_is_named_and_held_up_by_nobody(tmp_path: Path, code: str, named: str) -> None:
    done = run(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert "leaving behind: " in done.stderr
    assert named.format(folder=tmp_path) in done.stderr


def test_an_end_that_nothing_holds_up_is_pythons_own(tmp_path: Path) -> None:
    code = f"import atexit\n{LEAVE}    atexit.register(print, 'called')\n"
    done = run(tmp_path, code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "called\n", "")


@pytest.mark.parametrize(("raised", "status"), [("ConfigError('no')", os.EX_CONFIG), ("ValueError", 1)])
def test_the_status_says_how_it_ended(tmp_path: Path, raised: str, status: int) -> None:
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=[1000]).start()\n"
    more = f"with end.after():\n    raise {raised}\n"
    done = run(
        tmp_path,
        code + f"{LEAVE}    pass\n",
        f"try:\n    {more.replace(chr(10), chr(10) + '    ')}\nexcept Exception: pass",
    )
    assert done.returncode == status


@pytest.mark.parametrize(
    "thread", ["", "import threading, time; threading.Thread(target=time.sleep, args=[1000]).start()\n"]
)
def test_what_comes_in_place_of_the_end_comes_last(tmp_path: Path, thread: str) -> None:
    code = f"import atexit\n{thread}{LEAVE}    atexit.register(print, 'first', flush=True)\n"
    done = run(tmp_path, code, "import os; end.instead = lambda: (os.write(1, b'last'), os._exit(5))")
    assert done.returncode == 5
    assert done.stdout == ("last" if thread else "first\nlast")


STEPS = """
import logging, time
from restpipe.errors import ConfigError
from restpipe.host import ending

logging.basicConfig(format="%(message)s")
end = ending.Ending()
end.within(1000)
end.within(0.2, ConfigError("no"), instead=True)
end.within(1000)
end.within(2000, instead=False)
time.sleep(1000)
"""


def test_what_hangs_in_the_last_moment_is_named_too(tmp_path: Path) -> None:
    code = (
        "import builtins, time\nclass Held:\n    def __del__(self):\n        time.sleep(1000)\n"
        f"{LEAVE}    builtins.held = Held()\n"
    )
    done = run(tmp_path, code)
    assert done.returncode == 1
    assert f'"{tmp_path}/left.py", line 4 in __del__' in done.stderr


def test_each_step_of_an_end_may_have_its_own_time() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, timeout=30)
    assert done.returncode == os.EX_CONFIG
    assert "ending (no), and leaving behind: what the main thread waits for at <string>:12" in done.stderr
