"""`@file`, as gcc and clang read it."""

from __future__ import annotations

import subprocess

import pytest

from sccache_py.compilers.response_files import expand, split

TEXTS = [
    "-DA=1 -DB=2",
    "  -DA\t-DB\n\n-DC\r\n",
    "'-DA=a b' \"-DB=c d\"",
    r"-DA=a\ b -DB=\"x\" -DC='it'\''s'",
    r"""'a'\''b' "a\"b" "a'b" 'a"b'""",
    r'-DA="a \$b \\ \`"',
    "'-DA=not closed",
    r"a\\b \a ''",
    '"" x',
    "",
    "é ü",
]
QUOTED = [r"'-DA=\"b\"'", r'"-DA=\a"', r"'-DA=\\n' -DB", r"'it\'s'"]


@pytest.mark.parametrize("text", [*TEXTS, *QUOTED])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_response_file_is_split_as_the_compiler_splits_it(tmp_path, compiler, text):
    """The compiler's opinion is the only one that counts: it says what it would preprocess from each word."""
    (tmp_path / "r").write_text(text)
    if text in QUOTED and compiler == "gcc" and gcc_goes_by_posix():
        pytest.skip("left to it")
    words = split(text, escapes_within_quotes=text in QUOTED)
    assert words is not None
    by_file = subprocess.run([compiler, "-###", "-E", "@r"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    by_words = subprocess.run([compiler, "-###", "-E", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert by_file.stderr == by_words.stderr


def gcc_goes_by_posix() -> bool:
    said = subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True, timeout=60, check=True).stdout
    return int(said.partition(".")[0]) >= 15


@pytest.mark.parametrize("text", ["-DA\f-DB", "-DA\v", "-DA\0-DB", "-DA=\\", "-DA \\\n-DB", r"'-DA=\"b\"'", r'"-DA=\a"'])
def test_what_compilers_read_in_different_ways_is_left_to_them(text):
    """clang's words are others than gcc 12's, and those of a later gcc may be others again."""
    assert split(text) is None
    assert expand(["@a", "x.c"], {"a": text}.get) is None


def test_files_are_expanded_where_they_stand_and_in_one_another():
    """The order of words is their meaning."""
    files = {"a": "1 @b 2", "b": "x 'y z'"}
    assert expand(["0", "@a", "3", "@missing", "@"], files.get) == ["0", "1", "x", "y z", "2", "3", "@missing", "@"]


def test_a_file_that_names_itself_has_no_end():
    """gcc gives up after 2,000; so do we, and let it say so."""
    assert expand(["@a"], {"a": "@a"}.get) is None
