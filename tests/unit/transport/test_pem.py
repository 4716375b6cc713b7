from __future__ import annotations

import base64

import pytest

from restpipe.transport.pem import blocks, ders, seems


def block(label: str, data: bytes, end: str = "\n") -> bytes:
    text = base64.encodebytes(data).decode().replace("\n", end)
    return f"-----BEGIN {label}-----{end}{text}-----END {label}-----{end}".encode()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("before", [b"", b"# a header\n", b"\xef\xbb\xbf", b"\xff\x00 - -----BEGI"])
def test_blocks_are_found_between_whatever_else_there_is(end: str, before: bytes) -> None:
    data = before + block("CERTIFICATE", b"one", end) + b"text\n" + block("PRIVATE KEY", b"two", end)
    assert [(each.label, each.der()) for each in blocks(data)] == [
        ("CERTIFICATE", b"one"),
        ("PRIVATE KEY", b"two"),
    ]
    assert b"".join(each.text for each in blocks(data)).count(b"-----\n") >= 2


SECRET = b"c2VjcmV0"


@pytest.mark.parametrize(
    "data",
    [
        b"-----BEGIN CERTIFICATE-----\n" + SECRET,
        # The last dashes of one block and the first line of the next are lost.
        b"-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE\n"
        + SECRET
        + b"\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\n" + SECRET + block("CERTIFICATE", b"one"),
        b"-----BEGIN " + b"A" * 100 + b"-----\n",
        b"-----BEGIN -----\n-----END -----\n",
    ],
)
def test_a_block_without_its_end_is_refused_and_not_quoted(data: bytes) -> None:
    with pytest.raises(ValueError, match="PEM block 1 in it has no proper end") as raised:
        ders(data, "CERTIFICATE", "certificate")
    assert SECRET.decode() not in str(raised.value)


def test_a_broken_body_is_not_quoted() -> None:
    data = (
        block("CERTIFICATE", b"one") + b"-----BEGIN CERTIFICATE-----\n!secret!\n-----END CERTIFICATE-----\n"
    )
    with pytest.raises(ValueError, match=r"^certificate 2 in it is broken: its base64 is broken$"):
        ders(data, "CERTIFICATE", "certificate")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"\x30\x82\x01\x00", "it is DER or PKCS#12"),
        ("-----BEGIN".encode("utf-16"), "it is UTF-16 text"),
    ],
)
def test_it_is_said_what_a_file_is_instead(data: bytes, words: str) -> None:
    assert words in seems(data)
    with pytest.raises(ValueError, match=f"there is no certificate in it: {words}"):
        ders(data, "CERTIFICATE", "certificate")


def test_other_text_is_no_riddle() -> None:
    assert seems(b"hello") == ""
