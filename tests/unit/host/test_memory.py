"""The buffer of a TLS read is kept for the next one, and a key is not dumped."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

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


DUMPABLE = """
import ctypes, resource
from restpipe.host import memory

PR_GET_DUMPABLE = 3
def told():
    return resource.getrlimit(resource.RLIMIT_CORE)[0], ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)

memory.forbid_dumps()
first = told()
def deny(*_):
    raise ValueError("not allowed to raise maximum limit")
resource.setrlimit = deny
memory.forbid_dumps()
print(first, told())
"""


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_CORE)[1] == 0, reason="none can be dumped here at all")
def test_no_core_is_dumped() -> None:
    """The kernel writes none that is smaller than a page, and pipes none whose limit is 1."""
    done = subprocess.run([sys.executable, "-c", DUMPABLE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 1) (1, 0)"
