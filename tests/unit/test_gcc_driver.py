"""What the C driver makes of command lines, without a compiler."""

from __future__ import annotations

import pytest

from sccache_py.compilers import c_options
from sccache_py.compilers.c_dialects import CLANG, GCC
from sccache_py.compilers.gcc import C
from sccache_py.model import Plan, Reason, Refusal

CWD = "/project/build"


def parse(*argv: str, dialect=GCC, plus: bool = False, cwd: str = CWD, pwd: str = "", opaque: bool = False):
    return C(dialect, plus, opaque).parse(argv, cwd, pwd or cwd)


def plan(*argv: str, **how) -> Plan:
    made = parse(*argv, **how)
    assert isinstance(made, Plan), made
    return made


@pytest.mark.parametrize("table", [c_options.COMMON_OPTIONS, c_options.GCC_OPTIONS, c_options.CLANG_OPTIONS])
def test_option_tables_are_sorted_and_have_no_duplicates(table):
    """Review is by eye; of two entries of one name one would silently win."""
    names = [option.name for option in table]
    assert names == sorted(set(names))


def test_dialects_repeat_no_common_option():
    """The same, across tables."""
    common = {option.name for option in c_options.COMMON_OPTIONS}
    for table in (c_options.GCC_OPTIONS, c_options.CLANG_OPTIONS):
        assert not common.intersection(option.name for option in table)


def test_every_extensions_language_is_counted():
    """A language that no statistics line names would be a KeyError in a build."""
    assert set(c_options.EXTENSIONS.values()) <= set(c_options.LANGUAGES)


@pytest.mark.parametrize(
    ("argv", "output", "depfile"),
    [
        (("-c", "src/x.c"), "x.o", None),
        (("-c", "src/x.c", "-o", "out/y.o"), "out/y.o", None),
        (("-c", "src/x.c", "-oy.o"), "y.o", None),
        (("-S", "x.c"), "x.s", None),
        (("-c", "src/x.c", "-MD"), "x.o", "x.d"),
        (("-S", "src/x.c", "-MMD"), "x.s", "x.d"),
        (("-c", "x.c", "-MD", "-o", "out/y.obj.o"), "out/y.obj.o", "out/y.obj.d"),
        (("-c", "x.c", "-MD", "-MF", "f", "-o", "y.o"), "y.o", "f"),
        (("-c", "x.c", "-Wp,-MD,f.d", "-o", "y.o"), "y.o", "f.d"),
        (("x.h",), "x.h.gch", None),
        (("-x", "c++-header", "x", "-o", "p.gch"), "p.gch", None),
        (("-c", "x.c", "-o", "../other/y.o"), "../other/y.o", None),
    ],
)
def test_outputs_are_known_by_name(argv, output, depfile):
    """They must be there after a success, under the path that the compiler itself uses: joined, not normalised."""
    made = plan(*argv)
    assert made.must_write == tuple(f"{CWD}/{name}" for name in (output, depfile) if name is not None)


def test_names_of_outputs_are_not_in_the_key():
    """Two targets of one source, and two build directories, share an object."""
    one = plan("-c", "x.c", "-o", "a.o", "-MD", "-MF", "a.d", "-MT", "a")
    two = plan("-c", "x.c", "-o", "b/b.o", "-MD", "-MF", "c.d", "-MT", "d", cwd="/elsewhere")
    assert one.arguments == two.arguments


@pytest.mark.parametrize(
    "options",
    [("-g",), ("--coverage",), ("-gsplit-dwarf",), ("-flto",), ("-fprofile-generate",), ("-Xassembler", "-adhln"), ("-Wa,-al=x",)],
)
def test_the_cwd_is_in_the_key_where_an_output_names_it(options):
    """Debug information of another checkout shows its sources."""
    one, two = (plan(*options, "-c", "x.c", cwd=cwd) for cwd in ("/a", "/b"))
    assert one.arguments != two.arguments
    assert one.cwd_in_key


@pytest.mark.parametrize(
    "options",
    [
        ("--coverage",),
        ("-fcondition-coverage",),
        ("-fmodules",),
        ("-fpath-coverage",),
        ("-fpath-coverage-limit=9", "-fpath-coverage"),
        ("-gsplit-dwarf",),
        ("-flto=auto",),
        ("-fcallgraph-info",),
        ("-Xclang", "-x"),
    ],
)
def test_the_outputs_name_is_in_the_key_where_an_output_names_it(options):
    """Two -o names gave different objects."""
    dialect = CLANG if "-Xclang" in options else GCC
    one, two = (plan(*options, "-c", "x.c", "-o", name, dialect=dialect) for name in ("a.o", "b.o"))
    assert one.arguments != two.arguments
    assert not one.exact_outputs


def test_a_file_that_is_called_like_the_object_is_told_by_role():
    """Firmware builds say -fstack-usage in every compile; a name of which the compilers make different ones counts."""
    one, two = (plan("-fstack-usage", "-c", "x.c", "-o", f"{name}.o") for name in ("a", "sub/b"))
    assert one.arguments == two.arguments
    assert two.must_write == (f"{CWD}/sub/b.o", f"{CWD}/sub/b.su")
    assert one.exact_outputs
    assert not any(plan("-fstack-usage", "-c", "x.c", "-o", name).exact_outputs for name in ("a", ".o", "/dev/null"))


def test_every_word_counts_with_its_boundary():
    """-DA B is not -DAB, and an order is not another."""
    keys = [
        plan("-c", *words).arguments
        for words in (("-DA", "x.c"), ("-DAB", "x.c"), ("-D", "A B", "x.c"), ("-UA", "x.c"), ("-Ia", "-Ib", "x.c"), ("-Ib", "-Ia", "x.c"))
    ]
    assert len(set(keys)) == len(keys)


def test_equal_spellings_of_an_option_are_alike():
    """-I dir and -Idir mean the same."""
    assert plan("-c", "-I", "d", "-D", "A", "x.c").arguments == plan("-c", "-Id", "-DA", "x.c").arguments
    assert plan("-c", "--pipe", "x.c").arguments == plan("-c", "-pipe", "x.c").arguments
    assert plan("--compile", "--output=y.o", "--warn-all", "x.c").arguments == plan("-c", "-o", "y.o", "-Wall", "x.c").arguments
    assert plan("-c", "--debug=0", "--specs=a", "x.c").arguments == plan("-c", "-g0", "-specs=a", "x.c").arguments
    assert parse("-c", "--warn-a,--statistics", "x.c") == parse("-c", "-Wa,--statistics", "x.c")


def test_clang_that_reads_words_as_another_compiler_does_is_refused():
    """As cl it reads response files by other rules for quotes, too."""
    assert parse("--driver-mode=cl", "-c", "x.c", dialect=CLANG) == Refusal(Reason.REFUSED_OPTION, "--driver-mode=")
    plan("--driver-mode=g++", "-c", "x.c", dialect=CLANG)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), Reason.NOT_COMPILING),
        (("--version",), Reason.NOT_COMPILING),
        (("-V",), Reason.NOT_COMPILING),
        (("-v",), Reason.NOT_COMPILING),
        (("-v", "-c", "x.c"), Refusal(Reason.REFUSED_OPTION, "-v")),
        (("-print-prog-name=as",), Reason.NOT_COMPILING),
        (("x.c", "-o", "prog", "--print-search-dirs"), Reason.NOT_COMPILING),  # meson asks so
        (("x.c", "-o", "prog"), Reason.NOT_COMPILING),
        (("x.o", "-o", "prog"), Reason.NOT_COMPILING),
        (("-flto", "-fno-lto", "x.o", "-o", "prog"), Reason.NOT_COMPILING),
        (("-flto=auto", "x.o", "y.c", "-o", "prog"), Reason.NOT_COMPILING),
        (("-flto", "x.o", "-Wl,--build-id=uuid"), Reason.NOT_COMPILING),
        (("-flto", "x.o", "--version"), Reason.NOT_COMPILING),
        (("-flto", "-###", "x.o"), Reason.NOT_COMPILING),
        (("-c",), Reason.MISSING_INPUT),
        (("-c", "-o"), Reason.BAD_ARGUMENTS),
        (("-c", "x.c", "-MD", "-MT", "|"), Reason.BAD_ARGUMENTS),
        (("-c", "x.c", "y.c"), Reason.MANY_INPUTS),
        (("-c", "-x", "c", "-"), Reason.STDIN),
        (("-c", "x.c", "-o", "-"), Reason.OUTPUT_IS_STDOUT),
        (("-c", "x.c", "-o", "/dev/stdout"), Reason.OUTPUT_IS_STDOUT),
        (("-c", "x.c", "-MD", "-MF", "/dev/stderr"), Reason.OUTPUT_IS_STDOUT),
        (("-E", "x.c"), Refusal(Reason.REFUSED_OPTION, "-E")),
        (("-M", "-c", "x.c"), Refusal(Reason.REFUSED_OPTION, "-M")),
        (("-save-temps=obj", "-c", "x.c"), Refusal(Reason.REFUSED_OPTION, "-save-temps")),
        (("-ftime-report", "-c", "x.c"), Refusal(Reason.REFUSED_OPTION, "-ftime-report")),
        (("-aux-info", "-", "-c", "x.c"), Reason.OUTPUT_IS_STDOUT),
        (("-frepo", "-c", "x.cc"), Refusal(Reason.REFUSED_OPTION, "-frepo")),
        (("-gen-decls", "-c", "x.m"), Refusal(Reason.REFUSED_OPTION, "-gen-decls")),
        (("--what=ever", "-c", "x.c"), Refusal(Reason.UNKNOWN_OPTION, "--what")),
        (("-c", "x.f90"), Refusal(Reason.UNKNOWN_LANGUAGE, ".f90")),
        (("-x", "ada", "-c", "x"), Refusal(Reason.UNKNOWN_LANGUAGE, "ada")),
    ],
)
def test_what_is_not_cached_says_why(argv, expected):
    """The reason is the statistic."""
    assert parse(*argv) == expected


def test_two_versions_that_are_called_alike_are_two_drivers():
    """Plans are remembered by the driver's name, and gcc 9 writes the targets of a depfile in another order than gcc 10."""
    assert C(GCC, False, version=9).name != C(GCC, False, version=10).name


def test_an_options_name_is_the_statistic():
    """--show-stats counts by it."""
    assert Refusal(Reason.REFUSED_OPTION, "-E").value == "-E"
    assert Refusal(Reason.UNKNOWN_OPTION, "--what").value == "unhandled option --what"


@pytest.mark.parametrize("word", ["-emit-interface-stubs", "-emit-ast", "-extract-api", "-object-file-name=y.o"])
def test_long_words_of_clangs_are_no_short_ones_with_a_value(word):
    """-e mit-interface-stubs would be the linker's to read, -o bject-file-name=… the output's name."""
    assert parse(word, "-c", "x.c", "-o", "x.o", dialect=CLANG).value.startswith(word[:6])


def test_implicit_modules_are_refused_and_explicit_ones_are_not():
    """Implicit ones fill a cache of clang's own."""
    assert parse("-fmodules", "-c", "x.c", dialect=CLANG) == Refusal(Reason.REFUSED_OPTION, "-fmodules")
    plan("-fmodules", "-fno-implicit-modules", "-fmodule-file=a.pcm", "-c", "x.c", dialect=CLANG)
    assert plan("--precompile", "-std=c++20", "x.cppm", dialect=CLANG).must_write == (f"{CWD}/x.pcm",)


@pytest.mark.parametrize("option", ["-march=native", "-mtune=native", "-mcpu=native"])
def test_native_is_this_processor(option):
    """Another machine with the same cache directory has another processor."""
    assert plan(option, "-c", "x.c").native_cpu
    assert not plan("-march=x86-64", "-c", "x.c").native_cpu


def test_what_adds_options_of_its_own_may_add_native():
    """A wrapper script, gcc's specs and clang's configuration files stand between the command line and the compiler."""
    assert plan("-c", "x.c", opaque=True).native_cpu
    assert plan("-specs=mine", "-c", "x.c").native_cpu
    assert plan("--config", "mine.cfg", "-c", "x.c", dialect=CLANG).native_cpu


def test_a_prefix_map_takes_the_cwd_out_of_the_key_and_leaves_what_follows_it():
    """/a/one and /b/one under maps of /a and /b give the same; /a/two does not."""
    keys = {
        cwd: plan("-g", f"-ffile-prefix-map={cwd.rpartition('/')[0]}=.", "-c", "x.c", cwd=cwd).arguments
        for cwd in ("/a/one", "/b/one", "/a/two")
    }
    assert keys["/a/one"] == keys["/b/one"] != keys["/a/two"]


def test_a_map_that_covers_macros_only_leaves_debug_information():
    """-fmacro-prefix-map changes __FILE__, not DW_AT_comp_dir."""
    assert plan("-g", f"-fmacro-prefix-map={CWD}=.", "-c", "x.c").cwd_in_key


def test_the_cwd_is_told_as_the_compiler_names_it():
    """$PWD through a link."""
    assert plan("-g", "-c", "x.c", pwd="/link").arguments != plan("-g", "-c", "x.c").arguments


def test_a_script_that_may_add_options_has_its_names_in_the_key():
    """It may say -g, and compress it."""
    made = plan("-c", "x.c", opaque=True)
    assert made.cwd_in_key
    assert made.told_variables == ()


@pytest.mark.parametrize("option", ["--gcc-install-dir=/g/12", "--gcc-toolchain=/g", "--gcc-triple=x86_64-linux-gnu"])
def test_another_gcc_for_clang_may_bring_other_programs(option):
    """PATH counts then."""
    assert plan(option, "-c", "x.c", dialect=CLANG).told_variables == ()


def test_only_a_command_line_that_leaves_it_open_is_coloured_for_a_terminal():
    """-fdiagnostics-color=never stays never; what records its options is not given any."""
    driver = C(GCC, False)
    terminal = {"TERM": "xterm"}
    assert driver.terminal_arguments(plan("-c", "x.c"), terminal, 80) == ("-fdiagnostics-color=always",)
    assert driver.terminal_arguments(plan("-c", "x.c"), {"TERM": "xterm-256color"}, 80)[1:] == ("-fdiagnostics-urls=always",)
    assert C(GCC, False, version=9).terminal_arguments(plan("-c", "x.c"), {"TERM": "xterm-256color"}, 80)[1:] == ()
    assert driver.terminal_arguments(plan("-c", "x.c"), {"TERM": "dumb"}, 80) == ()
    for option in ("-fdiagnostics-color=never", "-fno-diagnostics-color", "-frecord-gcc-switches"):
        assert driver.terminal_arguments(plan("-c", option, "x.c"), terminal, 80) == ()
    clang = C(CLANG, False)
    assert clang.terminal_arguments(plan("-c", "x.c", dialect=CLANG), terminal, 80) == ("-fcolor-diagnostics", "-fmessage-length=80")


@pytest.mark.parametrize(
    ("version", "env", "coloured"),
    [
        (14, {"TERM": "xterm", "NO_COLOR": "1"}, True),
        (17, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (17, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (18, {"TERM": "wezterm"}, True),
        (19, {"TERM": "wezterm"}, False),
        (19, {"TERM": "tmux-256color"}, True),
        (19, {}, False),
    ],
)
def test_each_clang_colours_what_it_would_colour_without_us(version, env, coloured):
    """It knows NO_COLOR from 17 on, and from 19 on terminals by their names alone; what we add would be stronger."""
    words = C(CLANG, False, version=version).terminal_arguments(plan("-c", "x.c", dialect=CLANG), env, 80)
    assert ("-fcolor-diagnostics" in words) == coloured


def test_variables_that_say_what_the_command_line_does_not_are_refused():
    """They append to files, or add options."""
    driver = C(GCC, False)
    assert driver.refused_variable({"DEPENDENCIES_OUTPUT": "f"}) == Refusal(Reason.REFUSED_VARIABLE, "DEPENDENCIES_OUTPUT")
    assert driver.refused_variable({"DEPENDENCIES_OUTPUT": "", "CPATH": "x"}) is None


@pytest.mark.parametrize(
    ("source", "plus", "language", "dialect"),
    [
        ("x.c", False, "C/C++", "c [gcc]"),
        ("x.c", True, "C/C++", "c++ [gcc]"),
        ("x.cc", False, "C/C++", "c++ [gcc]"),
        ("x.mm", False, "C/C++", "objc++ [gcc]"),
        ("x.S", False, "Assembler", "assembler [gcc]"),
        ("x.ii", False, "C/C++", "c++ [gcc]"),
    ],
)
def test_languages_are_counted_as_sccache_counts_them(source, plus, language, dialect):
    """--show-stats and its JSON are read by scripts."""
    made = plan("-c", source, plus=plus)
    assert (made.language, made.dialect) == (language, dialect)
