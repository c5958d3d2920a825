"""What is held open to be stored, before a compile's answer goes out."""

from __future__ import annotations

import os

import pytest

from sccache_py.compilers.c_dialects import GCC
from sccache_py.compilers.gcc import C
from sccache_py.conditions import Draft
from sccache_py.keys import digest
from sccache_py.model import Plan, Reason
from sccache_py.server import deposit
from sccache_py.server.files import FileMemo


def test_an_object_of_an_earlier_compile_is_no_output(tmp_path):
    """An option that nobody knows may mean that nothing is written: the old object would become this compile's."""
    plan = C(GCC, False).parse(["-c", "x.c", "-o", "x.o"], str(tmp_path), str(tmp_path))
    assert isinstance(plan, Plan)
    made = tmp_path / "x.o"
    made.write_text("old")
    written_ns = made.stat().st_ctime_ns
    draft = Draft([], [], [], [], [], [str(made)])
    assert deposit.examine(plan, draft, {}, FileMemo(), written_ns + 1, {}) is Reason.OUTPUT_MISSING
    examined = deposit.examine(plan, draft, {}, FileMemo(), written_ns, {})
    assert isinstance(examined, deposit.Examined)
    examined.close()


@pytest.mark.parametrize("begins", [0, 5, 60, 63, 64, 100, 126, 127, 190])
@pytest.mark.parametrize("piece", [16, 64, 4096])
def test_a_path_in_an_output_is_found_wherever_it_lies(tmp_path, monkeypatch, begins, piece):
    """It may begin in one piece of those that are read and end in another; the digest is that of the whole."""
    monkeypatch.setattr(deposit, "_CHUNK_BYTES", piece)
    content = bytearray(b"-" * 200)
    content[begins : begins + 9] = b"/out/path"
    made = tmp_path / "out"
    made.write_bytes(content[:200])
    fd = os.open(made, os.O_RDONLY)
    movable = [("out", [b"/out/path"]), ("x", [b"/out/path/deps", b"/absent"]), ("up", [b"/out"])]
    found = deposit._hash_and_search(fd, movable)
    os.close(fd)
    assert found == (digest(bytes(content[:200])), {"out", "up"})
