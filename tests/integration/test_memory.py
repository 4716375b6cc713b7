"""Bodies of any size cross the pipe in bounded memory. Downloads are measured by the demo, too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.integration.conftest import client_of
from tests.support.memory import peaks, resident
from tests.support.nodes import Pair

MIB = 1 << 20
SIZE_MIB = 96
MOST_GROWTH = 32 * MIB


def pieces() -> Iterator[bytes]:
    return (bytes([number]) * MIB for number in range(SIZE_MIB))


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("way", ["to the client", "to the server"])
def test_an_upload_takes_no_memory(pair: Pair, way: str, chunked: bool) -> None:
    asking, prefix = (pair.server, "/client/client-1") if way == "to the client" else (pair.client, "/server")
    processes = {
        pid: f"{node.role} {part}" for node in (pair.server, pair.client) for pid, part in node.pids().items()
    }
    whole = hashlib.sha256()
    for piece in pieces():
        whole.update(piece)
    headers = {} if chunked else {"Content-Length": str(SIZE_MIB * MIB)}
    before = resident(processes)
    with client_of(asking) as client:
        told = client.post(f"{prefix}/digest", content=pieces(), headers=headers).json()
    after = peaks(processes)
    assert told == {"sha256": whole.hexdigest(), "size": SIZE_MIB * MIB}
    grown = {name: after[pid] - before[pid] for pid, name in processes.items()}
    assert max(grown.values()) <= MOST_GROWTH, grown
