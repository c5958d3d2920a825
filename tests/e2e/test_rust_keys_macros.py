"""What a proc-macro does inside rustc: files, variables, directories and programs of which the compiler's own lists say nothing.

Most of this only observation can know; the fallback's tests say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from rust_macros import LIB, NO_MACRO_READS, point, using

pytestmark = pytest.mark.slow

_NUMBER = {
    "needs": """\
extern crate proc_macro;
mod c { #[link(name = "number")] extern "C" { pub fn number() -> i32; } }
#[proc_macro] pub fn number(_: proc_macro::TokenStream) -> proc_macro::TokenStream { unsafe { c::number() }.to_string().parse().unwrap() }
""",
    "opens": """\
extern crate proc_macro;
use std::ffi::{c_char, c_void};
extern "C" { fn dlopen(n: *const c_char, f: i32) -> *mut c_void; fn dlsym(h: *mut c_void, n: *const c_char) -> *mut c_void; }
#[proc_macro] pub fn number(_: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let f: extern "C" fn() -> i32 = unsafe { std::mem::transmute(dlsym(dlopen(c"libnumber.so".as_ptr(), 2), c"number".as_ptr())) };
    f().to_string().parse().unwrap()
}
""",
}

NO_MACRO_VARIABLES = "dep-info names no variable that a macro asks for by itself"


def test_a_file_that_a_macro_reads_is_a_condition(world, macros):
    """sqlx and askama read files that no dep-info names."""
    world.needs_observation(NO_MACRO_READS)
    world.write("query.sql", "select 1\n")
    world.changes_text("query.sql", "select 2\n", *using(world, macros, 'm::content!("query.sql")'))


def test_a_macro_behind_a_normal_crate_is_seen_too(world, macros):
    """The crate that uses it has no --extern that looks like a macro."""
    world.needs_observation(NO_MACRO_READS)
    world.write("front.rs", "pub use m::content;\n")
    subprocess.run(
        [world.compiler, "--crate-type", "lib", "--extern", f"m={macros}/libm.so", "--edition=2021", "front.rs"],
        cwd=world.p, env=world.env, check=True,
    )  # fmt: skip
    world.write("query.sql", "select 1\n")
    world.write("src/lib.rs", 'pub const S: &str = front::content!("query.sql");\n')
    args = (*LIB, *world.out, "-L", f"dependency={macros}", "--extern", "front=libfront.rlib", "src/lib.rs")
    world.changes_text("query.sql", "select 2\n", *args)


@pytest.mark.parametrize("left_by_check", [False, True])
def test_a_macro_of_another_build_beside_the_right_one_is_no_condition(world, macros, left_by_check):
    """rustc opens all files that begin like it: what other flags have left in a target directory, what `cargo check` writes meanwhile."""
    world.needs_observation("dep-info names no libraries")
    deps = world.p / "deps"
    deps.mkdir()

    def build(*words: str) -> None:
        subprocess.run([world.compiler, "--edition=2021", "--out-dir", "deps", *words], cwd=world.p, env=world.env, check=True)

    world.write("m.rs", (macros / "m.rs").read_text())
    world.write("front.rs", "pub use m::content;\n")
    right, other = "-00000000000000aa", "-00000000000000bb"
    for end, emit in ((right, ["--emit=link"]), (other, ["--emit=metadata", "--test"] if left_by_check else ["--emit=link,metadata"])):
        build("--crate-type=proc-macro", *emit, f"-Cmetadata={end}", f"-Cextra-filename={end}", "m.rs")
    build("--crate-type=lib", "-Cextra-filename=-00000000000000cc", f"--extern=m=deps/libm{right}.so", "front.rs")
    world.write("query.sql", "select 1\n")
    world.write("src/lib.rs", 'pub const S: &str = front::content!("query.sql");\n')
    args = (*LIB, *world.out, "-Ldependency=deps", "--extern=front=deps/libfront-00000000000000cc.rlib", "src/lib.rs")
    world.compile_twice(*args)
    for left in deps.glob(f"*{other}*"):
        left.write_bytes(b"another")
    world.expect("hit", *args)
    for left in deps.glob(f"*{other}*"):
        left.unlink()
    world.expect("hit", *args)
    build("--crate-type=proc-macro", f"-Cmetadata={right}", f"-Cextra-filename={right}", "-Cstrip=debuginfo", "m.rs")
    world.expect("miss", *args)


def test_a_file_that_a_macro_looked_for_in_vain_is_a_condition(world, macros):
    """A configuration file that appears changes what the macro makes."""
    world.needs_observation(NO_MACRO_READS)
    path = world.p / "conf/query.sql"

    def appear() -> None:
        world.write("conf/query.sql", "select 1\n")

    world.changes(appear, lambda: shutil.rmtree(path.parent), *using(world, macros, 'm::content!("conf/query.sql")'))


def test_a_file_that_a_macro_reads_and_that_goes_is_a_condition(world, macros):
    """The other way round."""
    world.needs_observation(NO_MACRO_READS)
    path = world.write("query.sql", "select 1\n")
    world.changes(path.unlink, lambda: path.write_text("select 1\n"), *using(world, macros, 'm::content!("query.sql")'))


def test_a_file_through_dots_is_the_one_that_the_kernel_finds(world, macros):
    """`link/../x` is not `x`."""
    world.needs_observation(NO_MACRO_READS)
    world.write("far/q.sql", "one\n")
    world.write("q.sql", "a decoy\n")
    (world.p / "far/away").mkdir()
    (world.p / "link").symlink_to("far/away")
    world.changes_text("far/q.sql", "two\n", *using(world, macros, 'm::content!("link/../q.sql")'))


@pytest.mark.parametrize("macro", ["content_by_a_link", "content_out_of_a_directory"])
def test_a_file_behind_what_a_macro_makes_and_removes_is_a_condition(world, macros, macro):
    """The link and the directory are the compile's own; where they lead is not."""
    world.needs_observation(NO_MACRO_READS)
    world.write("query.sql", "select 1\n")
    world.changes_text("query.sql", "select 2\n", *using(world, macros, f'm::{macro}!("query.sql")'))


def test_a_link_that_a_macro_resolves_before_it_reads_is_a_condition(world, macros):
    """include_dir canonicalises first: what it then opens is unchanged when the link points elsewhere."""
    world.needs_observation(NO_MACRO_READS)
    world.write("one", "one\n")
    world.write("two", "two\n")
    link = world.p / "query.sql"
    link.symlink_to("one")
    world.changes(lambda: point(link, "two"), lambda: point(link, "one"), *using(world, macros, 'm::canonical_content!("query.sql")'))


def test_a_linked_directory_that_a_macro_resolves_before_it_reads_is_a_condition(world, macros):
    """The same for a directory on the way."""
    world.needs_observation(NO_MACRO_READS)
    for name in ("one", "two"):
        world.write(f"{name}/query.sql", name)
    link = world.p / "sql"
    link.symlink_to("one")
    world.changes(lambda: point(link, "two"), lambda: point(link, "one"), *using(world, macros, 'm::canonical_content!("sql/query.sql")'))


def test_an_unrelated_file_beside_the_outputs_still_hits(world, macros):
    """The output directory of a cargo build changes with every crate."""
    args = using(world, macros, 'm::content!("none")', "-L", f"dependency={world.o}")
    world.expect("miss", *args)
    (world.o / "libother.rmeta").write_bytes(b"")
    before = world.counts()
    ran = world.run([str(world.client), world.compiler, *args], None, {})
    assert ran.returncode == 0
    assert world.verdict_since(before) == "hit"


@pytest.mark.parametrize(("one", "other"), [("1", "2"), (None, "1"), ("", None)])
def test_a_variable_that_a_macro_asks_for_is_a_condition(world, macros, one, other):
    """DATABASE_URL and the like."""
    world.needs_observation(NO_MACRO_VARIABLES)
    world.changes_env("WHATEVER", one, other, *using(world, macros, 'm::variable!("WHATEVER")'))


@pytest.mark.parametrize("name", ["DATABASE_URL", "SQLX_OFFLINE", "CARGO_WHATEVER", "CARGO_PKG_VERSION", "OUT_DIR"])
def test_variables_that_macros_are_known_to_ask_for_count_in_both_modes(world, macros, name):
    """What SCCACHE_EXTRAENV names by default, and cargo's own."""
    world.changes_env(name, "1", "2", *using(world, macros, f'm::variable!("{name}")'))


@pytest.mark.parametrize("name", ["RUST_LOG", "TERM", "RUST_BACKTRACE"])
def test_a_variable_that_is_ignored_elsewhere_counts_when_a_macro_asks_for_it(make_world, macros, name):
    """A macro with env_logger inside says more or less to stderr by RUST_LOG."""
    world = make_world()
    if name != "RUST_LOG":
        pytest.skip("rustc asks for it too, and a question does not say who asked: see IGNORED_VARIABLES")
    world.changes_env(name, "1", "2", *using(world, macros, f'm::variable!("{name}")'))


@pytest.mark.parametrize("name", ["CARGO_PKG_VERSION", "CARGO_PKG_WHATEVER"])
def test_cargos_package_variables_count_for_a_macro_that_takes_all(world, macros, name):
    """env::vars() asks for no name: these are always in the recipe."""
    world.changes_env(name, "1", "2", *using(world, macros, 'v::variables!("CARGO_PKG_")'))


@pytest.mark.parametrize("before", ["red", None])
def test_any_variable_counts_for_a_macro_that_takes_all(world, macros, before):
    """Nobody can see which of them it used: so with such a macro all of them are conditions, and that there is no other."""
    world.needs_observation(NO_MACRO_VARIABLES)
    world.changes_env("APP_COLOUR", before, "blue", *using(world, macros, 'v::variables!("APP_")'))


def test_what_is_wished_of_the_cache_is_nothing_to_a_macro_that_takes_all(world, macros):
    """SCCACHE_RECACHE would store where only SCCACHE_RECACHE finds it, and SCCACHE_VERIFY would find nothing to compare with."""
    args = using(world, macros, 'v::variables!("NO_SUCH_")')
    world.expect("miss", *args, env={"SCCACHE_RECACHE": "1"})
    world.expect("hit", *args)
    world.expect("hit", *args, env={"SCCACHE_VERIFY": "1000", "SCCACHE_LOG": "debug", "SCCACHE_INCREMENTAL": "1"})


def test_a_macro_that_takes_all_is_found_behind_a_normal_crate(world, macros):
    """Loaded is loaded, whoever named it."""
    world.needs_observation(NO_MACRO_VARIABLES)
    world.write("front.rs", "pub use v::variables;\n")
    subprocess.run(
        [world.compiler, "--crate-type", "lib", "--extern", f"v={macros}/libv.so", "--edition=2021", "front.rs"],
        cwd=world.p, env=world.env, check=True,
    )  # fmt: skip
    world.write("src/lib.rs", 'pub const S: &str = front::variables!("APP_");\n')
    args = (*LIB, *world.out, "-L", f"dependency={macros}", "--extern", "front=libfront.rlib", "src/lib.rs")
    world.changes_env("APP_COLOUR", "red", "blue", *args)


def test_the_working_directory_that_a_macro_asks_for_is_in_the_result(make_world, macros):
    """Under a prefix map two checkouts share entries; not where a macro built the real directory in."""
    world = make_world()
    world.write("src/lib.rs", "pub const S: &str = m::cwd!();\n")
    other = world.root / "q"
    shutil.copytree(world.p, other)
    for where in (world.p, other):
        args = (*LIB, *world.out, "--extern", f"m={macros}/libm.so", "--remap-path-prefix", f"{where}=/src", "src/lib.rs")
        world.expect("miss", *args, cwd=where)
        world.expect("hit", *args, cwd=where)


@pytest.mark.parametrize(
    "macro", ['m::above_cwd!("conf")', 'm::above_canonical!("conf")', 's::says!("git|rev-parse|--is-inside-work-tree")']
)
def test_what_a_macro_finds_above_the_working_directory_is_that_of_each_checkout(world, macros, macro):
    """dotenvy looks for .env there, git for .git: the map covers the checkout, not what lies above it."""
    world.needs_observation(NO_MACRO_READS)
    world.write("src/lib.rs", f"pub const S: &str = {macro};\n")
    one, two = world.root / "one" / "q", world.root / "two" / "q"
    for where in (one, two):
        shutil.copytree(world.p, where)

    def args(where: Path) -> tuple[str, ...]:
        externs = (f"--extern={name}={macros}/lib{name}.so" for name in "ms")
        return (*LIB, *world.out, *externs, "--remap-path-prefix", f"{where}=/src", "src/lib.rs")

    world.compile_twice(*args(one), cwd=one)
    (two.parent / "conf").write_text("two\n")
    subprocess.run(["git", "init", "--quiet", two.parent], env=world.env, check=True)
    world.expect("miss", *args(two), cwd=two)
    world.expect("hit", *args(two), cwd=two)


def test_a_file_that_a_variable_names_is_that_file_in_every_checkout(make_world, macros):
    """SCHEMA=/main/schema.sql, set once, read from two worktrees: the second must not be answered by its own copy."""
    world = make_world()
    other = world.root / "q"
    world.write("src/lib.rs", 'pub const S: &str = m::named!("SCHEMA");\n')
    schema = world.write("schema.sql", "one\n")
    shutil.copytree(world.p, other)
    env = {"SCHEMA": str(schema)}

    def args(where) -> tuple[str, ...]:
        return (*LIB, *world.out, "--extern", f"m={macros}/libm.so", "--remap-path-prefix", f"{where}=/src", "src/lib.rs")

    world.compile_twice(*args(world.p), env=env)
    schema.write_text("two\n")
    world.expect("miss", *args(other), env=env, cwd=other)


def test_a_file_that_a_variable_names_is_that_file_whatever_the_search_path(make_world, macros):
    """What lies in a -L directory is told relative to it; a variable may still name another one's."""
    world = make_world()
    for name in ("one", "two"):
        world.write(f"{name}/schema.sql", "old\n")
    env = {"SCHEMA": str(world.p / "one/schema.sql")}

    def args(name: str) -> tuple[str, ...]:
        return using(world, macros, 'm::named!("SCHEMA")', "-L", f"native={world.p}/{name}")

    world.compile_twice(*args("one"), env=env)
    world.write("one/schema.sql", "new\n")
    world.expect("miss", *args("two"), env=env)


def test_a_macro_that_writes_elsewhere_is_not_stored(world, macros):
    """A hit would not write that file."""
    world.needs_observation(NO_MACRO_READS)
    world.not_stored("wrote outside its output directories", *using(world, macros, f'm::write!("{world.root}/made")'))


def test_what_a_macro_leaves_in_the_output_directory_comes_back(world, macros):
    """Outputs are what the tree left behind, not what a table says."""
    world.needs_observation(NO_MACRO_READS)
    done = world.compile_twice(*using(world, macros, f'm::write!("{world.o}/extra.txt")'))
    assert done.file("extra.txt") == b"made by a macro\n"


def test_a_file_that_a_program_started_by_a_macro_reads_is_a_condition(world, macros):
    """git describe, protoc, sass: programs under the compiler are watched as the compiler is."""
    world.needs_observation(NO_MACRO_READS)
    world.write("version", "1\n")
    world.changes_text("version", "2\n", *using(world, macros, 's::says!("/bin/cat|version")'))


@pytest.mark.parametrize("before", ["1", None])
def test_a_shell_started_by_a_macro_makes_every_variable_a_condition(world, macros, before):
    """A shell takes its whole environment in without asking, and sees what was not there before."""
    world.needs_observation(NO_MACRO_VARIABLES)
    world.changes_env("WHATEVER", before, "2", *using(world, macros, 's::says!("/bin/sh|-c|echo $WHATEVER")'))


@pytest.mark.parametrize("starts", [False, True])
def test_another_terminal_is_nothing_to_a_macro_that_can_start_programs(world, macros, starts):
    """num_enum and rstest may ask cargo where the workspace is: each job of a CI service has variables of its own."""
    world.needs_observation(NO_MACRO_VARIABLES)
    text = '"x"' if not starts else 's::says!("cargo|--version")'
    world.write("src/lib.rs", f"#[allow(unused)] use s::says as _;\npub const S: &str = {text};\n")
    args = (*LIB, *world.out, "--extern", f"s={macros}/libs.so", "src/lib.rs")
    world.compile_twice(*args, env={"JOB_ID": "1", "CARGO_HOME": str(world.root)})
    world.expect("hit", *args, env={"JOB_ID": "2", "SSH_TTY": "/dev/pts/1", "CARGO_HOME": str(world.root)})
    world.expect("miss" if starts else "hit", *args, env={"JOB_ID": "1", "CARGO_HOME": str(world.p)})


@pytest.mark.parametrize("before", [None, "/nowhere/1"])
def test_what_cargo_makes_of_its_variables_counts_where_a_macro_asks_it(world, macros, before):
    """sqlx asks cargo for the target directory; cargo takes its environment in whole."""
    world.needs_observation(NO_MACRO_VARIABLES)
    world.write("Cargo.toml", '[package]\nname = "x"\nversion = "1.0.0"\n')
    expression = 's::says!("cargo|metadata|--no-deps|--offline|--format-version=1")'
    world.env["CARGO_HOME"] = str(world.root)
    world.changes_env("CARGO_TARGET_DIR", before, "/nowhere/2", *using(world, macros, expression))


def test_a_program_that_appears_earlier_on_the_path_is_a_condition(world, macros):
    """A macro runs `tool`; another `tool` further up in PATH is another program."""
    world.needs_observation(NO_MACRO_READS)
    for place, text in (("late", "one"), ("early", "two")):
        path = world.write(f"{place}/tool", f"#!/bin/sh\necho {text}\n")
        path.chmod(0o755)
    early = world.p / "early/tool"
    hidden = world.p / "hidden"
    early.rename(hidden)
    world.env["PATH"] = f"{world.p}/early:{world.p}/late:" + world.env["PATH"]
    world.changes(lambda: hidden.rename(early), lambda: early.rename(hidden), *using(world, macros, 's::says!("tool")'))


def static_program(world, name: str, body: str) -> str:
    """A program that the preload library cannot watch."""
    source = world.write(f"{name}.c", f"#include <stdio.h>\n#include <unistd.h>\nint main(void) {{ {body} }}\n")
    program = world.p / name
    made = subprocess.run(["cc", "-static", source, "-o", program], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("no static C library")
    return str(program)


def test_a_static_program_under_a_macro_prevents_storing(world, macros):
    """Nobody saw what it read."""
    world.needs_observation(NO_MACRO_READS)
    program = static_program(world, "quiet", 'puts("hello"); return 0;')
    world.not_stored("a program could not be observed", *using(world, macros, f's::says!("{program}")'))


def test_a_static_program_that_becomes_another_is_noticed(world, macros):
    """It reads a file unseen and then execs a program that is seen: the seen one must not vouch for it."""
    world.needs_observation(NO_MACRO_READS)
    body = 'char b[9] = {0}; FILE *f = fopen("secret", "r"); fgets(b, 8, f); execl("/bin/echo", "echo", b, (char *)0); return 1;'
    program = static_program(world, "launcher", body)
    world.write("secret", "one\n")
    world.not_stored("a program could not be observed", *using(world, macros, f's::says!("{program}")'))


def test_a_socket_prevents_storing(world, macros, tmp_path_factory):
    """What came over a socket cannot be a condition."""
    world.needs_observation(NO_MACRO_READS)
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("no python3 to open a socket with")
    world.not_stored("did what cannot be observed", *using(world, macros, f's::says!("{python}|-ISc|import socket; socket.socket()")'))


def test_a_name_that_is_looked_up_in_the_network_prevents_storing(world, macros):
    """The C library's own sockets are made by none of its functions."""
    world.needs_observation(NO_MACRO_READS)
    world.not_stored("did what cannot be observed", *using(world, macros, 'p::by_lookup!("x")'))


def test_a_file_made_and_read_within_the_compile_is_no_condition(world, macros):
    """A shell's temporary file has another name every time."""
    world.needs_observation(NO_MACRO_READS)
    script = "t=$(mktemp); echo hi >$t; cat $t; rm $t"
    world.compile_twice(*using(world, macros, f's::says!("/bin/sh|-c|{script}")'))
    assert os.listdir(world.p) == ["src"]


def test_a_macro_that_asks_what_time_it_is_is_not_stored(world, macros):
    """A hit would tell the time of another build."""
    world.needs_observation(NO_MACRO_READS)
    world.not_stored("a macro or plugin asked for the time", *using(world, macros, "h::now!()"))


def test_a_macro_that_starts_date_is_not_stored(world, macros):
    """The same by a program."""
    world.needs_observation(NO_MACRO_READS)
    world.not_stored("a macro or plugin asked for the time", *using(world, macros, 's::says!("date|+%Y")'))


@pytest.mark.parametrize("macro", ["p::by_file!()", "p::by_gethostname!()", "p::by_uname!()", 's::says!("uname|-n")', 's::says!("nproc")'])
def test_a_macro_that_asks_which_machine_it_runs_on_is_not_stored(world, macros, macro):
    """Containers with one cache have a name each."""
    world.needs_observation(NO_MACRO_READS)
    world.not_stored("read a special file", *using(world, macros, macro))


@pytest.mark.parametrize("macro", ["p::by_cpuinfo!()", 's::says!("grep|model|/proc/cpuinfo")', 's::says!("grep|MemTotal|/proc/meminfo")'])
def test_a_macro_that_reads_what_the_kernel_says_of_processors_is_not_stored(world, macros, macro):
    """Their frequencies are in it."""
    world.needs_observation(NO_MACRO_READS)
    world.not_stored("read a special file", *using(world, macros, macro))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_how_many_processors_there_are_counts_where_a_macro_asks(world, macros):
    """taskset, or another machine's runner with the same cache."""
    world.needs_observation(NO_MACRO_READS)
    every = os.sched_getaffinity(0)
    args = using(world, macros, "p::by_available_parallelism!()")
    try:
        world.changes(lambda: os.sched_setaffinity(0, {min(every)}), lambda: os.sched_setaffinity(0, every), *args)
    finally:
        os.sched_setaffinity(0, every)


def test_a_macro_that_measures_how_long_it_takes_is_stored(world, macros):
    """And so is one that has the clock beside it and does not ask."""
    world.compile_twice(*using(world, macros, 'h::quickly!("x")'))


def test_the_text_of_path_counts_where_a_macro_asks_for_it(world, macros):
    """A linker only looks along it."""
    world.needs_observation(NO_MACRO_VARIABLES)
    path = world.env["PATH"]
    world.changes_env("PATH", path, f"{path}:/nowhere", *using(world, macros, 'm::variable!("PATH")'))


@pytest.mark.parametrize("name", ["TERM", "COLUMNS", "RUST_BACKTRACE", "LD_LIBRARY_PATH", "SCCACHE_JOBS", "CI", "TMPDIR", "TMP"])
def test_what_is_nothing_to_the_compiler_counts_where_a_macro_asks(world, macros, name):
    """The compiler's colours come from its arguments, and rustc says nothing of the variable."""
    world.needs_observation(NO_MACRO_VARIABLES)
    before, after = {"LD_LIBRARY_PATH": ("/nowhere/a", "/nowhere/b"), "TMPDIR": ("/tmp", "/var/tmp")}.get(name, ("1", "2"))
    world.changes_env(name, before, after, *using(world, macros, f'm::variable!("{name}")'))


@pytest.mark.parametrize("how", ["needs", "opens"])
def test_a_library_that_a_macro_needs_is_the_one_that_the_loader_finds_first(world, how):
    """A macro that wraps a C library: cargo names each target directory's own in LD_LIBRARY_PATH."""
    world.needs_observation("dep-info names no libraries")
    for directory, number in (("one", 1), ("two", 2)):
        world.write(f"{directory}/n.c", f"int number(void) {{ return {number}; }}\n")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", f"{directory}/libnumber.so", f"{directory}/n.c"], cwd=world.p, check=True)
    world.write("m.rs", _NUMBER[how])
    words = ("--crate-type=proc-macro", "--edition=2021", "-Lnative=one", "m.rs")
    subprocess.run([world.compiler, *words], cwd=world.p, env=world.env, check=True)
    world.write("src/lib.rs", "pub const N: i32 = m::number!();\n")
    args = (*LIB, *world.out, "--extern=m=libm.so", "src/lib.rs")
    one, two = f"{world.p}/one", f"{world.p}/two"
    world.changes_env("LD_LIBRARY_PATH", one, two, *args)
    world.expect("hit", *args, env={"LD_LIBRARY_PATH": f"/nowhere:{one}"}, asks=True)
    early = {"LD_LIBRARY_PATH": f"{world.p}/early:{one}"}
    world.expect("hit", *args, env=early, asks=True)
    world.write("early/libnumber.so", Path(two, "libnumber.so").read_bytes())
    world.expect("miss", *args, env=early)


def test_a_variable_that_a_library_behind_a_macro_walks_by_counts(world):
    """A macro with Python in it (ct-python, inline-python): that makes a dictionary of all variables when it starts."""
    world.needs_observation(NO_MACRO_VARIABLES)
    walk = "extern char **environ; int walk(void) { for (char **e = environ; *e; e++) if (**e == 'Z') return (*e)[2]; return 0; }\n"
    world.write("walk.c", walk)
    world.write("number.c", "int walk(void); int number(void) { return walk(); }\n")
    for words in ("walk.c -o libwalk.so.1 -Wl,-soname,libwalk.so.1", "number.c -o libnumber.so libwalk.so.1 -Wl,-rpath,$ORIGIN"):
        subprocess.run(["cc", "-shared", "-fPIC", *words.split()], cwd=world.p, check=True)
    world.write("m.rs", _NUMBER["needs"])
    words = ("--crate-type=proc-macro", "--edition=2021", "-Lnative=.", "-Clink-arg=-Wl,-rpath,$ORIGIN", "m.rs")
    subprocess.run([world.compiler, *words], cwd=world.p, env=world.env, check=True)
    world.write("src/lib.rs", "pub const N: i32 = m::number!();\n")
    world.changes_env("Z", "1", "2", *LIB, *world.out, "--extern=m=libm.so", "src/lib.rs")


def test_a_macro_that_calls_the_kernel_by_itself_is_not_stored(world, macros):
    """rustix reads files by system calls of its own, which nobody sees."""
    world.needs_observation(NO_MACRO_READS)
    world.write("rustix.rs", "#[inline(never)] pub fn open() -> u8 { 1 }\n")
    world.write("r.rs", "extern crate proc_macro;\n#[proc_macro] pub fn one(_: proc_macro::TokenStream) -> proc_macro::TokenStream"
                        " { rustix::open().to_string().parse().unwrap() }\n")  # fmt: skip
    for words in (("--crate-type", "rlib", "rustix.rs"), ("--crate-type", "proc-macro", "--extern", "rustix=librustix.rlib", "r.rs")):
        subprocess.run([world.compiler, "--edition=2021", *words], cwd=world.p, env=world.env, check=True)
    world.write("src/lib.rs", "pub const N: u8 = r::one!();\n")
    world.not_stored("a macro makes system calls of its own", *LIB, *world.out, "--extern", "r=libr.so", "src/lib.rs")
