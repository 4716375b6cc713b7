"""Clients that were seen before."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restpipe.daemon.known_clients import KnownClients
from restpipe.daemon.peers import PeerTable
from tests.unit.transport.kit import logged, run, until


def table(limit: int = 10) -> PeerTable:
    return PeerTable(limit, 5)


def seen(peers: PeerTable, **clients: str) -> PeerTable:
    for name, address in clients.items():
        peer = peers.add(name)
        assert peer is not None
        peer.address = address
    return peers


def test_clients_are_known_after_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    KnownClients(folder).save(seen(table(), alpha="10.0.0.1", beta="::1", never_connected=""))
    peers = table()
    KnownClients(folder).load(peers)
    assert {peer.name: peer.address for peer in peers} == {"alpha": "10.0.0.1", "beta": "::1"}
    assert not any(peer.online for peer in peers)
    assert [entry.name for entry in folder.iterdir()] == ["clients.json"]


def test_no_file_is_no_fault(tmp_path: Path) -> None:
    peers = table()
    with logged("restpipe.daemon.known_clients") as lines:
        KnownClients(tmp_path / "nowhere").load(peers)
    assert len(peers) == 0
    assert lines.texts == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"null", b'"x"', b"\xff\xfe", b'{"a": 1', b"[" * 100_000]
)
def test_a_corrupt_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clients.json").write_bytes(content)
    peers = table()
    known = KnownClients(tmp_path)
    with logged("restpipe.daemon.known_clients") as lines:
        known.load(peers)
    assert len(peers) == 0
    (line,) = lines.texts
    assert str(tmp_path / "clients.json") in line
    known.save(seen(peers, alpha="10.0.0.1"))
    assert json.loads((tmp_path / "clients.json").read_text()) == {"alpha": "10.0.0.1"}


@settings(deadline=None, max_examples=50)
@given(content=st.binary(max_size=60))
def test_no_content_keeps_a_server_from_starting(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("state")
    (folder / "clients.json").write_bytes(content)
    KnownClients(folder).load(table())


def test_more_clients_than_there_is_room_for_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "clients.json").write_text(json.dumps({f"c{number}": "10.0.0.1" for number in range(50)}))
    peers = table(10)
    KnownClients(tmp_path).load(peers)
    assert len(peers) == 10


def test_what_cannot_be_written_is_one_line_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.write_text("a file where the folder should be")
    known = KnownClients(folder)
    peers = seen(table(), alpha="10.0.0.1")
    with logged("restpipe.daemon.known_clients") as lines:
        known.save(peers)
    (line,) = lines.texts
    assert line.startswith(f"state.directory: {folder}/")
    assert "cannot be written" in line
    folder.unlink()
    known.save(peers)
    assert json.loads((folder / "clients.json").read_text()) == {"alpha": "10.0.0.1"}


def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    known = KnownClients(tmp_path)
    peers = seen(table(), alpha="10.0.0.1")
    known.save(peers)
    (tmp_path / "clients.json").unlink()
    known.save(peers)
    assert list(tmp_path.iterdir()) == []


def test_changes_are_written_as_they_come_and_at_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "clients.json"
        known, peers, changed = KnownClients(tmp_path), table(), asyncio.Event()
        task = asyncio.create_task(known.run(peers, changed))
        seen(peers, alpha="10.0.0.1")
        changed.set()
        await until(path.exists)
        seen(peers, beta="10.0.0.2")
        changed.set()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert set(json.loads(path.read_text())) == {"alpha", "beta"}

    run(main())


def test_a_slow_disk_does_not_hold_up_the_loop_and_the_newest_is_written_last(tmp_path: Path) -> None:
    async def main() -> None:
        known, peers, changed = KnownClients(tmp_path), table(), asyncio.Event()
        written, go, begun = known._write, threading.Event(), threading.Event()

        def slowly(told: int, addresses: dict[str, str]) -> None:
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                go.wait()
            written(told, addresses)

        known._write = slowly  # type: ignore[method-assign]
        task = asyncio.create_task(known.run(peers, changed))
        seen(peers, alpha="10.0.0.1")
        changed.set()
        await until(begun.is_set)
        seen(peers, beta="10.0.0.2")
        task.cancel()
        await asyncio.wait((task,))
        go.set()
        await asyncio.get_running_loop().shutdown_default_executor()
        assert set(json.loads((tmp_path / "clients.json").read_text())) == {"alpha", "beta"}

    run(main())
