"""One line a record, in the dress that the reader of stderr wants."""

from __future__ import annotations

import io
import logging
import logging.config
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from restpipe.host import logs
from restpipe.host.options import Log


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


# The journal's own protocol, and floods.


def record(
    message: str, *args: object, peer: str = "", name: str = "restpipe.daemon.links"
) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, "file", 1, message, args, None)
    if peer:
        made.peer = peer
    return made


def test_the_journal_gets_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        journal.settimeout(10)
        handler = logs.JournalHandler(sys.stderr, "pipe", str(tmp_path / "socket"))
        handler.emit(record("%s goes\nPRIORITY=0", "web1", peer="web1\nPRIORITY=0"))
        lines = journal.recv(65536).decode().splitlines()
        handler.close()
    (tmp_path / "socket").unlink()
    assert lines == [
        "MESSAGE=web1 goes\\nPRIORITY=0",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=restpipe-pipe",
        "LOGGER=restpipe.daemon.links",
        "PEER=web1 PRIORITY=0",
    ]


def test_a_traceback_in_the_journal_has_its_lines(tmp_path: Path) -> None:
    """Behind its length, and escaped but for them: no line of it is taken for a field."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        journal.settimeout(10)
        handler = logs.JournalHandler(sys.stderr, "pipe", str(tmp_path / "socket"))
        try:
            raise KeyError("x\nPEER=web2\x1b")
        except KeyError as error:
            failed = record("it\nfailed", peer="web1")
            failed.exc_info = (type(error), error, error.__traceback__)
        handler.emit(failed)
        name, _, rest = journal.recv(65536).partition(b"\n")
        handler.close()
    (tmp_path / "socket").unlink()
    length = int.from_bytes(rest[:8], "little")
    first, *lines = rest[8 : 8 + length].decode().splitlines()
    assert (name, first, lines[0]) == (b"MESSAGE", "it\\nfailed", "Traceback (most recent call last):")
    assert lines[-1] == r"KeyError: 'x\nPEER=web2\x1b'"
    assert rest[8 + length :].decode().splitlines()[1:] == [
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=restpipe-pipe",
        "LOGGER=restpipe.daemon.links",
        "PEER=web1",
    ]


def test_without_a_journal_the_stream_gets_the_line(tmp_path: Path) -> None:
    stream = io.StringIO()
    handler = logs.JournalHandler(stream, "pipe", str(tmp_path / "none"))
    handler.emit(record("said"))
    handler.close()
    assert stream.getvalue() == "<4>restpipe.daemon.links: said\n"


def test_a_peer_that_flaps_floods_nothing_and_hides_nobody() -> None:
    now = [0.0]
    guard = logs.FloodGuard(lambda: now[0])
    passed = [guard.filter(record("%s is gone", peer="web1")) for _ in range(100)]
    assert passed == [True] * logs.BURST + [False] * (100 - logs.BURST)
    assert guard.filter(record("%s is gone", peer="web2"))
    assert guard.filter(record("%s is here", peer="web1"))
    now[0] = logs.WINDOW_S
    later = record("web1 is gone", peer="web1")
    later.msg = "%s is gone"
    later.args = ("web1",)
    assert guard.filter(later)
    assert later.getMessage() == f"web1 is gone ({100 - logs.BURST} more like it were left out)"


def test_more_may_be_asked_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    configured(stream, monkeypatch)
    logging.getLogger("restpipe.daemon").debug("mechanics")
    logs.set_level(Log(debug=True))
    logging.getLogger("restpipe.daemon").debug("more")
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["more"]


def test_a_flood_that_goes_on_is_summed_up_ever_more_rarely() -> None:
    now = [0.0]
    guard = logs.FloodGuard(lambda: now[0])
    told = []
    for second in range(0, 5 * 3600, 5):
        now[0] = float(second)
        if guard.filter(record("%s is gone", peer="web1")):
            told.append(second)
    assert told[: logs.BURST] == list(range(0, 5 * logs.BURST, 5))
    assert told[logs.BURST :] == [60, 300, 1260, 4860, 8460, 12060, 15660]
    # After silence it is news again.
    now[0] += 2 * logs.LONGEST_WINDOW_S
    assert all(guard.filter(record("%s is gone", peer="web1")) for _ in range(logs.BURST))


def test_what_user_code_logs_is_never_left_out() -> None:
    guard = logs.FloodGuard(lambda: 0.0)
    assert all(guard.filter(record("same", name="shop")) for _ in range(100))


def test_what_restpipe_says_of_user_code_is_bounded() -> None:
    guard = logs.FloodGuard(lambda: 0.0)

    def passed(about: str, name: str = "restpipe.handler.handling") -> int:
        lines = [record("%s raised %s", about, name=name) for _ in range(100)]
        for line in lines:
            line.about = about
        return sum(guard.filter(line) for line in lines)

    assert passed("get_one ValueError") == logs.BURST
    # One method hides no other.
    assert passed("get_other ValueError") == passed("get_one KeyError") == logs.BURST
    assert passed("get_one", logs.USERS) == 100


# Code of others, which configures logging.


@pytest.mark.parametrize(
    "configure",
    [
        lambda: logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL"}}),
        lambda: logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "root": {}}),
        lambda: logging.config.fileConfig(
            io.StringIO(
                "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nhandlers="
            )
        ),
        lambda: logging.basicConfig(force=True, level=logging.CRITICAL, handlers=[logging.NullHandler()]),
        lambda: logging.disable(logging.CRITICAL),
        logging.shutdown,
        lambda: logging.getLogger().handlers.clear(),
        lambda: logging.setLogRecordFactory(lambda: None),  # type: ignore[arg-type,misc]
        lambda: logging.getLogger().setLevel(logging.CRITICAL),
    ],
)
def test_no_configuration_of_others_silences_restpipe(
    monkeypatch: pytest.MonkeyPatch, configure: Callable[[], object]
) -> None:
    stream = io.StringIO()
    logger = logging.getLogger("restpipe.some")
    configured(stream, monkeypatch)
    for times in (1, 2):
        configure()
        logger.info("said once more")
        assert stream.getvalue().count("INFO    pipe: restpipe.some: said once more\n") == times
    logger.debug("not shown")
    assert "not shown" not in stream.getvalue()


def test_a_record_keeps_what_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    logger = logging.getLogger("restpipe.some")
    configured(stream, monkeypatch)
    with pytest.raises(KeyError):
        logger.info("said", extra={"message": "x"})
    logger.info("said", extra={"peer": "web1"})
    assert stream.getvalue().count("said") == 1


def test_restpipe_writes_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    configured(stream, monkeypatch)
    logging.basicConfig(force=True, stream=stream)
    logging.getLogger("restpipe.some").warning("once")
    logging.getLogger("shop").warning("theirs")
    assert stream.getvalue().count("once") == 1
    assert stream.getvalue().endswith("WARNING:shop:theirs\n")


CLOSING = """
import logging, os, sys
from restpipe.host import logs
from restpipe.host.options import Log

logs.configure(Log(debug=False), process="pipe")
{0}
logging.getLogger("restpipe.some").warning("still there")
"""


@pytest.mark.parametrize(
    "closing",
    ["sys.stderr.close()", "os.close(2)", "sys.stderr = None", "os.dup2(os.open(os.devnull, 1), 2)"],
)
def test_a_closed_stderr_does_not_silence_restpipe(closing: str) -> None:
    program = [sys.executable, "-c", CLOSING.format(closing)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30)
    assert "restpipe.some: still there\n" in done.stderr
    assert done.returncode == 0


def test_a_journal_that_was_closed_is_opened_again(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        journal.settimeout(10)
        handler = logs.JournalHandler(sys.stderr, "pipe", str(tmp_path / "socket"))
        handler.close()
        handler.emit(record("said", peer="web1"))
        assert b"PEER=web1\n" in journal.recv(65536)
        handler.close()
    (tmp_path / "socket").unlink()


def test_a_mistake_in_a_log_line_ends_no_caller(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        journal.settimeout(10)
        handler = logs.JournalHandler(sys.stderr, "pipe", str(tmp_path / "socket"))
        handler.emit(record("%d articles", "many"))
        odd = record("said")
        odd.peer = 5
        handler.emit(odd)
        assert b"PEER=5\n" in journal.recv(65536)
        handler.close()
    (tmp_path / "socket").unlink()
