"""What is held open to be stored, before a compile's answer goes out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sccache_py.compilers.c_dialects import GCC
from sccache_py.compilers.gcc import C
from sccache_py.compilers.rustc import Rustc
from sccache_py.conditions import Draft
from sccache_py.keys import Hasher
from sccache_py.model import Plan, Reason
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.miss import deposit
from sccache_py.server.running.runner import Ran
from sccache_py.server.store.memory import MemoryStore


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


@pytest.fixture
def checked(tmp_path):
    """(the metadata of a crate, what the store makes of it where somebody does something to the file behind the answer)."""
    words = ["--crate-name", "x", "--crate-type", "lib", "--emit=metadata", "--out-dir", ".", "x.rs"]
    plan = Rustc().parse(words, str(tmp_path), str(tmp_path))
    assert isinstance(plan, Plan)
    made = tmp_path / "libx.rmeta"
    made.write_bytes(b"m" * 100_000)
    store = MemoryStore()

    def stored(then) -> deposit.Entry | Reason:
        began_ns = made.stat().st_mtime_ns - 3_000_000
        draft = Draft([], [], [], [], [], [str(made)])
        examined = deposit.examine(plan, draft, {}, FileMemo(), began_ns, {})
        assert isinstance(examined, deposit.Examined)
        then(began_ns)
        ran = Ran(None, 0, b"", b"", False, False, began_ns, 1, 1, 1)
        made_of_it = deposit.Depositor(store, FileMemo()).make_entry(plan, b"recipe", examined, ran)
        examined.close()
        return made_of_it

    yield made, stored
    store.close()


@pytest.mark.parametrize("behind_the_spawn_ns", [-1_000_000, 0, 1_000_000])
def test_metadata_whose_time_cargo_sets_back_is_stored(checked, behind_the_spawn_ns):
    """cargo check sets it to when it called the compiler, by a finer clock than the one that tells when that began."""
    made, stored = checked
    entry = stored(lambda began_ns: os.utime(made, ns=(began_ns + behind_the_spawn_ns,) * 2))
    assert isinstance(entry, deposit.Entry)


def test_what_was_written_behind_the_answer_is_not_stored(checked):
    """The next build would get what this compile did not make."""
    made, stored = checked

    def write(began_ns: int) -> None:
        Path(made).write_bytes(b"n" * 100_000)
        os.utime(made, ns=(began_ns + 1_000_000_000,) * 2)

    assert stored(write) is Reason.OUTPUT_CHANGED


def digest_of(data: bytes) -> bytes:
    hasher = Hasher()
    hasher.update(data)
    return hasher.digest()


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("shrinks", [False, True])
def test_an_object_is_stored_as_it_was_before_the_answer(tmp_path, size, shrinks):
    """Linux's objtool writes into every object as soon as it is compiled, others strip it; within a tick of the clock no time tells."""
    plan = C(GCC, False).parse(["-c", "x.c", "-o", "x.o"], str(tmp_path), str(tmp_path))
    assert isinstance(plan, Plan)
    made = tmp_path / "x.o"
    compiled = b"m" * size
    made.write_bytes(compiled)
    began_ns = made.stat().st_ctime_ns
    examined = deposit.examine(plan, Draft([], [], [], [], [], [str(made)]), {}, FileMemo(), began_ns, {})
    assert isinstance(examined, deposit.Examined)
    written = b"n" * (size // 2 if shrinks else size)
    made.write_bytes(written)
    os.utime(made, ns=(began_ns, began_ns))
    store, memo = MemoryStore(), FileMemo()
    ran = Ran(None, 0, b"", b"", False, False, began_ns, 1, 1, 1)
    made_of_it = deposit.Depositor(store, memo).make_entry(plan, b"recipe", examined, ran)
    examined.close()
    assert isinstance(made_of_it, deposit.Entry)
    (output,) = made_of_it.result.outputs
    assert output.digest == digest_of(compiled)
    assert (memo.hash(str(made)) or (None, b""))[1] == digest_of(written)
    kept = output.inline if output.inline is not None else Path(made_of_it.files[output.digest]).read_bytes()
    assert kept == compiled
    deposit.discard(made_of_it)
    store.close()
