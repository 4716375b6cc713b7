"""The request's body, as methods get it: whole and decoded. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import Any, NoReturn

from restpipe.errors import Code, Delivered, Reset, StreamReset
from restpipe.handler.results import BYTES, is_json
from restpipe.handler.target import bad_request
from restpipe.protocol.schema_pb2 import Header

NONE: tuple[str, Any] = ("", "")
"""Where there is no body."""

_CODING = re.compile(r"[^\s,]+")
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s;"]+)', re.IGNORECASE)
_LONGEST_CHARSET = 40
_CHARSET_NAMES = """
ascii big5 big5hkscs cp037 cp1006 cp1026 cp1125 cp1140 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256
cp1257 cp1258 cp273 cp424 cp437 cp500 cp720 cp737 cp775 cp850 cp852 cp855 cp856 cp857 cp858 cp860 cp861
cp862 cp863 cp864 cp865 cp866 cp869 cp874 cp875 cp932 cp949 cp950 euc_jis_2004 euc_jisx0213 euc_jp euc_kr
gb18030 gb2312 gbk hz iso8859_1 iso8859_10 iso8859_11 iso8859_13 iso8859_14 iso8859_15 iso8859_16
iso8859_2 iso8859_3 iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_9 koi8_r koi8_t koi8_u
latin_1 mac_roman shift_jis shift_jis_2004 shift_jisx0213 utf_16 utf_16_be utf_16_le utf_32 utf_32_be
utf_32_le utf_8 utf_8_sig
"""
_CHARSETS = frozenset(_CHARSET_NAMES.split())
"""Python's codecs that are charsets. Not every codec is one, and some are slow enough to attack with."""


def mime_type(content_type: str) -> str:
    """Take the type without its parameters, in lower case; that of unknown bytes if there is none."""
    return content_type.partition(";")[0].strip().lower() or BYTES


def decode_body(content_type: str, body: bytes, headers: Iterable[Header] = ()) -> tuple[str, Any]:
    """Make `(mime type, data)` of a body: JSON decoded, text as str, otherwise bytes.

    Raises `StreamReset`: BAD_REQUEST if the body is not what its type says, UNSUPPORTED_CODING if it would
    have to be unpacked first. Bytes are handed over as they came, packed or not.
    """
    if not body:
        return NONE
    mime = mime_type(content_type)
    if is_json(mime):
        _check_coding(headers)
        return mime, _decode_json(body)
    if mime.startswith("text/"):
        _check_coding(headers)
        return mime, _decode_text(content_type, body)
    return mime, body


def _check_coding(headers: Iterable[Header]) -> None:
    for header in headers:
        if header.name.lower() == "content-encoding" and set(_CODING.findall(header.value.lower())) - {
            "identity"
        }:
            detail = f"text and JSON must be sent without Content-Encoding, not with {header.value[:100]!r}"
            raise StreamReset(Reset(Code.UNSUPPORTED_CODING, detail, Delivered.NO))


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
    codec = _codec(name)
    try:
        return body.decode(codec)
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not {name}: {error.reason} at byte {error.start}") from None


def _codec(name: str) -> str:
    """Find Python's name for a charset without asking Python, which remembers each name it was asked for."""
    if len(name) <= _LONGEST_CHARSET:
        key = normalize_encoding(name.lower())
        codec = aliases.get(key) or aliases.get(key.replace(".", "_")) or key
        if codec in _CHARSETS:
            return codec
    raise bad_request(f"unknown charset {name[:_LONGEST_CHARSET]!r}")
