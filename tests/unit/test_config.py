"""Settings as sccache's users write them."""

from __future__ import annotations

import pytest

from sccache_py import config
from sccache_py.config import ConfigError, Wishes, settings, wishes

HOME = {"HOME": "/h"}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("10G", 10 << 30), ("512M", 512 << 20), ("1048576", 1 << 20), (" 2 k ", 2048), ("1TiB", 1 << 40), ("5MB", 5 << 20)),
        *(("1.5G", 3 << 29), ("0.5k", 512), ("1P", 1 << 50), ("123456789012345", 123456789012345)),
        *(("9223372036854775807", 2**63 - 1), ("99999999999999P", 2**63 - 1), ("9007199254740993", 9007199254740993)),
    ],
)
def test_sizes_are_written_in_many_ways(text, size):
    """sccache takes them with and without a unit."""
    assert config.parse_size(text, "X") == size


@pytest.mark.parametrize("text", ["", "G", "10X", "-1", "1.5.2G", ".5G", "9" * 400, "ten"])
def test_what_is_no_size_is_named(text):
    """A cache of the wrong size would fill a disk, or never hit."""
    with pytest.raises(ConfigError, match="SCCACHE_CACHE_SIZE"):
        settings({**HOME, "SCCACHE_CACHE_SIZE": text or " "})


def test_the_environment_wins_over_the_file():
    """As everywhere."""
    toml = b'[cache.disk]\ndir = "/file"\nsize = "1M"\nrw_mode = "READ_ONLY"\n'
    found = settings(HOME, toml)
    assert (found.directory, found.size_bytes, found.read_only) == ("/file", 1 << 20, True)
    found = settings({**HOME, "SCCACHE_DIR": "/env", "SCCACHE_CACHE_SIZE": "2M", "SCCACHE_LOCAL_RW_MODE": "READ_WRITE"}, toml)
    assert (found.directory, found.size_bytes, found.read_only) == ("/env", 2 << 20, False)


@pytest.mark.parametrize(
    ("env", "directory"),
    [
        (HOME, "/h/.cache/sccache-py"),
        ({**HOME, "XDG_CACHE_HOME": "/x"}, "/x/sccache-py"),
        ({**HOME, "SCCACHE_DIR": "/s"}, "/s"),
    ],
)
def test_the_cache_is_where_it_is_looked_for(env, directory):
    """Never sccache's own directory."""
    assert settings(env).directory == directory


@pytest.mark.parametrize(
    ("env", "toml"),
    [
        ({}, None),
        (HOME, b"not toml ["),
        (HOME, b"\xff\xfe"),
        ({**HOME, "SCCACHE_LOCAL_RW_MODE": "SOMETIMES"}, None),
        ({**HOME, "SCCACHE_IDLE_TIMEOUT": "soon"}, None),
    ],
)
def test_a_setting_that_cannot_be_meant_is_an_error(env, toml):
    """The server says so when it starts, not at the first compile."""
    with pytest.raises(ConfigError):
        settings(env, toml)


@pytest.mark.parametrize(("value", "observe"), [("1", False), ("true", False), ("0", True), ("", True), ("no", True)])
def test_observing_and_watching_are_on_unless_they_are_turned_off(value, observe):
    """It is what makes hits right."""
    assert settings({**HOME, "SCCACHE_NO_OBSERVE": value}).observe == observe
    assert settings({**HOME, "SCCACHE_NO_WATCH": value}).watch == observe


def test_wishes_belong_to_one_call():
    """Read from each request's environment."""
    env = {"SCCACHE_RECACHE": "1", "SCCACHE_NO_CACHE": "1", "SCCACHE_EXTRAFILES": "/a::/b", "SCCACHE_VERIFY": "3"}
    found = wishes(env)
    assert (found.recache, found.no_cache, found.extra_files, found.verify_every) == (True, True, ("/a", "/b"), 3)
    assert wishes({"PATH": "/bin"}) == Wishes()


def test_a_malformed_wish_is_none():
    """A build never fails by a wish."""
    assert wishes({"SCCACHE_VERIFY": "often", "SCCACHE_NO_CACHE": "maybe"}) == Wishes()


def test_a_second_chance_is_asked_for():
    """Off by default: it looks at texts, which only who edits comments has an interest in."""
    assert wishes({"SCCACHE_SECOND_CHANCE": "1"}) == Wishes(second_chance=True)
    assert wishes({"SCCACHE_SECOND_CHANCE": "0"}) == Wishes()


@pytest.mark.parametrize(("text", "level"), [(None, 3), ("0", 0), ("1", 1), ("22", 22), ("99", 22)])
def test_the_level_of_compression_stays_within_what_zstd_has(text, level):
    env = {} if text is None else {"SCCACHE_CACHE_ZSTD_LEVEL": text}
    assert settings({"HOME": "/h", **env}, None).zstd_level == level


@pytest.mark.parametrize("value", ["relative", "/a:b", ".", "/", "//", "/a/../b"])
def test_a_base_directory_is_an_absolute_path(value):
    """A relative one would be relative to wherever the server was started."""
    with pytest.raises(ConfigError, match="SCCACHE_BASEDIRS"):
        settings({**HOME, "SCCACHE_BASEDIRS": value})


def test_base_directories_come_from_the_variable_or_the_file():
    """sccache's variable, separated by colons, and sccache's key in the file."""
    assert settings({**HOME, "SCCACHE_BASEDIRS": "/a/b/::/c//d:/a/b"}).basedirs == ("/a/b", "/c/d")
    assert settings(HOME, b'basedirs = ["/file/"]\n').basedirs == ("/file",)
    assert settings({**HOME, "SCCACHE_BASEDIRS": ""}, b'basedirs = ["/file"]\n').basedirs == ()
    with pytest.raises(ConfigError, match="basedirs"):
        settings(HOME, b'basedirs = "/file"\n')


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (b"cache = 1", "[cache] is not a table"),
        (b"[cache]\ndisk = 1", "[cache.disk] is not a table"),
        (b"[cache.disk]\ndir = 5", "[cache.disk] dir: 5 is not a string"),
        (b"[cache.disk]\nsize = true", "[cache.disk] size: True is not a string or a whole number"),
        (b"[cache.disk]\nsize = 1.5", "[cache.disk] size: 1.5 is not a string or a whole number"),
        (b"[cache.disk]\nsize = -5", "[cache.disk] size: '-5' is not a size"),
        (b'[cache.disk]\nrw_mode = "read_only"', "[cache.disk] rw_mode: 'read_only' is neither READ_WRITE nor READ_ONLY"),
        (b'[cache.disk]\nrw_mod = "READ_ONLY"', "[cache.disk] has no 'rw_mod', only dir, size, rw_mode"),
        (b'basedirs = ["relative"]', "basedirs: 'relative' is not the absolute path"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_by_its_name_there(toml, said):
    """Who wrote `size` looks in vain for SCCACHE_CACHE_SIZE; and a slip in `rw_mode` must not let a cache be written to."""
    with pytest.raises(ConfigError) as told:
        settings(HOME, toml)
    assert str(told.value).startswith(f"configuration file: {said}")


def test_the_configuration_file_of_sccache_can_be_kept():
    """What is set there for other things than the cache's directory is none of ours."""
    disk = b"[cache.disk]\nfile_clone = true\nsize = 7\n[cache.disk.preprocessor_cache_mode]\nx = 1\n"
    found = settings(HOME, b"server_startup_timeout_ms = 1\n[dist]\n" + disk)
    assert found.size_bytes == 7


@pytest.mark.parametrize(
    ("text", "level"),
    [
        *((None, "warning"), ("", "warning"), ("nonsense", "warning"), ("off", "critical"), ("warn", "warning"), ("TRACE", "debug")),
        *(("sccache=debug", "debug"), ("sccache=debug,info", "debug"), ("hyper=error,info", "info"), ("sccache::server=trace", "debug")),
    ],
)
def test_the_log_is_as_talkative_as_sccaches_filter_says(text, level):
    """SCCACHE_LOG is a filter of env_logger's there; we have one level."""
    assert settings({**HOME, **({} if text is None else {"SCCACHE_LOG": text})}).log_level == level
