from __future__ import annotations

import socket

import pytest

from restpipe.web.patience import STALLED_S, Stall, is_hung_up


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

    class Transport:
        def get_extra_info(self, name: str) -> socket.socket:
            return here

    with here, there:
        assert not is_hung_up(Transport())  # type: ignore[arg-type]
        there.shutdown(socket.SHUT_WR)
        assert not is_hung_up(Transport())  # type: ignore[arg-type]
        if closes:
            there.close()
        assert is_hung_up(Transport()) is closes  # type: ignore[arg-type]
