"""What users set, rightly and wrongly: what becomes of it, and what they are told.

The whole way, with the native client, the server and the command line; tests/unit/test_config.py has the values.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import World, world

__all__ = ["world"]  # a fixture

pytestmark = pytest.mark.slow

# Beyond what the store keeps inside its database.
BIG = "pub static BIG: [u8; 100000] = [7; 100000];\n"


# --- whose files they are ---


def test_nobody_else_can_write_to_what_the_server_makes(world: World) -> None:
    """A new user has no ~/.cache; open to all, another user could put his own cache, with his own objects, in the place of ours."""
    made = world.directory / "new"
    world.env["SCCACHE_DIR"] = str(made / "home" / ".cache" / "sccache-py")
    world.same_as_plain(*world.crate("unit", BIG), times=2)
    open_to_others = [path for path in [made, *made.rglob("*")] if stat.S_IMODE(path.stat().st_mode) & 0o022]
    assert open_to_others == []
    assert list(made.glob("home/.cache/sccache-py/[0-9a-f][0-9a-f]/*")), "nothing was stored"
    assert stat.S_IMODE((world.directory / "log").stat().st_mode) == 0o600


# --- numbers ---


def test_more_job_tokens_than_a_pipe_holds_are_as_many_as_it_does(world: World) -> None:
    """SCCACHE_JOBS=1000000: with a full pipe the token that comes back first would find no room, and the compile be run twice."""
    world.env["SCCACHE_JOBS"] = "1000000"
    world.same_as_plain(*world.crate(), times=2)
    assert world.counts().total("cache_hits") == 1
    assert world.ask("stats")["surroundings"]["jobserver"]["size"] == 4096
