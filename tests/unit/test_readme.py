"""What the README says is so: its table is the code's, its example runs, its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import click
import pytest

import restpipe
from restpipe.cli import cli
from restpipe.errors import PROBLEMS, Problem
from restpipe.host import stats
from restpipe.host.config_text import markdown
from restpipe.host.options import options
from restpipe.testing import PipeTester
from restpipe.web import responses
from tests.support.processes import clean_environment

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text()


def test_the_table_of_configuration_is_the_codes() -> None:
    assert markdown().strip() in README


def example(first_line: str) -> str:
    """The indented block that begins with this line."""
    block = re.search(rf"^    {re.escape(first_line)}\n((?:    .*\n|\n)*)", README, re.MULTILINE)
    assert block, first_line
    return textwrap.dedent(block[0])


def test_the_example_handler_does_what_its_comments_say() -> None:
    namespace: dict[str, Any] = {}
    exec(compile(example("# /srv/pipe/shop.py").partition("\n$ ")[0], "shop.py", "exec"), namespace)  # noqa: S102
    with PipeTester(namespace["Shop"], peer="web1") as tester:
        assert tester.get("/stock//4711").json() == {"article": "4711", "stock": 12}
        ordered = tester.post("/order/line?urgent=yes", json={"count": 3})
        assert ordered.data == b"web1 ordered 3"


SHOWN = re.compile(r"^    (?:\w*\$|#) (?:\w+=\S+ )*(restpipe(?:-ca)? [^#\n]*)", re.MULTILINE)
INLINE = re.compile(r"`(restpipe(?:-ca)? [^`]*)`")
COMMANDS = sorted({line.strip() for line in (*SHOWN.findall(README), *INLINE.findall(README))})


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line: str) -> None:
    """Its name, options and arguments are known; what it does is the other tests' business."""
    program, *words = line.replace("ROLE", "server").split()
    if program == "restpipe":
        understand(cli, words)
    else:
        from restpipe_ca.cli import cli as ca

        understand(ca, words)


def understand(command: click.Command, words: list[str]) -> None:
    """As far as the command line itself goes; raises click's errors."""
    if isinstance(command, click.Group):
        _, found, rest = command.resolve_command(click.Context(command), words)
        assert found is not None
        understand(found, rest)
    elif words:  # else it is only named, in the middle of a sentence
        command.make_context(command.name, words)


def test_all_ways_of_writing_a_command_are_seen() -> None:
    """A prompt of its own, root's, one with variables, and in the text."""
    for line in (
        "restpipe run server",
        "restpipe-ca issue web1",
        "restpipe identity install web1.bundle",
        "restpipe run client",
        "restpipe identity show",
        "restpipe config ROLE",
        "restpipe-ca revoke web1",
    ):
        assert line in COMMANDS


def test_the_commands_start() -> None:
    for module in ("restpipe", "restpipe_ca"):
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_every_problem_is_explained() -> None:
    own = [value for value in vars(responses).values() if isinstance(value, Problem)]
    statuses = {problem.slug: str(problem.status) for problem in (*PROBLEMS.values(), *own)}
    assert explained_problems() == statuses


def explained_problems() -> dict[str, str]:
    """Slugs and statuses, as the README's table has them. One status may stand for all of a row."""
    found: dict[str, str] = {}
    table = README.partition("| type `urn:restpipe:problem:")[2].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        _, slugs, statuses, *_ = row.split("|")
        names = re.findall(r"`([^`]+)`", slugs)
        numbers = statuses.strip().split(", ")
        found |= zip(names, numbers * (len(names) if len(numbers) == 1 else 1), strict=True)
    return found


def test_those_who_come_from_the_original_find_every_name() -> None:
    for name in {name for option in options() for name in option.spec.env}:
        assert name.replace("{ROLE}", "CLIENT") in README, name
    for constant in {name for option in options() for name in option.spec.constants}:
        assert f"`{constant}`" in README, constant
    metrics = [
        value
        for name, value in vars(stats).items()
        if name.isupper() and str(value).endswith((".tick", ".timing"))
    ]
    for metric in metrics:
        assert metric == stats.DROPPED or f"`{metric}`" in README, metric
    for name in restpipe.__all__:
        if name not in ("__version__", "Context"):
            assert name in README, name
