"""From what was seen to what must hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sccache_py.compilers.c_dialects import GCC
from sccache_py.compilers.gcc import C
from sccache_py.compilers.rustc import Rustc
from sccache_py.conditions import (
    IGNORED_PATHS,
    IGNORED_VARIABLES,
    WHICH_VARIABLES,
    Draft,
    asked_by_all,
    asked_by_macros,
    judge,
    value_of,
)
from sccache_py.model import Observation, OwnOutputs, Plan, Reason

OUTPUTS = ["/t/deps/x.d", "/t/deps/libx.rmeta"]
COVERED = ("/opt/rust/lib/rustlib/host/", "/opt/rust/bin/rustc")


def plan(*more: str) -> Plan:
    argv = ["--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata", "--out-dir", "/t/deps", "-L", "dependency=/t/deps"]
    found = Rustc().parse([*argv, *more, "src/lib.rs"], "/p", "/p")
    assert isinstance(found, Plan)
    return found


def decide(seen: Observation, left: list[str] | None = None, env: tuple[str, ...] = (), **how) -> Draft | Reason:
    seen.written = seen.written or OUTPUTS
    return judge(plan(), seen, COVERED, ["/dev/fd/9"], seen.written if left is None else left, env, **how)


def draft(seen: Observation, **how) -> Draft:
    found = decide(seen, **how)
    assert isinstance(found, Draft), found
    return found


def test_every_exception_has_its_reason():
    """A name that is left out is a promise."""
    assert all(IGNORED_PATHS.values())
    assert all(IGNORED_VARIABLES.values())
    assert list(IGNORED_PATHS) == sorted(IGNORED_PATHS)
    assert list(IGNORED_VARIABLES) == sorted(IGNORED_VARIABLES)


@pytest.mark.parametrize(
    ("images", "linked", "is_stored"),
    [
        (["uname"], True, False),
        (["sh", "hostname"], True, False),
        (["sh", "uname"], True, True),
        (["sh", "nproc"], False, False),
        (["sh", "ls"], False, True),
    ],
)
def test_programs_that_say_which_machine_this_is_prevent_storing(images, linked, is_stored):
    """But a script that links may look what the system is called."""
    seen = Observation(images=["/opt/rust/bin/rustc", *(f"/usr/bin/{name}" for name in images)], written=OUTPUTS)
    found = judge(replace(plan(), linked=linked), seen, COVERED, [], OUTPUTS, ())
    assert isinstance(found, Draft) if is_stored else found is Reason.SPECIAL_FILE


def test_what_the_identity_stands_for_is_no_condition():
    """The toolchain was hashed once; only that, and not all below its prefix."""
    found = draft(Observation(read=["/opt/rust/lib/rustlib/host/lib/libstd.rlib", "/opt/rust/bin/rustc", "/opt/rust/src/app/a.rs"]))
    assert found.read == ["/opt/rust/src/app/a.rs"]


def test_a_map_of_the_toolchains_directory_is_of_that_directory_alone():
    """rustc maps the paths of the standard library's sources, which no condition names."""
    mapped, seen = plan("--remap-path-prefix", "/t=/src"), Observation(written=OUTPUTS)
    for covered, pins in ((COVERED, []), (("/t/rust/lib/rustlib/host/",), ["m0"])):
        found = judge(mapped, seen, covered, [], OUTPUTS, ())
        assert isinstance(found, Draft)
        assert found.pins == pins


def test_what_may_show_through_an_output_is_a_condition():
    """Written without truncation: what was there before is left where it was longer.  Of what is gone nothing shows."""
    seen = Observation(written=[*OUTPUTS, "/t/deps/log"], shining=["/t/deps/log", "/tmp/gone"])
    assert draft(seen).read == ["/t/deps/log"]


def test_a_directory_of_temporary_files_is_listed_for_these_alone():
    """By the make that runs the parts of a link with -flto; any other directory may decide."""
    linking = C(GCC, plus=False).parse(["-flto=auto", "a.o", "-o", "prog"], "/p", "/p")
    assert isinstance(linking, Plan)
    seen = Observation(written=["/p/prog"], made={"/p/prog", "/tmp/cc1.ltrans0.o"}, listed=["/tmp", "/usr/lib"])
    found = judge(linking, seen, (), [], ["/p/prog"], ())
    assert isinstance(found, Draft)
    assert found.listed == ["/usr/lib"]


def test_the_kernels_own_files_are_no_conditions():
    """They differ from process to process."""
    found = draft(Observation(read=["/proc/self/maps", "/dev/fd/9", "/sys/fs/cgroup/cpu.max"], absent=["/proc/self/nope"]))
    assert (found.read, found.absent) == ([], [])


@pytest.mark.parametrize(
    "path", ["/proc/self/environ", "/proc/1/cmdline", "/proc/sys/kernel/hostname", "/dev/stdin", "/dev/fd/3", "/sys/class/net/eth0/address"]
)
def test_a_special_file_as_input_prevents_storing(path):
    """It is not the same file for the next process that names it."""
    assert decide(Observation(read=[path])) is Reason.SPECIAL_FILE


def test_what_the_kernel_says_of_the_machine_counts_where_a_macro_read_it():
    """Its names and memory prevent storing; how many processors there are can be asked again."""
    assert decide(Observation(read=["/proc/cpuinfo"], machine={"/proc/cpuinfo"})) is Reason.SPECIAL_FILE
    assert draft(Observation(machine={"/proc/self/cgroup"})).processors_count
    assert not draft(Observation(read=["/proc/cpuinfo", "/proc/self/cgroup"], machine={"/proc/self/maps"})).processors_count


def test_a_file_written_elsewhere_prevents_storing():
    """A hit would not write it."""
    assert decide(Observation(written=[*OUTPUTS, "/home/me/.cache/x"])) is Reason.WROTE_ELSEWHERE


def test_a_file_written_elsewhere_and_gone_again_does_not():
    """Temporary files."""
    assert isinstance(decide(Observation(written=[*OUTPUTS, "/tmp/x"]), left=OUTPUTS), Draft)


def test_a_file_removed_elsewhere_prevents_storing():
    """A hit would not remove it."""
    assert decide(Observation(removed=["/p/old"])) is Reason.WROTE_ELSEWHERE


def test_what_would_have_been_removed_must_not_be_there():
    """gcc's counts of earlier runs: a hit would leave them.  rustc tidies up its own."""
    coverage = C(GCC, plus=False).parse(["--coverage", "-frandom-seed=1", "-c", "x.c"], "/p", "/p")
    assert isinstance(coverage, Plan)
    for seen, verdict in (
        (Observation(removed=["/p/x.gcda"]), Reason.WROTE_ELSEWHERE),
        (Observation(spared=["/p/x.gcda", "/tmp/x"]), ["/p/x.gcda"]),
    ):
        found = judge(coverage, seen, COVERED, [], ["/p/x.o"], ())
        assert (found.absent if isinstance(found, Draft) else found) == verdict
    assert draft(Observation(removed=["/t/deps/old"], spared=["/t/deps/older"])).absent == []


def test_a_missing_output_prevents_storing():
    """rustc ended well and something is not there: then we do not understand what it did."""
    assert decide(Observation(), left=OUTPUTS[:1]) is Reason.OUTPUT_MISSING


def test_everything_left_in_the_output_directory_is_an_output():
    """No table says what a macro writes there."""
    assert draft(Observation(written=[*OUTPUTS, "/t/deps/extra"])).outputs == [*OUTPUTS, "/t/deps/extra"]


def test_this_units_own_outputs_are_no_conditions():
    """They are there or not, depending on what ran before."""
    found = draft(Observation(absent=["/t/deps/libx.rlib"], present=["/t/deps/libx.rmeta", "/t/deps/liby.rmeta"]))
    assert (found.absent, found.present) == ([], ["/t/deps/liby.rmeta"])


def test_what_only_begins_like_an_output_is_a_condition():
    """`rustc main.rs -o m` with `mod macros;`: that there was no macros/mod.rs."""
    own = OwnOutputs(frozenset(("/s/m",)), ("/s/m.",), frozenset("do"))
    ours, sources = ["/s/m", "/s/m.d", "/s/m.cgu.0.o"], ["/s/m.rs", "/s/macros/mod.rs", "/s/m.d/mod.rs", "/s/m.x/y.d"]
    assert [path for path in (*ours, *sources) if path in own] == ours
    assert all(path not in OwnOutputs() for path in ours)


def test_names_in_a_dependency_directory_decide_nothing():
    """It gets a file with every crate; rustc looks for names that it knows whole."""
    assert draft(Observation(listed=["/t/deps", "/p/assets"])).listed == ["/p/assets"]


def test_variables_that_are_asked_for_count_less_those_with_a_reason():
    """RUST_BACKTRACE differs from terminal to terminal."""
    assert draft(Observation(asked=["HOME", "RUST_BACKTRACE", "MAKEFLAGS"])).asked == ["HOME"]


def test_libraries_that_were_not_there_at_the_start_may_have_been_found_by_name():
    """A macro's, and what a linker read.  Not the macro, which is opened by its path, and not the linker's own, unless found so."""
    own, found = "/usr/lib/libbfd.so", "/opt/l/libz.so.1"
    seen = Observation(read=["/t/deps/libm.so", "/l/libn.so.2", "/usr/lib/libc.so", own, found, "/p/a.sound"], linked={own, found})
    assert draft(seen, env={"LD_LIBRARY_PATH": "/nowhere:/opt/l/"}).libraries == ["libc.so", "libn.so.2", "libz.so.1"]


def test_a_variable_that_the_source_asks_for_counts_whatever_it_is():
    """option_env!("TERM") puts it into the crate."""
    assert draft(Observation(asked=["RUST_BACKTRACE", "TERM"]), named=frozenset(["TERM"])).asked == ["TERM"]
    assert draft(Observation(asked=["RUST_BACKTRACE", "MAKEFLAGS"]), named=None).asked == ["RUST_BACKTRACE"]


@pytest.mark.parametrize("image", ["/bin/sh", "/bin/bash", "/usr/bin/python3.11", "/usr/bin/env", "/bin/busybox"])
def test_all_variables_count_under_a_program_that_takes_all(image):
    """Shells make variables of their whole environment without asking."""
    found = draft(Observation(asked=["HOME"], images=["/opt/rust/bin/rustc", image]), env=("FOO", "PWD", "TERM"))
    assert found.asked == [WHICH_VARIABLES, "FOO", "HOME"]


def test_all_variables_less_those_with_a_reason_count_where_anything_may_have_looked():
    """A macro with env::vars()."""
    assert asked_by_all(["A"], ["B", "TERM", "_", "OLDPWD", "PWD"]) == [WHICH_VARIABLES, "A", "B", "PWD"]


def test_a_variable_that_appears_is_seen_by_who_takes_all():
    """It was not asked for by its name: nobody knew it then."""
    before = value_of({"A": "1", "TERM": "x"}, WHICH_VARIABLES)
    assert before != value_of({"A": "1", "B": "2"}, WHICH_VARIABLES)
    assert before == value_of({"A": "2", "SHLVL": "1", "MAKEFLAGS": "-j"}, WHICH_VARIABLES)


ENV_WITH_PATH = {"PATH": "/usr/local/bin:/usr/bin/"}
LINKED = {"asked": ["PATH"], "absent": ["/usr/local/bin/cc", "/elsewhere/x"], "read": ["/usr/bin/cc"], "images": ["/usr/bin/gcc-12"]}


def test_names_looked_for_along_path_are_found():
    """Each that was found in a directory of PATH, or was not."""
    assert draft(Observation(**LINKED, path_asked_by={"rustc", "collect2", "ld.lld"}), env=ENV_WITH_PATH).sought == ["cc", "gcc-12"]


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"path_asked_by": {"protoc"}}, "/usr/bin"),
        ({"path_asked_by": {""}}, "/usr/bin"),
        ({"plugins_asked": {"PATH"}}, "/usr/bin"),
        ({}, "bin:/usr/bin"),
        ({}, "/usr/bin:"),
        ({}, ""),
    ],
)
def test_where_the_text_of_path_may_be_used_nothing_is_sought(more, path):
    """By a program of which nobody knows what for, a macro, or one that means its own directory."""
    assert draft(Observation(**LINKED, **more), env={"PATH": path}).sought == []


def test_when_a_file_changed_counts_for_macros_and_what_they_start():
    """The compiler and whatever links for it look at files, too, and say nothing of their times."""
    dated = {name: {"/p/a"} for name in ("rustc", "x86_64-linux-gnu-ld.bfd", "rust-objcopy")}
    dated |= {"plugin": {"/p/b"}, "git": {"/p/c", "/p/d"}, "": {"/p/e"}}
    seen = Observation(present=["/p/a", "/p/b", "/p/c", "/p/e"], dated=dated)
    assert draft(seen).dated == ["/p/b", "/p/c", "/p/e"]


def test_a_shell_has_all_of_path():
    """It is a variable of the script."""
    seen = Observation(**{**LINKED, "images": ["/bin/sh"]})
    assert draft(seen, env=ENV_WITH_PATH).sought == []


def test_an_old_output_that_was_opened_and_removed_is_no_input():
    """lld does it to every program that it links anew; one that is kept may well be used."""
    seen = Observation(read=[OUTPUTS[0], "/p/a.rs"], written=OUTPUTS)
    assert draft(seen).read == [OUTPUTS[0], "/p/a.rs"]
    seen.removed.append(OUTPUTS[0])
    assert draft(seen).read == ["/p/a.rs"]


@pytest.mark.parametrize(
    ("images", "plugins_asked", "walk_shows", "all_count"),
    [
        (["/t/bin/rustc"], set(), True, False),
        (["/t/bin/rustc"], {WHICH_VARIABLES}, True, True),
        (["/t/bin/rustc"], set(), False, True),
        (["/t/bin/rustc", "/t/bin/cargo", "/usr/bin/git"], set(), True, False),
        (["/t/bin/rustc", "/usr/bin/printenv"], set(), True, True),
    ],
)
def test_a_macro_that_can_take_all_variables_does_not_always(images, plugins_asked, walk_shows, all_count):
    """Most only could start a program; cargo looks at names that begin like its own."""
    seen = Observation(images=images, plugins_asked=plugins_asked)
    env = {"CARGO_HOME": "/c", "JOB": "1", "CARGO_MAKEFLAGS": ""}
    asked = asked_by_macros(seen, ["A"], env, walk_shows)
    assert (asked == asked_by_all(["A"], env)) == all_count
    if "/t/bin/cargo" in images:
        assert asked == ["A", "CARGO=", "CARGO_HOME", "RUST="]
        assert value_of(env, "CARGO=") == "CARGO_HOME"
        assert value_of(env | {"CARGO_NET_OFFLINE": "1"}, "CARGO=") != "CARGO_HOME"


@pytest.mark.parametrize(("images", "counts"), [(["/t/rustc", "/usr/bin/cc", "/t/rust-lld"], False), (["/bin/sh", "/t/rustc"], True)])
def test_that_rustc_asks_whether_this_is_a_ci_service_decides_nothing(images, counts):
    """A script that is the compiler or the linker may do what it likes with CI."""
    found = draft(Observation(images=images, asked=["CI"]))
    assert ("CI" in found.asked) == counts
