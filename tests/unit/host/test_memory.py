"""The buffer of a TLS read is kept for the next one."""

from __future__ import annotations

import subprocess
import sys

PROBE = """
import ctypes, sys
from restpipe.host import memory

class Info(ctypes.Structure):
    # mallinfo2(3)
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd".split()]
    _fields_ += [(name, ctypes.c_size_t) for name in "usmblks fsmblks uordblks fordblks keepcost".split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info

def mapped():
    before = mallinfo().hblkhd
    block = bytes(memory.READ_BUFFER)
    return mallinfo().hblkhd - before

print(mapped() > 0, memory.keep_read_buffers(), mapped() > 0)
"""


def test_blocks_of_that_size_are_mapped_no_more() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]
