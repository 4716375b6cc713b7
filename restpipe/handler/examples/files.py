"""Serves the files of one folder to the other end of the pipe."""

from __future__ import annotations

import mimetypes
import os
import re
from pathlib import Path
from typing import Any

from restpipe import Context, EventError, EventHandler, Reply

_REST = re.compile(r"bytes=([0-9]{1,18})-")


class FileServer(EventHandler):
    """GET …/file//docs/report.pdf streams a file; GET …/files//docs lists a folder.

    A download that broke off can be resumed (`curl -C -`): of HTTP's ranges `bytes=N-` is served.
    The folder is named by RP_FILES_ROOT, or by `root` in a subclass.
    """

    root = "."

    def __init__(self) -> None:
        self._root = Path(os.environ.get("RP_FILES_ROOT") or self.root).resolve(strict=True)

    def get_file(self, ctx: Context, post_data: tuple[str, Any], *path: str) -> Reply:
        found = self._find(path)
        if not found.is_file():
            raise EventError(2, "no such file", status=404)
        mime, encoding = mimetypes.guess_type(found.name)
        content_type = "application/octet-stream" if encoding or not mime else mime
        start = _start(ctx)
        file = found.open("rb")
        # Of the open file, not of its name: that may lead to another one by now.
        size = os.fstat(file.fileno()).st_size
        if start is not None and start >= size:
            file.close()
            return Reply(status=416, headers={"Content-Range": f"bytes */{size}"})
        if start is None:
            return Reply(file, content_type=content_type, headers={"Accept-Ranges": "bytes"})
        file.seek(start)
        headers = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        return Reply(file, status=206, content_type=content_type, headers=headers)

    def get_files(self, ctx: Context, post_data: tuple[str, Any], *path: str) -> list[dict[str, Any]]:
        found = self._find(path)
        if not found.is_dir():
            raise EventError(2, "no such folder", status=404)
        inside = (entry for entry in sorted(found.iterdir()) if entry.exists() and self._is_inside(entry))
        return [{"name": e.name, "folder": e.is_dir(), "size": e.stat().st_size} for e in inside]

    def _find(self, path: tuple[str, ...]) -> Path:
        # An argument may hold an encoded slash, and `..` or a link may lead out: only where it ends counts.
        found = self._root.joinpath(*path)
        if any("/" in part or "\0" in part for part in path) or not self._is_inside(found):
            raise EventError(13, "not in the served folder", status=403)
        return found

    def _is_inside(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError):  # a loop of links
            raise EventError(2, "no such file", status=404) from None


def _start(ctx: Context) -> int | None:
    """Return where the caller wants a file from; None if it wants all of it (RFC 9110, section 14.2)."""
    asked = _REST.fullmatch(ctx.headers.get("range", ""))
    # A file here has no validator that If-Range could match.
    return int(asked[1]) if asked and ctx.verb == "GET" and "if-range" not in ctx.headers else None
