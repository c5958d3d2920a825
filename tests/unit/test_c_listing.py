"""Conditions from what a compiler says of itself: a rule of `-M`, the directories of `-v`, and the texts."""

from __future__ import annotations

import posixpath

import pytest

from sccache_py.compilers import c_listing
from sccache_py.compilers.c_dialects import CLANG, GCC
from sccache_py.compilers.c_includes import names_in
from sccache_py.compilers.driver import Told
from sccache_py.compilers.gcc import C
from sccache_py.conditions import Draft
from sccache_py.model import Plan, Reason, Refusal

CWD = "/p"

SAID = """\
Using built-in specs.
Target: x86_64-linux-gnu
ignoring nonexistent directory "/usr/local/include"
ignoring nonexistent directory "first"
#include "..." search starts here:
#include <...> search starts here:
 inc
 /usr/include
End of search list.
COMPILER_PATH=/usr/lib/gcc/12/
LIBRARY_PATH=/usr/lib/gcc/12/:/lib/
"""


class Disk:
    """Files and directories that exist only here."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = {posixpath.join(CWD, name): text for name, text in files.items()}
        self.directories = {"/usr/include", "/usr/lib/gcc/12", "/lib"}
        for name in self.files:
            while (name := posixpath.dirname(name)) != "/":
                self.directories.add(name)

    def identity(self, path: str) -> tuple[int, int] | None:
        path = posixpath.normpath(path)
        return (1, sorted(self.files).index(path)) if path in self.files else None

    def is_directory(self, path: str) -> bool:
        return posixpath.normpath(path) in self.directories

    def names(self, path: str):
        text = self.files.get(posixpath.normpath(path))
        return names_in(text.encode()) if text is not None else None


def draft(files: dict[str, str], listed: str, *options: str, said: str = SAID, env: dict[str, str] | None = None):
    driver = C(GCC, False)
    plan = driver.parse([*options, "-c", "x.c"], CWD, CWD)
    assert isinstance(plan, Plan)
    return driver.draft_from_lists(plan, Told(listed.encode(), said.encode()), env or {}, CWD, (), Disk(files))


def test_a_header_counts_and_so_does_every_place_before_it():
    """In any of these a new file would be found first."""
    made = draft({"x.c": '#include "a.h"\n', "inc/a.h": ""}, "x.o: x.c inc/a.h\n", "-Ifirst", "-Iinc")
    assert isinstance(made, Draft)
    assert {"/p/x.c", "/p/inc/a.h"} == set(made.read)
    assert {"/p/a.h", "/p/first", "/p/a.h.gch", "/usr/local/include"} <= set(made.absent)
    assert "/usr/include/a.h" not in made.absent
    assert {"/usr/lib/gcc/12/specs", "/usr/lib/gcc/12/as", "/usr/lib/gcc/12/x86_64-linux-gnu-as"} <= set(made.absent)
    assert {"/p/inc", "/usr/include"} <= set(made.present)


def test_what_was_asked_for_and_not_included_counts():
    """__has_include leaves no trace in the list."""
    made = draft({"x.c": "#if __has_include(<b.h>)\n#endif\n", "inc/b.h": ""}, "x.o: x.c\n")
    assert isinstance(made, Draft)
    assert "/p/inc/b.h" in made.read
    made = draft({"x.c": "#if __has_include(<b.h>)\n#endif\n"}, "x.o: x.c\n")
    assert isinstance(made, Draft)
    assert {"/p/inc/b.h", "/usr/include/b.h"} <= set(made.absent)


def test_what_the_list_does_not_have_is_followed_too():
    """gcc 12 answers as a preprocessor, which passes over `#pragma GCC target`; the compile does not, and may include more."""
    made = draft({"x.c": '#ifdef __AVX2__\n#include "a.h"\n#endif\n', "a.h": '#include "b.h"\n', "inc/b.h": ""}, "x.o: x.c\n")
    assert isinstance(made, Draft)
    assert {"/p/a.h", "/p/inc/b.h"} <= set(made.read)
    assert "/p/b.h" in made.absent


def test_every_directory_counts_where_a_search_goes_on():
    """#include_next begins behind a directory that the text does not name."""
    files = {"x.c": "#include <a.h>\n", "inc/a.h": "#include_next <a.h>\n", "/usr/include/a.h": ""}
    made = draft(files, "x.o: x.c inc/a.h \\\n /usr/include/a.h\n")
    assert isinstance(made, Draft)
    assert "/usr/include/a.h" in made.read


def test_a_listed_file_that_no_look_up_explains_is_refused():
    """Then something is looked for in a way that we do not know."""
    assert draft({"x.c": "", "inc/a.h": ""}, "x.o: x.c inc/a.h\n") is Reason.FALLBACK_LIST


def test_a_precompiled_header_is_refused_where_it_could_be_taken():
    """Also where the header itself is not."""
    files = {"x.c": '#include "a.h"\n', "inc/a.h": ""}
    for place in ("a.h.gch", "inc/a.h.gch", "inc/a.h.gch/one"):
        assert draft({**files, place: ""}, "x.o: x.c inc/a.h\n") is Reason.FALLBACK_PCH


def test_an_option_whose_value_names_a_file_is_refused():
    """Whatever it means: it may read it, or it may just have written it."""
    for option in ("-fsomething=list", "-Wother=kind:list", "-mthird=a,list"):
        assert draft({"x.c": "", "list": ""}, "x.o: x.c\n", option) is Reason.FALLBACK_FILES
        made = draft({"x.c": ""}, "x.o: x.c\n", option)
        assert isinstance(made, Draft)
        assert "/p/list" in made.absent


def test_variables_under_which_a_compiler_writes_other_files_are_refused():
    """clang's build log is no output that we would bring back."""
    assert draft({"x.c": ""}, "x.o: x.c\n", env={"CC_PRINT_OPTIONS": "1"}) is Reason.FALLBACK_FILES


@pytest.mark.parametrize(
    "said",
    [
        "",
        SAID.replace("End of search list.", ""),
        SAID.replace(" inc\n", " inc (framework directory)\n"),
        SAID + SAID,
        "Configuration file: /etc/clang.cfg\n" + SAID,
    ],
)
def test_what_is_not_understood_is_refused(said):
    """A translated message, several compiles in one, directories with rules of their own."""
    assert draft({"x.c": ""}, "x.o: x.c\n", said=said) is Reason.FALLBACK_LIST


@pytest.mark.parametrize(
    ("text", "files"),
    [
        (b"x.o: x.c a.h \\\n b.h\n", ["x.c", "a.h", "b.h"]),
        (b"x.o: x.c a\\ b$$\\#.h\n", ["x.c", "a b$#.h"]),
        (b"x.o: x.c a\\b.h\n", None),
        (b"x.o:\n", None),
        (b"", None),
    ],
)
def test_a_rule_is_read_as_make_reads_it_or_not_at_all(text, files):
    """gcc and clang do not agree on backslashes."""
    assert c_listing.parse_rule(text) == files


def test_the_question_has_what_decides_and_nothing_that_writes():
    """It must leave no file, and must not fail where the compile does not."""
    plan = C(GCC, False).parse(
        ["-MMD", "-MF", "d", "-MT", "t", "-MP", "-H", "-g", "-I", "inc", "-DX=1", "-c", "x.c", "-o", "x.o", "-Wp,-MD,e"], CWD, CWD
    )
    assert isinstance(plan, Plan)
    assert list(plan.question[len(GCC.question) :]) == ["-g", "-I", "inc", "-D", "X=1", "x.c"]


@pytest.mark.parametrize(
    ("name", "dialect", "words"),
    [
        ("-gsplit-dwarf", GCC, ("-gsplit-dwarf", "x.c")),
        ("--coverage", GCC, ("--coverage", "x.c")),
        ("-B", GCC, ("-Bbin", "x.c")),
        ("-specs=", GCC, ("-specs=s", "x.c")),
        ("-fplugin", GCC, ("-fplugin=p.so", "x.c")),
        ("-Wa,", GCC, ("-Wa,@file", "x.c")),
        ("-Xpreprocessor", GCC, ("-Xpreprocessor", "-I.", "x.c")),
        ("-Wp,", GCC, ("-Wp,-Ix", "x.c")),
        ("-I", GCC, ("-I-", "x.c")),
        ("-finput-charset", GCC, ("-finput-charset=UTF-16", "x.c")),
        ("-MG", GCC, ("-MD", "-MG", "x.c")),
        ("assembler", GCC, ("x.s",)),
        ("assembler-with-cpp", GCC, ("x.S",)),
        ("cpp-output", GCC, ("x.i",)),
        ("c-header", GCC, ("-x", "c-header", "x.h")),
        ("-fsanitize", CLANG, ("-fsanitize=address", "x.c")),
        ("-include-pch", CLANG, ("-include-pch", "a.pch", "x.c")),
        ("-fmodule", CLANG, ("-fmodule-file=a.pcm", "x.c")),
        ("-Xclang", CLANG, ("-Xclang", "-x", "x.c")),
    ],
)
def test_what_no_list_tells_is_refused_by_its_name(name, dialect, words):
    """The statistics say which option it was; where the compiler is observed the same is cached."""
    plan = C(dialect, False).parse([*words, "-c"], CWD, CWD)
    assert isinstance(plan, Plan)
    assert plan.unlisted == Refusal(Reason.FALLBACK_C, name)


def test_quotes_and_brackets_are_followed_each_along_its_own_directories():
    """Also where the including file lies in the first directory of both."""
    files = {"inc/c.h": '#include <b.h>\n#include "b.h"\n', "x.c": "#include <c.h>\n", "/usr/include/b.h": ""}
    said = SAID.replace('"..." search starts here:\n', '"..." search starts here:\n quoted\n')
    made = draft(files, "x.o: x.c inc/c.h /usr/include/b.h\n", said=said)
    assert isinstance(made, Draft)
    assert {"/p/inc/b.h", "/p/quoted/b.h"} <= set(made.absent)


def test_a_file_with_two_names_looks_beside_both():
    """Where `"…"` begins is decided by the name under which the file was reached."""
    files = {"x.c": "#include <a.h>\n", "inc/a.h": '#include "b.h"\n', "/usr/include/b.h": ""}
    made = draft(files, "x.o: x.c other/../inc/a.h /usr/include/b.h\n")
    assert isinstance(made, Draft)
    assert {"/p/inc/b.h", "/p/other/../inc/b.h"} <= set(made.absent)
    assert {"/p/inc/a.h", "/p/other/../inc/a.h"} <= set(made.read)


def test_nothing_is_searched_without_directories():
    """-nostdinc"""
    made = draft({"x.c": "#if __has_include(<b.h>)\n#endif\n"}, "x.o: x.c\n", said=SAID.replace(" inc\n /usr/include\n", ""))
    assert isinstance(made, Draft)
    assert made.read == ["/p/x.c"]


def test_what_a_macro_asks_for_is_looked_for_beside_every_file():
    """A header's macro says __has_include, another file uses it: `"…"` begins in the directory of that one."""
    files = {"x.c": "#include <a.h>\n#if HAS\n#endif\n", "inc/a.h": '#define HAS __has_include("b.h")\n'}
    made = draft(files, "x.o: x.c inc/a.h\n")
    assert isinstance(made, Draft)
    assert {"/p/b.h", "/p/inc/b.h"} <= set(made.absent)
