"""Where the kernel gives no file in memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from sccache_py.server.running.held import held


def test_what_is_held_can_be_read():
    fd = held(b"a request")
    assert os.pread(fd, 100, 0) == b"a request"
    os.close(fd)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the system call's number is another")
def test_where_a_file_in_memory_is_forbidden_it_is_one_without_a_name():
    """A container's seccomp filter: hit workers could hand nothing over, so nothing was cached."""
    program = """
import ctypes, os, struct
from sccache_py.server.running.held import held
load, jump_if_equal, give = 0x20, 0x15, 0x06  # linux/bpf_common.h
steps = [(load, 0, 0, 0), (jump_if_equal, 0, 1, 319), (give, 0, 0, 0x50000 | 1), (give, 0, 0, 0x7FFF0000)]  # memfd_create: EPERM
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
call = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(filter))
prctl = ctypes.CDLL(None).prctl
print(prctl(38, 1, 0, 0, 0), prctl(22, 2, ctypes.c_char_p(call), 0, 0))
try:
    os.memfd_create("x")
except PermissionError:
    print(os.pread(held(b"held"), 100, 0).decode())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.stdout.startswith("0 -1"):
        pytest.skip("no seccomp here")
    assert done.stdout == "0 0\nheld\n", done.stderr
