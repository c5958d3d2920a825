"""What a user is told who sets something that means nothing here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sccache_py import unheeded

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_set_for_stores_that_are_not_here_is_named():
    """Who sets SCCACHE_BUCKET believes that the cache is there."""
    env = {"HOME": "/h", "SCCACHE_BUCKET": "b", "SCCACHE_GHA_ENABLED": "on", "SCCACHE_DIR": "/d", "SCCACHE_BASEDIRS": "/b"}
    file = b"[cache.s3]\n[cache.disk]\n[dist]\n"
    assert unheeded.reasons(env, file) == [
        "SCCACHE_BUCKET, SCCACHE_GHA_ENABLED, [cache.s3], [dist]: no effect, the cache is a local directory"
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("SCCACHE_CACHESIZE", ["SCCACHE_CACHESIZE: no such setting; did you mean SCCACHE_CACHE_SIZE?"]),
        ("SCCACHE_BASEDIR", ["SCCACHE_BASEDIR: no such setting; did you mean SCCACHE_BASEDIRS?"]),
        ("SCCACHE_COLOUR", ["SCCACHE_COLOUR: no such setting"]),
        *((name, []) for name in ("SCCACHE_DIRECT", "SCCACHE_PATH", "SCCACHE_PY_SERVER", "CCACHE_DIR", "SCCACHEX")),
    ],
)
def test_a_misspelt_variable_is_named(name, told):
    """Else its user waits for an effect for ever.  What other programs set, and what sccache has and nobody misses, is not."""
    assert unheeded.reasons({name: "1"}) == told


def test_a_misspelt_name_in_the_file_is_named():
    """A table of another name sets nothing: the cache would be where it always is, and as large."""
    file = b'basedir = ["/x"]\nserver_startup_timeout_ms = 9\n[disk]\nsize = "5G"\n[cache.disc]\nsize = "5G"\n'
    assert unheeded.reasons({}, file) == [
        "configuration file: basedir: no such setting; did you mean basedirs?",
        "configuration file: disk: no such setting",
        "configuration file: [cache.disc]: no such setting; did you mean [cache.disk]?",
    ]


@pytest.mark.parametrize("where", ["README.md", "sccache_py/config.py", "client/native"])
def test_nothing_that_has_an_effect_is_said_to_have_none(where):
    """Every variable that the code reads, and that users are told of."""
    files = [ROOT / where] if (ROOT / where).is_file() else sorted((ROOT / where).glob("*.[cm]*"))
    text = "\n".join(file.read_text() for file in files)
    named = set(re.findall(r'["`](SCCACHE_[A-Z_]+[A-Z])["`=]', text))
    assert named
    assert unheeded.reasons(dict.fromkeys(named, "1")) == []
