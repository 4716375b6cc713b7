"""The event handlers that come with RestPipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from restpipe.handler.api import ClientEventHandler, ServerEventHandler
from restpipe.handler.examples.builtin import TestClientEventHandler, TestServerEventHandler
from restpipe.handler.examples.files import FileServer
from restpipe.testing import PipeTester


@pytest.mark.parametrize(
    ("handler", "base", "side"),
    [
        (TestServerEventHandler, ServerEventHandler, "server"),
        (TestClientEventHandler, ClientEventHandler, "client"),
    ],
)
def test_the_walkthrough(handler: type[ServerEventHandler], base: type, side: str) -> None:
    assert issubclass(handler, base)
    with PipeTester(handler) as pipe:
        assert pipe.get("/time").json()[f"time_from_{side}"] > 1_700_000_000
        assert pipe.get("/cat//hello%20/world").json() == {f"result_from_{side}": "hello world"}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeTester]:
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (root / "docs" / "a b.txt").write_text("hello")
    (root / "big.bin").write_bytes(bytes(range(256)) * 2048)
    (root / "packed.tar.gz").write_bytes(b"x")
    (root / "inside").symlink_to("docs/a b.txt")
    (root / "outside").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to("..")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root-too").write_text("secret")
    monkeypatch.setenv("RP_FILES_ROOT", str(root))
    with PipeTester(FileServer) as tester:
        yield tester


def test_files_are_served(files: PipeTester) -> None:
    result = files.get("/file//docs/a%20b.txt")
    assert (result.text, result.content_type, result.headers["content-length"]) == (
        "hello",
        "text/plain",
        "5",
    )
    assert files.get("/file//big.bin").data == bytes(range(256)) * 2048
    assert files.get("/file//inside").text == "hello"
    assert files.get("/file//packed.tar.gz").content_type == "application/octet-stream"
    assert files.head("/file//big.bin").headers["content-length"] == str(256 * 2048)


def test_a_download_is_resumed(files: PipeTester) -> None:
    assert files.get("/file//docs/a%20b.txt").headers["accept-ranges"] == "bytes"
    rest = files.get("/file//docs/a%20b.txt", headers={"Range": "bytes=2-"})
    assert (rest.status, rest.text, rest.headers["content-length"]) == (206, "llo", "3")
    assert rest.headers["content-range"] == "bytes 2-4/5"
    past = files.get("/file//docs/a%20b.txt", headers={"Range": "bytes=5-"})
    assert (past.status, past.data, past.headers["content-range"]) == (416, b"", "bytes */5")


@pytest.mark.parametrize("wanted", ["bytes=0-", "bytes=1-"])
def test_an_empty_file_has_no_range(files: PipeTester, wanted: str) -> None:
    (Path(os.environ["RP_FILES_ROOT"]) / "empty").touch()
    assert (files.get("/file//empty").status, files.get("/file//empty").data) == (200, b"")
    none = files.get("/file//empty", headers={"Range": wanted})
    assert (none.status, none.data, none.headers["content-range"]) == (416, b"", "bytes */0")


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=2-3"},
        {"Range": "bytes=-2"},
        {"Range": "lines=2-"},
        {"Range": f"bytes={'9' * 30}-"},
        {"Range": "bytes=2-", "If-Range": '"x"'},
    ],
)
def test_other_ranges_are_ignored(files: PipeTester, headers: dict[str, str]) -> None:
    whole = files.get("/file//docs/a%20b.txt", headers=headers)
    assert (whole.status, whole.text) == (200, "hello")
    head = files.head("/file//docs/a%20b.txt", headers={"Range": "bytes=2-"})
    assert (head.status, head.headers["content-length"]) == (200, "5")


@pytest.mark.parametrize(
    "target",
    [
        "..",
        "../secret",
        "../root-too",
        "docs/../../secret",
        "outside",
        "up/secret",
        quote("/etc/passwd", safe=""),
        quote("../secret", safe=""),
        "docs/" + quote("../../secret", safe=""),
        "%00",
        "docs%00/a%20b.txt",
    ],
)
def test_nothing_outside_of_the_folder_is_served(files: PipeTester, target: str) -> None:
    for noun in ("file", "files"):
        result = files.get(f"/{noun}//{target}")
        assert (result.status, result.code) == (403, 13)
        assert b"hello" not in result.data


@pytest.mark.parametrize(
    "target",
    ["/file//none", "/file//docs", "/file", "/file//pipe", "/files//none", "/file//loop", "/files//loop"],
)
def test_what_is_not_there(files: PipeTester, target: str) -> None:
    assert files.get(target).status == 404


def test_folders_are_listed(files: PipeTester) -> None:
    listed = files.get("/files").json()
    assert [entry["name"] for entry in listed] == ["big.bin", "docs", "inside", "packed.tar.gz", "pipe"]
    assert [entry["folder"] for entry in listed] == [False, True, False, False, False]
    assert files.get("/files//docs").json() == [{"name": "a b.txt", "folder": False, "size": 5}]


def test_a_subclass_may_name_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RP_FILES_ROOT", raising=False)
    (tmp_path / "x").write_text("x")

    class Mine(FileServer):
        root = str(tmp_path)

    with PipeTester(Mine) as pipe:
        assert pipe.get("/file//x").text == "x"
