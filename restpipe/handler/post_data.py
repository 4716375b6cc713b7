"""The request's body, as methods get it: whole and decoded. Pure."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, NoReturn

from restpipe.handler.results import BYTES, is_json
from restpipe.handler.target import bad_request

NONE: tuple[str, Any] = ("", "")
"""Where there is no body."""

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s;"]+)', re.IGNORECASE)
# Not every codec of Python's is a charset, and some of them are slow enough to attack with.
_CHARSETS = re.compile(
    r"ascii|utf-(8|16|32)(-[bl]e|-sig)?|iso8859-\d+|cp\d+|koi8-\w|gb\w+|big5\w*|euc_\w+|shift_jis\w*|hz|mac-roman"
)


def mime_type(content_type: str) -> str:
    """The type without its parameters, in lower case; that of unknown bytes when there is none."""
    return content_type.partition(";")[0].strip().lower() or BYTES


def decode_body(content_type: str, body: bytes) -> tuple[str, Any]:
    """`(mime type, data)`: JSON decoded, text as str, else bytes.

    `StreamReset` (BAD_REQUEST) when the body is not what its type says.
    """
    if not body:
        return NONE
    mime = mime_type(content_type)
    if is_json(mime):
        return mime, _decode_json(body)
    if mime.startswith("text/"):
        return mime, _decode_text(content_type, body)
    return mime, body


def _decode_json(body: bytes) -> Any:
    try:
        text = body.decode(json.detect_encoding(body))
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _decode_text(content_type: str, body: bytes) -> str:
    found = _CHARSET.search(content_type)
    name = found[1] if found else "utf-8"
    try:
        if not _CHARSETS.fullmatch(codecs.lookup(name).name):
            raise LookupError(name)
        return body.decode(name)
    except LookupError:
        raise bad_request(f"unknown charset {name[:40]!r}") from None
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not {name}: {error.reason} at byte {error.start}") from None
