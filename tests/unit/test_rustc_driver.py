"""rustc's command line: what is understood, told by role, and refused."""

from __future__ import annotations

import pytest

from sccache_py.compilers.driver import Told
from sccache_py.compilers.rustc import Rustc
from sccache_py.compilers.rustc_options import OPTIONS
from sccache_py.model import Plan, Reason

CWD = "/project/p"
BASE = ["--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata,link", "--out-dir", "/t/deps"]


def parse(*more: str, cwd: str = CWD) -> Plan:
    plan = Rustc().parse([*BASE, *more, "src/lib.rs"], cwd, cwd)
    assert isinstance(plan, Plan), plan
    return plan


def reason(*argv: str) -> object:
    return Rustc().parse(argv, CWD, CWD)


def test_the_option_table_is_sorted_and_has_no_duplicates():
    """Review is by eye."""
    names = [option.name for option in OPTIONS]
    assert names == sorted(set(names))


@pytest.mark.parametrize(
    "words",
    [
        ("--cfg=a", "--cfg a"),
        ("-Copt-level=3", "-C opt-level=3"),
        ("-Lnative=/n", "-L native=/n"),
        ("-ln", "-l n"),
        ("--edition=2021", "--edition 2021"),
    ],
)
def test_a_value_may_be_joined_or_apart(words):
    """cargo writes both."""
    joined, apart = (parse(*w.split()).arguments for w in words)
    assert joined == apart


def test_two_values_are_not_one_longer_value():
    """sccache joins arguments, so that `-DA B` and `-DAB` are one to it."""
    assert parse("--cfg", "a", "--cfg", "b").arguments != parse("--cfg", "ab").arguments


def test_where_things_lie_is_told_by_role():
    """Another target directory is the same compile."""
    here = Rustc().parse([*BASE, "-L", "dependency=/t/deps", "--extern", "a=/t/deps/liba.rmeta", "src/lib.rs"], CWD, CWD)
    base = [*BASE[:-1], "/elsewhere/deps"]
    there = Rustc().parse([*base, "-L", "dependency=/elsewhere/deps", "--extern", "a=/elsewhere/deps/liba.rmeta", "src/lib.rs"], CWD, CWD)
    assert isinstance(here, Plan)
    assert isinstance(there, Plan)
    assert here.arguments == there.arguments
    assert here.must_write == ("/t/deps/x.d", "/t/deps/libx.rmeta", "/t/deps/libx.rlib")
    assert there.known_inputs == ("/elsewhere/deps/liba.rmeta",)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["--extern", "a=/t/one.rlib", "--extern", "b=/t/two.rlib"], ["--extern", "a=/t/two.rlib", "--extern", "b=/t/one.rlib"]),
        (["--extern", "a=/t/liba.rlib"], ["--extern", "priv:a=/t/liba.rlib"]),
        (["-L", "dependency=/t/deps"], ["-L", "dependency=/t/other"]),
        (["-L", "dependency=/t/deps"], ["-L", "native=/t/deps"]),
        (["-L", "a=b"], ["-L", "a=c"]),
        (["-L", "/n"], ["-L", "native=/n"]),
        (["-Csplit-debuginfo=packed"], ["-Csplit-debuginfo=off"]),
        (["--emit=asm"], ["--emit=obj"]),
    ],
)
def test_what_may_change_the_result_changes_the_arguments(one, other):
    """Each of these pairs reads the same files in the same places, or nearly so.  (`-L a=b` is a directory called so.)"""
    plans = parse(*one), parse(*other)
    assert (plans[0].arguments, plans[0].roles.spellings()) != (plans[1].arguments, plans[1].roles.spellings())


def test_another_output_directory_counts_where_an_object_names_it():
    """With split debug info an object names its .dwo."""
    for flag in ("-Csplit-debuginfo=unpacked", "-Zbinary-dep-depinfo"):
        plans = [Rustc().parse([*BASE[:-1], out, flag, "src/lib.rs"], CWD, CWD) for out in ("/t/one", "/t/two")]
        assert plans[0].arguments != plans[1].arguments


@pytest.mark.parametrize("spelled", ["out", "./out", "/t/deps/", "/t//deps", ".", "../out"])
def test_an_output_directory_that_is_not_plainly_absolute_is_told_as_spelled(spelled):
    """rustc writes it as spelled, and `--out-dir src` is also the beginning of a source's name."""
    plan = Rustc().parse([*BASE[:-1], spelled, "src/lib.rs"], CWD, CWD)
    assert isinstance(plan, Plan)
    assert any(spelled in argument for argument in plan.arguments)


@pytest.mark.parametrize(
    ("maps", "in_key"),
    [
        ([], True),
        (["/project/p=/src"], False),
        (["/work=/src"], True),
        (["/project/p/=/src"], True),
        (["/project/p=/src", "/elsewhere=/e"], False),
        (["/project/p=/src", "/=/all"], True),
        (["/=/all", "/project/p=/src"], False),
        (["/project/pp=/src"], True),
        (["/project=/src"], True),  # the output directory, /t/deps, lies elsewhere
    ],
)
def test_the_cwd_is_in_the_key_unless_the_last_matching_map_is_for_exactly_it(maps, in_key):
    """rustc takes the last map that matches; of a directory above the cwd, the names below it remain in the output."""
    plan = parse(*(word for m in maps for word in ("--remap-path-prefix", m)))
    assert plan.cwd_in_key == in_key
    assert (CWD in " ".join(plan.arguments)) == (in_key or any(m.startswith(("/project/p/", "/project/pp")) for m in maps))


AUTOCFG = ("--crate-type=lib", "--out-dir", "/t/out", "--emit=llvm-ir")


@pytest.mark.parametrize(
    ("words", "is_probe"),
    [
        ((*AUTOCFG, "-"), True),
        ((*AUTOCFG, "-Zthreads=2", "-"), True),
        ((*AUTOCFG, "-Csplit-debuginfo=unpacked", "-"), True),
        ((*AUTOCFG, "src/lib.rs"), False),
        ((*AUTOCFG, "--emit=metadata", "-"), False),
        (("--crate-type=lib", "--emit=llvm-ir", "-"), False),
    ],
)
def test_a_name_by_chance_is_in_no_key_of_a_probe_that_leaves_one_file_unread(words, is_probe):
    """autocfg's crates from standard input; of any other the name may be in what somebody reads."""
    one, other = (Rustc().parse(["--crate-name", f"autocfg_{digit * 16}_1", *words], CWD, CWD) for digit in "ab")
    assert isinstance(one, Plan)
    assert isinstance(other, Plan)
    assert (one.arguments == other.arguments, one.exact_outputs) == (is_probe, is_probe)


@pytest.mark.parametrize("mapped", ["/project/p", "/project"])
def test_a_source_that_is_spelled_out_below_a_map_is_told_by_its_role(mapped):
    """So cargo names the sources of vendored crates, in each checkout another."""

    def told(project: str) -> tuple[str, ...]:
        maps = f"--remap-path-prefix={mapped.replace('/project', project)}=/src"
        plan = Rustc().parse([*BASE[:-1], f"{project}/target", maps, f"{project}/p/src/lib.rs"], f"{project}/p", f"{project}/p")
        assert isinstance(plan, Plan)
        return plan.arguments

    assert told("/project") == told("/other")


@pytest.mark.parametrize(("scope", "in_key"), [("all", False), ("macro", True), ("diagnostics", True), ("debuginfo,macro", True)])
def test_a_map_that_does_not_reach_everything_covers_nothing(scope, in_key):
    """--remap-path-scope=diagnostics leaves the cwd in debug info."""
    assert parse("--remap-path-prefix", "/project/p=/src", "--remap-path-scope", scope).cwd_in_key == in_key


def test_dots_are_left_to_the_kernel():
    """`link/../x` is beside the link's target; only doubled slashes and single dots go."""
    plan = Rustc().parse([*BASE[:-1], "link/../o", "./src//lib.rs"], CWD, CWD)
    assert isinstance(plan, Plan)
    assert plan.source == "/project/p/src/lib.rs"
    assert plan.must_write[0] == "/project/p/link/../o/x.d"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([*BASE], Reason.MISSING_INPUT),
        ([*BASE, "a.rs", "b.rs"], Reason.MANY_INPUTS),
        ([*BASE, "--crate-type", "sdylib", "a.rs"], Reason.CRATE_TYPE),
        ([*BASE, "-Csave-temps", "a.rs"], Reason.SAVE_TEMPS),
        ([*BASE, "-Csave_temps=yes", "a.rs"], Reason.SAVE_TEMPS),
        ([*BASE, "-Zself-profile", "a.rs"], Reason.SELF_PROFILE),
        ([*BASE, "-Zllvm_time_trace", "a.rs"], Reason.SELF_PROFILE),
        ([*BASE, "--json=artifacts,timings", "a.rs"], Reason.SELF_PROFILE),
        ([*BASE, "--sysroot", "/s", "a.rs"], Reason.SYSROOT),
        ([*BASE, "-o", "-", "a.rs"], Reason.OUTPUT_IS_STDOUT),
        ([*BASE, "--emit=metadata=-", "a.rs"], Reason.OUTPUT_IS_STDOUT),
        (["--emit=asm,obj", "-o", "-", "a.rs"], Reason.OUTPUT_IS_STDOUT),
        ([*BASE, "--no-such-option", "a.rs"], Reason.UNKNOWN_OPTION),
        ([*BASE, "-y", "a.rs"], Reason.UNKNOWN_OPTION),
        ([*BASE, "--", "a.rs"], Reason.UNKNOWN_OPTION),
        ([*BASE, "--test=1", "a.rs"], Reason.BAD_ARGUMENTS),
        (["a.rs", "--edition"], Reason.BAD_ARGUMENTS),
        ([*BASE, "--remap-path-prefix", "a", "a.rs"], Reason.BAD_ARGUMENTS),
        ([*BASE, "--unpretty=expanded", "a.rs"], Reason.NOT_COMPILING),
    ],
)
def test_what_is_not_understood_is_refused_with_a_reason(argv, expected):
    """An option that is not in the table may take the next word as its value."""
    assert reason(*argv) is expected


@pytest.mark.parametrize(
    ("flags", "attribute"),
    [
        (["--emit=dep-info,obj"], "leaves_more"),
        (["-Csplit-debuginfo=unpacked"], "leaves_more"),
        (["-Zsome-flag"], "leaves_more"),
        (["-L", "native=/n"], "searches"),
        (["-l", "static=n"], "searches"),
        (["--extern", "found"], "searches"),
        (["--crate-type", "staticlib"], "linked"),
        (["--test"], "linked"),
    ],
)
def test_what_dep_info_cannot_tell_is_marked_for_the_fallback(flags, attribute):
    """Without observation these would be stored with something missing."""
    assert getattr(parse(*flags), attribute)
    assert not getattr(parse(), attribute)


@pytest.mark.parametrize("flags", [["-Ctarget-cpu=native"], ["-Ztune-cpu=native"], ["-Z", "tune_cpu=native"], ["--print", "target-cpus"]])
def test_what_names_this_processor_is_marked(flags):
    """A cache that is copied to another machine, as CI services do."""
    assert parse(*flags).native_cpu
    assert not parse("-Ctarget-cpu=x86-64", "-Ztune-cpu=x86-64", "--print=target-list").native_cpu


def test_a_target_description_is_an_input():
    """`--target mine.json` is a file."""
    assert parse("--target", "mine.json").known_inputs == ("/project/p/mine.json",)
    assert parse("--target", "x86_64-unknown-linux-gnu").known_inputs == ()


def test_a_workspace_wrappers_rustc_is_no_source():
    """clippy-driver is called with rustc's path first."""
    plan = Rustc().parse(["/bin/rustc", *BASE, "src/lib.rs"], CWD, CWD)
    assert isinstance(plan, Plan)
    assert plan.arguments == parse().arguments


class NoLook:
    """Of what rustc lists nothing needs to be looked at."""


def test_both_module_files_are_conditions_of_the_fallback():
    """foo.rs beside foo/mod.rs is an error that dep-info does not foresee."""
    plan = parse()
    told = Told(b"/t/deps/x.d: src/lib.rs src/a/mod.rs src/b.rs\n\n# env-dep:V=1\n")
    draft = Rustc().draft_from_lists(plan, told, {}, CWD, [], NoLook())
    assert draft.read == ["/project/p/src/lib.rs", "/project/p/src/a/mod.rs", "/project/p/src/b.rs"]
    assert draft.absent == ["/project/p/src/a.rs", "/project/p/src/b/mod.rs"]
    assert draft.asked == ["V"]
