"""What is held open to be stored, before a compile's answer goes out."""

from __future__ import annotations

from sccache_py.compilers.c_dialects import GCC
from sccache_py.compilers.gcc import C
from sccache_py.conditions import Draft
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
