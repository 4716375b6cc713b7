"""The kernel's word on the other end of a Unix socket."""

from __future__ import annotations

import os
import socket

from restpipe.host.credentials import of_peer


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert of_peer(one) == (os.getpid(), os.geteuid())
