from __future__ import annotations

import socket
from asyncio import Transport
from typing import Any

import pytest

from restpipe.web.patience import STALLED_S, Stall, has_sent_more, is_hung_up, unsent
from tests.unit.web.memory import MemoryTransport


def test_a_caller_that_takes_nothing_has_stalled() -> None:
    stall = Stall()
    assert not stall.lasts(1000, 0)
    assert not stall.lasts(1000, STALLED_S - 1)
    assert stall.lasts(1000, STALLED_S)


def test_one_that_takes_a_little_has_not() -> None:
    stall = Stall()
    for turn in range(10):
        assert not stall.lasts(1000 - turn, turn * (STALLED_S - 1))


def test_one_that_has_taken_all_has_not() -> None:
    stall = Stall()
    for turn in range(10):
        assert not stall.lasts(0, turn * STALLED_S)


@pytest.mark.parametrize("closes", [False, True])
def test_a_half_close_is_told_from_a_hang_up(closes: bool) -> None:
    here, there = socket.socketpair()
    transport = over(here)
    with here, there:
        assert not is_hung_up(transport)
        there.shutdown(socket.SHUT_WR)
        assert not is_hung_up(transport)
        if closes:
            there.close()
        assert is_hung_up(transport) is closes


def test_what_the_kernel_holds_for_a_caller_counts_while_the_transport_is_full() -> None:
    here, there = socket.socketpair()
    transport = over(here)
    with here, there:
        for _ in range(3):
            here.send(bytes(20_000))
        assert unsent(transport) == 0
        transport.buffered = 1  # type: ignore[attr-defined]
        before = unsent(transport)
        assert before > 60_000
        there.recv(30_000)
        assert unsent(transport) < before
    assert here.fileno() == -1
    assert unsent(transport) == 1


def test_what_is_not_read_yet_is_seen() -> None:
    here, there = socket.socketpair()
    transport = over(here)
    with here, there:
        assert not has_sent_more(transport)
        there.send(b"x")
        assert has_sent_more(transport)


def over(sock: socket.socket) -> Transport:
    transport: Any = MemoryTransport()
    transport.socket = sock
    return transport  # type: ignore[no-any-return]
