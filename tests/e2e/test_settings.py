"""What users set, rightly and wrongly: what becomes of it, and what they are told.

The whole way, with the native client, the server and the command line; tests/unit/test_config.py has the values.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import Outcome, World, world

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


def test_a_home_that_is_not_ours_to_enter_has_no_settings_for_us(world: World) -> None:
    """`sudo -u builder make` may keep HOME=/root: the cache is in memory then, but no build does without a server."""
    weak = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    home = world.directory / "home"
    home.mkdir(mode=0)
    del world.env["SCCACHE_DIR"]
    world.env["HOME"] = str(home)
    if world.run_plain(*weak, "sh", "-c", 'cd "$HOME"').returncode == 0:
        pytest.skip("capabilities cannot be dropped here")
    for _ in range(2):
        world.wipe()
        assert world.run_plain(*weak, world.client, *world.crate()) == Outcome(0, b"", b"")
    assert world.counts().total("cache_hits") == 1
    shown = world.run_plain(*weak, world.client, "--show-stats")
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert world.run_plain(*weak, world.client, "--stop-server").returncode == 0
    shown = world.run_plain(*weak, world.client, "--show-stats")
    assert (shown.returncode, shown.stderr) == (0, b"")


def test_why_a_server_does_not_start_is_in_its_log(world: World) -> None:
    """--start-server says that SCCACHE_ERROR_LOG names it; what a daemon prints nobody reads."""
    assert world.run("--start-server").returncode == 0
    socket = world.socket
    assert world.run("--stop-server").returncode == 0
    socket.write_text("somebody's")
    assert world.run(*world.crate()) == Outcome(0, b"", b"")
    assert f"is there, and is no socket: '{socket}'" in world.log()
    assert socket.read_text() == "somebody's"


# --- numbers ---


def test_more_job_tokens_than_a_pipe_holds_are_as_many_as_it_does(world: World) -> None:
    """SCCACHE_JOBS=1000000: with a full pipe the token that comes back first would find no room, and the compile be run twice."""
    world.env["SCCACHE_JOBS"] = "1000000"
    world.same_as_plain(*world.crate(), times=2)
    assert world.counts().total("cache_hits") == 1
    assert world.ask("stats")["surroundings"]["jobserver"]["size"] == 4096


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("SCCACHE_CACHE_SIZE", "99999999999999P"), ("SCCACHE_WORKERS", "1000000000000")),
        *(("SCCACHE_IDLE_TIMEOUT", "9" * 30), ("SCCACHE_CACHE_ZSTD_LEVEL", "9" * 20)),
    ],
)
def test_a_number_that_is_far_too_large_is_as_much_as_there_is(world: World, variable: str, value: str) -> None:
    """Who writes it means "no limit"; a server that takes it at its word dies of it, or starts processes until the machine does."""
    world.env[variable] = value
    world.same_as_plain(*world.crate(), times=2)
    assert world.counts().total("cache_hits") == 1
    assert world.run("--jobs", "9" * 20).stdout == b"4096 job tokens, 0 in use\n"
    assert world.run("--stop-server").returncode == 0


# --- what cannot be meant ---


def test_a_wrong_setting_is_told_by_whatever_asks(world: World) -> None:
    """A compile says nothing of it; --start-server and --show-stats do, both in the same words."""
    world.env["SCCACHE_CACHE_SIZE"] = "ten"
    world.same_as_plain(*world.crate(), times=1)
    words = b"SCCACHE_CACHE_SIZE: 'ten' is not a size (10G, 512M, \xe2\x80\xa6)"
    assert world.run("--show-stats") == Outcome(2, b"", b"sccache-py: error: " + words + b"\n")
    started = world.run("--start-server")
    assert (started.returncode, words in started.stderr) == (2, True)


def test_a_file_where_the_socket_shall_be_is_kept(world: World) -> None:
    """SCCACHE_SERVER_UDS names a file of the user's by mistake: a socket in its place would be the end of it."""
    precious = world.directory / "precious"
    precious.write_text("years of work")
    world.env["SCCACHE_SERVER_UDS"] = str(precious)
    world.same_as_plain(*world.crate(), times=0)
    assert world.run(*world.crate()) == Outcome(0, b"", b"")
    assert f"{precious} is there, and is no socket".encode() in world.run("--start-server").stderr
    assert precious.read_text() == "years of work"


def test_a_socket_in_no_directory_is_told(world: World) -> None:
    """The directory of SCCACHE_SERVER_UDS is the user's to make."""
    world.env["SCCACHE_SERVER_UDS"] = str(world.directory / "no" / "s")
    started = world.run("--start-server")
    assert f"SCCACHE_SERVER_UDS: {world.directory / 'no'} is no directory that you can write to".encode() in started.stderr


def test_what_has_no_effect_is_told_by_start_server(world: World) -> None:
    """The server starts, but the store in the cloud is not there, and nor are the log and the settings that were asked for."""
    world.env |= {"SCCACHE_CONF": "no/toml", "SCCACHE_BUCKET": "b", "SCCACHE_ERROR_LOG": str(world.directory / "no" / "log")}
    world.env["SCCACHE_CACHESIZE"] = "5G"
    started = world.run("--start-server")
    assert (started.returncode, started.stdout) == (0, b"sccache-py: Starting the server...\n")
    assert started.stderr.decode().splitlines() == [
        "sccache-py: SCCACHE_BUCKET: no effect, the cache is a local directory",
        "sccache-py: SCCACHE_CACHESIZE: no such setting; did you mean SCCACHE_CACHE_SIZE?",
        "sccache-py: SCCACHE_CONF: no/toml is not there",
        f"sccache-py: SCCACHE_ERROR_LOG: no log, {world.directory / 'no' / 'log'} cannot be written to",
    ]


def test_a_cache_that_is_in_memory_alone_is_told_by_start_server(world: World) -> None:
    """SCCACHE_DIR names a file by mistake: builds go on, and --show-stats has hits, until the server ends."""
    precious = world.directory / "precious"
    precious.write_text("years of work")
    world.env["SCCACHE_DIR"] = str(precious)
    told = f"sccache-py: nothing is kept when the server ends: {precious} is no directory that can be written to"
    assert world.run("--start-server").stderr.decode().splitlines() == [told]
    world.same_as_plain(*world.crate(), times=2)
    assert world.counts().total("cache_hits") == 1
    assert precious.read_text() == "years of work"
