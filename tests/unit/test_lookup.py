"""Why a remembered compile does not hold, to read in the log."""

from __future__ import annotations

from sccache_py.compilers.rustc import Rustc
from sccache_py.keys import digest
from sccache_py.model import Plan, Variant
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.hit.lookup import why_not


def test_a_file_whose_digest_is_not_known_yet_is_not_said_to_have_changed(tmp_path):
    """A large one is hashed elsewhere and later, and only if all else holds: the log named it for what another file had done."""
    large, small = tmp_path / "large.rs", tmp_path / "small.rs"
    large.write_bytes(b"x" * (4 << 20))
    small.write_bytes(b"now")
    plan = Rustc().parse(["--crate-name", "x", "--out-dir", "/o", "x.rs"], str(tmp_path), str(tmp_path))
    assert isinstance(plan, Plan)
    files = [(str(large), digest(large.read_bytes())), (str(small), digest(b"before"))]
    variant = Variant(files, [], [], [], [], [])
    assert why_not(variant, plan, {}, Sight(FileMemo())) == f"changed: {small}"
