"""One line a record, in the dress that the reader of stderr wants."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from restpipe.host import logs
from restpipe.host.options import Log


@pytest.fixture(autouse=True)
def _root_restored() -> Iterator[None]:
    root, library = logging.getLogger(), logging.getLogger("asyncio")
    before = list(root.handlers), root.level, library.level
    yield
    root.handlers[:], root.level, library.level = before


def configured(stream: io.TextIOBase, monkeypatch: pytest.MonkeyPatch, *, debug: bool = False) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(Log(debug=debug), process="pipe")


def test_time_level_process_and_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    configured(stream, monkeypatch)
    logging.getLogger("restpipe.some").warning("link %d is lost", 3)
    logging.getLogger("restpipe.some").debug("not shown")
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} WARNING pipe: restpipe\.some: link 3 is lost\n", stream.getvalue()
    )


def test_debug_shows_the_mechanics_but_not_the_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    configured(stream, monkeypatch, debug=True)
    logging.getLogger("restpipe.some").debug("shown")
    logging.getLogger("asyncio").debug("not this")
    assert "shown" in stream.getvalue()
    assert "not this" not in stream.getvalue()


def test_configuring_again_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    configured(stream, monkeypatch)
    configured(stream, monkeypatch)
    logging.getLogger("x").info("once")
    assert stream.getvalue().count("once") == 1


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\x1b[31mb", "a\x00b", "a\x9bb", "a\x7fb", "a\u2028b"])
def test_what_others_send_cannot_forge_a_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    configured(stream, monkeypatch)
    logging.getLogger("x").info("said %s", text)
    assert len(stream.getvalue().splitlines()) == 1
    assert stream.getvalue().endswith("b\n")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", stream.getvalue())


def test_an_exception_is_one_line_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    configured(stream, monkeypatch)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "Traceback" in line
    assert "ValueError: odd" in line


@pytest.mark.parametrize(
    ("level", "prefix"),
    [(logging.CRITICAL, "<2>"), (logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>")],
)
def test_priorities_for_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int, prefix: str
) -> None:
    path = tmp_path / "journal"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        configured(stream, monkeypatch)
        logging.getLogger("restpipe.some").log(level, "text")
    assert path.read_text() == f"{prefix}restpipe.some: text\n"


def test_an_inherited_journal_stream_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    with (tmp_path / "terminal").open("w") as stream:
        configured(stream, monkeypatch)
        logging.getLogger("x").info("text")
    assert not (tmp_path / "terminal").read_text().startswith("<")
