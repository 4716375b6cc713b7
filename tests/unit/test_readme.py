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
from restpipe.errors import PROBLEMS
from restpipe.host import stats
from restpipe.host.config_text import markdown
from restpipe.host.options import options
from restpipe.testing import PipeTester
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


@pytest.mark.parametrize(
    "line", sorted(set(re.findall(r"^    \$ (restpipe(?:-ca)? [^#\n]*)", README, re.MULTILINE)))
)
def test_every_command_is_one(line: str) -> None:
    """Its name and options are known; what it does is the other tests' business."""
    program, *words = line.split()
    module = "restpipe" if program == "restpipe" else "restpipe_ca"
    command: click.Command = cli
    if module == "restpipe_ca":
        from restpipe_ca.cli import cli as command
    context = click.Context(command)
    known = words[0]
    assert isinstance(command, click.Group)
    found = command.get_command(context, known)
    assert found is not None, known
    given = {word for word in words if word.startswith("--")}
    assert given <= {name for parameter in found.params for name in parameter.opts}


def test_the_commands_start() -> None:
    for module in ("restpipe", "restpipe_ca"):
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_every_problem_is_explained() -> None:
    internal = {"bad-message", "flow-control", "reply-broken"}
    for problem in PROBLEMS.values():
        assert problem.slug in internal or f"`{problem.slug}`" in README, problem.slug


def test_those_who_come_from_the_original_find_every_name() -> None:
    for name in {name for option in options() for name in option.spec.env}:
        assert name.replace("{ROLE}", "CLIENT") in README, name
    metrics = [
        value
        for name, value in vars(stats).items()
        if name.isupper() and str(value).endswith((".tick", ".timing"))
    ]
    for metric in metrics:
        assert metric == stats.DROPPED or f"`{metric}`" in README, metric
    for name in restpipe.__all__:
        if name not in ("__version__", "RestPipeError", "PipeProblemError", "Context"):
            assert name in README, name
