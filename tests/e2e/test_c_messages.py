"""How messages look, and in which language they are, decides nothing where a compiler says nothing; else messages are kept apart."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

COLORS = {
    "gcc": ("-fdiagnostics-color", "-fdiagnostics-color=always", "-fno-diagnostics-color", "-fdiagnostics-color=auto"),
    "clang": ("-fcolor-diagnostics", "-fdiagnostics-color=never", "-fno-color-diagnostics"),
}


@pytest.mark.parametrize("option", ["-O1", "-g"])
def test_a_compile_that_says_nothing_is_the_same_on_any_terminal_and_on_none(c, option):
    """`make`, the same in a wider window, `make | tee log`, and CI fill one cache."""
    c.write("x.c", "int f(void) { return 1; }\n")
    words = (option, "-c", "x.c", "-o", c.object())
    first = on_a_terminal(c, str(c.world.client), c.name, *words)
    c.expect("hit", *words)
    assert on_a_terminal(c, str(c.world.client), c.name, *words, columns=80) == first
    assert on_a_terminal(c, str(c.world.client), c.name, *words, TERM="dumb") == first
    assert c.world.counts()["cache_hits"] == 3


@pytest.mark.parametrize("option", ["-O1", "-g"])
def test_words_for_colours_are_another_compile_only_where_it_speaks(c, option):
    """ninja's builds are told to colour, make's are not."""
    c.write("x.c", "int f(void) { return 1; }\n")
    c.write("w.c", "#warning here\nint f(void) { return 1; }\n")
    c.expect("miss", option, "-c", "x.c", "-o", c.object())
    c.expect("miss", option, "-c", "w.c", "-o", c.object())
    for color in COLORS[c.name]:
        c.expect("hit", option, color, "-c", "x.c", "-o", c.object())
        c.expect("miss", option, color, "-c", "w.c", "-o", c.object())
        c.expect("hit", option, color, "-c", "w.c", "-o", c.object())


def test_a_word_for_colours_that_is_wrong_is_the_compilers_to_say(c):
    """Or a mistake would show only where nothing is cached."""
    c.write("x.c", "int f(void) { return 1; }\n")
    c.compile_twice("-c", "x.c", "-o", c.object())
    c.expect("fail", "-fdiagnostics-color=bright", "-c", "x.c", "-o", c.object())
    c.expect("fail", "-fdiagnostics-color=", "-c", "x.c", "-o", c.object())


@pytest.mark.parametrize("c", ["gcc-observed", "clang-observed"], indirect=True)
@pytest.mark.parametrize("words", [("-frecord-gcc-switches",), ("-S", "-fverbose-asm")])
def test_words_for_colours_count_where_an_output_holds_the_command_line(c, words):
    """What a build says of itself is what it was told."""
    c.write("x.c", "int f(void) { return 1; }\n")
    c.compile_twice(*words, "-c", "x.c", "-o", c.object())
    c.expect("miss", *words, COLORS[c.name][0], "-c", "x.c", "-o", c.object())


@pytest.mark.parametrize("c", ["gcc-observed", "gcc-fallback"], indirect=True)
def test_the_callers_language_counts_only_where_the_compiler_speaks(c):
    """A developer's is another one than CI's."""
    c.write("x.c", "int f(void) { return 1; }\n")
    c.write("w.c", "#warning here\nint f(void) { return 1; }\n")
    for variable in ("LANG", "LC_ALL"):
        for value in ("C", "C.UTF-8"):
            verdict = "miss" if (variable, value) == ("LANG", "C") else "hit"
            c.expect(verdict, "-c", "x.c", "-o", c.object(), env={variable: value})
    c.expect("miss", "-c", "w.c", "-o", c.object(), env={"LC_ALL": "C"})
    c.expect("miss", "-c", "w.c", "-o", c.object(), env={"LC_ALL": "C.UTF-8"})
    c.expect("hit", "-c", "w.c", "-o", c.object(), env={"LC_ALL": "C"})


def test_the_colour_of_messages_is_as_the_callers_terminal_has_it(c):
    """-fdiagnostics-color=always and never are other messages."""
    c.write("x.c", "int f(void) { int unused; return 1; }\n")
    plain = c.compile_twice("-Wall", "-c", "x.c", "-o", c.object())
    coloured = c.compile_twice("-Wall", "-fdiagnostics-color=always", "-c", "x.c", "-o", c.object())
    assert plain.stderr
    assert b"\x1b[" in coloured.stderr
    assert b"\x1b[" not in plain.stderr


def on_a_terminal(c, *command, columns=100, **variables):
    """(exit code, what a terminal was sent, the object)"""
    env = {**c.world.env, **c.world.server_env, "TERM": "xterm-256color", **variables}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    ran = subprocess.run(command, cwd=c.p, env=env, stdin=subprocess.DEVNULL, stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # EIO: the end of a terminal
        while data := os.read(ours, 1 << 16):
            said += data
    os.close(ours)
    return ran.returncode, said, Path(c.object()).read_bytes()


def test_a_terminal_sees_what_the_compiler_would_show_it(c):
    """Behind the cache the compiler's stderr is a pipe; colours are asked for by argument, and kept apart from plain messages.

    With -g gcc's messages lose their links: asked for by argument, they would show in the object.
    """
    c.write("x.c", "int f(void) { int unused; return 1; }\n")

    def without_links(answer):
        status, said, made = answer
        return status, re.sub(rb"\x1b\]8;;[^\x1b]*\x1b\\|\x1b\]8;;[^\a]*\a", b"", said), made

    for option in ("-O1", "-g"):
        words = (c.name, "-Wall", option, "-c", "x.c", "-o", c.object())
        plain = on_a_terminal(c, *words)
        assert b"\x1b[" in plain[1]
        if option == "-g":
            plain = without_links(plain)
        for _ in range(2):
            assert on_a_terminal(c, str(c.world.client), *words) == plain
        assert b"\x1b[" not in c.expect("miss", *words[1:]).stderr
    assert c.world.counts()["cache_hits"] == 2


@pytest.mark.parametrize(("when", "terminal", "pipe"), [("auto", True, False), ("always", True, True), ("never", False, False)])
def test_who_says_when_to_colour_is_obeyed_on_a_terminal_and_on_a_pipe(c, when, terminal, pipe):
    """One cache for both, which must not mix them up."""
    c.write("x.c", "int f(void) { int unused; return 1; }\n")
    words = ("-Wall", f"-fdiagnostics-color={when}", "-c", "x.c", "-o", c.object())
    shown = on_a_terminal(c, c.name, *words)
    assert (b"\x1b[" in shown[1]) == terminal
    for _ in range(2):
        assert on_a_terminal(c, str(c.world.client), c.name, *words) == shown
    for _ in range(2):
        assert (b"\x1b[" in c.world.cached(*words, rustc=c.name).stderr) == pipe
    c.expect("hit", *words)
    assert on_a_terminal(c, str(c.world.client), c.name, *words) == shown


@pytest.mark.parametrize("c", ["gcc"], indirect=True)
def test_gccs_palette_is_an_input_where_it_colours(c):
    """GCC_COLORS says which colours, and an empty one none."""
    c.write("x.c", "int f(void) { int unused; return 1; }\n")
    words = ("-Wall", "-c", "x.c", "-o", c.object())
    seen = set()
    for palette in ("warning=01;35", "warning=01;36", ""):
        shown = on_a_terminal(c, "gcc", *words, GCC_COLORS=palette)
        for _ in range(2):
            assert on_a_terminal(c, str(c.world.client), "gcc", *words, GCC_COLORS=palette) == shown
        seen.add(shown[1])
        always = ("-fdiagnostics-color=always", *words)
        c.expect("miss", *always, env={"GCC_COLORS": palette})
        c.expect("hit", *always, env={"GCC_COLORS": palette})
    assert len(seen) == 3
    assert c.world.counts()["cache_hits"] == 6


@pytest.mark.parametrize("form", ["json", "sarif-file"])
@pytest.mark.parametrize("c", ["gcc"], indirect=True)
def test_messages_for_programs_come_back(c, form):
    """On stderr, or in a file beside, under a name of gcc's."""
    c.write("x.c", "int f(void) { int unused; return 1; }\n")
    words = ("-Wall", f"-fdiagnostics-format={form}", "-c", "x.c", "-o", c.object())
    plain = c.world.uncached(*words, rustc="gcc")
    left = {path.name for path in c.p.iterdir()} - {"x.c"}
    if plain.status:
        pytest.skip(f"this gcc has no -fdiagnostics-format={form}")
    assert (plain.stderr.startswith(b"[{")) == (form == "json")
    for name in left:
        os.unlink(c.p / name)
    c.expect("miss", *words)
    for name in left:
        os.unlink(c.p / name)
    c.world.cached(*words, rustc="gcc")
    assert {path.name for path in c.p.iterdir()} - {"x.c"} == left
    c.expect("hit", *words)
    c.expect("miss", *words[:-1], c.object("y.o"))


def test_messages_that_name_files_as_they_really_are_are_another_checkout_s(c):
    """clang's SARIF says where a source beside the cwd is from the root on, and so nothing of the cwd itself."""
    clang = shutil.which("clang-19") or "clang"
    if c.is_gcc or not c.observed:
        pytest.skip("clang's; left to the client without observation")
    if c.world.run([clang, "-fdiagnostics-format=sarif", "-fsyntax-only", "-xc", "/dev/null"], None, {}).returncode:
        pytest.skip("a clang before version 16")
    for place in ("one", "two"):
        c.write(f"{place}/x.c", "int f(void) { int unused; return 1; }\n")
        (c.p / place / "build").mkdir()
    args = ("-Wall", "-fdiagnostics-format=sarif", "-c", "../x.c", "-o", c.object())
    for verdict, place in (("miss", "one"), ("miss", "two"), ("hit", "one")):
        c.expect(verdict, *args, cwd=c.p / place / "build", rustc=clang, asks=True)


def test_the_assembler_that_reads_from_a_pipe_calls_its_input_so(c):
    """-pipe: gcc's says {standard input} where it warns, and by -Wa,-g in the object; without it a temporary file's name."""
    c.write("x.c", '__asm__(".warning \\"careful\\"");\n')
    warned = c.compile_twice("-pipe", "-O2", "-MMD", "-c", "x.c", "-o", c.object())
    assert (b"{standard input}" in warned.stderr) == c.is_gcc
    before = c.world.counts()
    assert c.world.cached("-O2", "-MMD", "-c", "x.c", "-o", c.object(), rustc=c.name).stderr.count(b"{standard input}") == 0
    assert c.world.verdict_since(before) == "miss"
    c.expect("hit", "-pipe", "-O2", "-MMD", "-c", "x.c", "-o", c.object())


def test_how_long_the_assembler_took_is_not_told_again(c):
    """as says it on stderr."""
    if not c.is_gcc:
        return
    c.write("x.c", "int f(void) { return 1; }\n")
    for word in ("-Wa,--statistics", "-Wa,--noexecstack,-statistics"):
        assert b"time" in c.world.cached(word, "-c", "x.c", "-o", c.object(), rustc=c.name).stderr
    assert c.world.reasons() == {"-Wa,": 2}


def test_words_for_the_assembler_behind_a_harmless_one_count(c):
    """-Wa,--noexecstack,-a=FILE writes a listing; without observation it would be missing after a hit."""
    if not c.is_gcc:
        return
    c.write("x.c", "int f(void) { return 1; }\n")
    args = (f"-Wa,--noexecstack,-aln={c.object('x.lst')}", "-c", "x.c", "-o", c.object())
    if not c.left_out("C without observation: -Wa,", *args):
        assert "x.lst" in c.compile_twice(*args).names()


def test_a_message_quotes_the_file_that_a_line_directive_names_as_it_is_now(c):
    """A parser that bison made: gcc opens the grammar to show the line, which is in no list of what it reads."""
    c.write("x.c", '#line 2 "x.y"\nint f(void) { int u; return u; }\n')
    c.write("x.y", "\nint f(void) { int u; return u; } // one\n")
    args = ("-O1", "-Wall", "-c", "x.c", "-o", c.object())
    if not c.observed:
        c.not_stored("may read files of which no list tells, without observation", *args)
    else:
        c.compile_twice(*args)
    c.write("x.y", "\nint f(void) { int u; return u; } // two\n")
    c.expect("miss" if c.is_gcc or not c.observed else "hit", *args)
    (c.p / "x.y").unlink()
    c.expect("miss" if c.is_gcc or not c.observed else "hit", *args)
    c.compile_twice("-O2", "-c", "x.c", "-o", c.object())
