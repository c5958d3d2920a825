"""Depfiles for another target, compared with what gcc and clang write."""

from __future__ import annotations

import subprocess

import pytest

from sccache_py.make_rule import Depfile, Style, fold, quote, unfold

STYLES = {"gcc": Style.GCC, "clang": Style.CLANG}


def depfile(style: Style, *targets: bytes) -> Depfile:
    return Depfile("/x.d", targets, style)


@pytest.mark.parametrize("name", ["x", "a b", "a\tb", "a\\ b", "a\\\\ b", "$x", "a#b", "a\\b", "a:b", "%"])
def test_targets_are_quoted_as_mq_does(tmp_path, name):
    """A name with a space is one name for make."""
    for compiler in STYLES:
        written = subprocess.run(
            [compiler, "-M", "-MQ", name, "-x", "c", "/dev/null", "-nostdinc", "-ffreestanding"],
            cwd=tmp_path, capture_output=True, timeout=60, check=True,
        ).stdout  # fmt: skip
        assert written.startswith(quote(name.encode()) + b":"), compiler


@pytest.mark.parametrize("compiler", STYLES)
def test_a_depfile_is_written_for_any_target_as_the_compiler_would(tmp_path, compiler):
    """Line breaks depend on every name's length: all lengths of target around the width, and several targets."""
    source = "".join(f'#include "{"h" * (n % 13 + 1)}{n}.h"\n' for n in range(40)) + '#include "with space$.h"\n'
    for n in range(40):
        (tmp_path / f"{'h' * (n % 13 + 1)}{n}.h").write_text("")
    (tmp_path / "with space$.h").write_text("")
    (tmp_path / "x.c").write_text(source)

    def written(*targets: str) -> bytes:
        words = [w for t in targets for w in ("-MT", t)]
        return subprocess.run([compiler, "-MM", "-MP", *words, "x.c"], cwd=tmp_path, capture_output=True, timeout=60, check=True).stdout

    style = STYLES[compiler]
    folded = fold(written("x.o"), depfile(style, b"x.o"))
    assert folded is not None
    for size in (*range(1, 6), *range(55, 85), 200):
        assert unfold(folded, depfile(style, b"t" * size)) == written("t" * size)
    assert unfold(folded, depfile(style, b"a" * 40, b"b" * 40, b"c")) == written("a" * 40, "b" * 40, "c")


def test_what_does_not_come_out_as_it_went_in_is_not_taken_apart():
    """Other targets, another layout, no end of line."""
    for text in (b"y.o: x.c\n", b"x.o : x.c\n", b"x.o: x.c", b"", b"x.o:  x.c\n"):
        assert fold(text, depfile(Style.GCC, b"x.o")) is None


def test_a_rule_without_prerequisites_survives():
    """clang writes one for an empty preprocessed source."""
    for style in Style:
        folded = fold(b"x.o:\n", depfile(style, b"x.o"))
        assert folded is not None
        assert unfold(folded, depfile(style, b"y.o")) == b"y.o:\n"
