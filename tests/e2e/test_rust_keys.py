"""What decides a crate: sources, modules, included files, variables, arguments, libraries.

Each test compiles, changes one thing and must see a miss with the compiler's own bytes, changes it back and must see a hit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from sccache_py.server.filesystem.files import coarse_ns

pytestmark = pytest.mark.slow

LIB = ("--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata,link")


def lib(world, *more: str) -> tuple[str, ...]:
    return (*LIB, *world.out, *more, "src/lib.rs")


def test_an_unchanged_crate_hits_and_an_edited_one_misses(world):
    """The first thing anyone expects of a cache."""
    world.write("src/lib.rs", "pub fn f() -> u32 { 1 }\n")
    world.changes_text("src/lib.rs", "pub fn f() -> u32 { 2 }\n", *lib(world))


def test_an_edited_comment_misses(world):
    """A comment moves every line number after it, and metadata has the source's hash."""
    world.write("src/lib.rs", "// one\npub fn f() -> u32 { 1 }\n")
    world.changes_text("src/lib.rs", "// two\npub fn f() -> u32 { 1 }\n", *lib(world))


def test_an_edited_module_misses(world):
    """The recipe knows only the crate root; modules are conditions."""
    world.write("src/lib.rs", "pub mod a;\n")
    world.write("src/a.rs", "pub fn f() -> u32 { 1 }\n")
    world.changes_text("src/a.rs", "pub fn f() -> u32 { 2 }\n", *lib(world))


def test_an_edited_include_str_file_misses(world):
    """It is no source, but its text is in the crate."""
    world.write("src/lib.rs", 'pub const S: &str = include_str!("../text/s.txt");\n')
    world.write("text/s.txt", "one\n")
    world.changes_text("text/s.txt", "two\n", *lib(world))


def test_an_included_file_behind_a_link_and_dots_is_found_where_the_kernel_finds_it(world):
    """`link/../s.txt` is beside the link's target; whoever shortens it to `s.txt` looks at another file."""
    world.write("src/lib.rs", 'pub const S: &str = include_str!("link/../s.txt");\n')
    world.write("src/s.txt", "a decoy\n")
    world.write("far/s.txt", "one\n")
    (world.p / "far/away").mkdir()
    (world.p / "src/link").symlink_to("../far/away")
    world.changes_text("far/s.txt", "two\n", *lib(world))


def test_a_module_reached_through_a_linked_source_directory_and_dots_is_the_one_that_counts(world):
    """The same for `#[path]`, in a source directory that is itself a link."""
    real = world.root / "elsewhere" / "src"
    real.mkdir(parents=True)
    (real / "lib.rs").write_text('#[path = "../m.rs"] pub mod m;\n')
    (real.parent / "m.rs").write_text("pub fn f() -> u32 { 1 }\n")
    world.write("m.rs", "pub fn decoy() {}\n")
    (world.p / "src").symlink_to(real)
    world.changes_text(str(real.parent / "m.rs"), "pub fn f() -> u32 { 2 }\n", *lib(world))


@pytest.mark.parametrize(("one", "other"), [("1", "2"), ("1", None), (None, ""), ("", "1")])
def test_a_variable_that_option_env_asks_for_is_a_condition(world, one, other):
    """Its value, its being empty and its absence are three different things."""
    world.write("src/lib.rs", 'pub const S: Option<&str> = option_env!("WHATEVER");\n')
    world.changes_env("WHATEVER", one, other, *lib(world))


def test_a_variable_that_env_asks_for_is_a_condition(world):
    """cargo's OUT_DIR and CARGO_MANIFEST_DIR reach a crate this way."""
    world.write("src/lib.rs", 'pub const S: &str = env!("WHATEVER");\n')
    world.changes_env("WHATEVER", "1", "2", *lib(world))


def test_a_variable_that_nobody_asks_for_changes_nothing(world):
    """Otherwise every new terminal would empty the cache."""
    world.write("src/lib.rs", "pub fn f() {}\n")
    world.compile_twice(*lib(world), env={"WHATEVER": "1"})
    world.expect("hit", *lib(world), env={"WHATEVER": "2"})


@pytest.mark.parametrize("name", ["RUST_LOG", "TERM", "RUST_BACKTRACE", "TMPDIR", "LD_LIBRARY_PATH", "COLUMNS", "CI", "_"])
def test_a_variable_that_is_ignored_elsewhere_counts_when_the_source_asks_for_it(world, name):
    """Programs build a default log level in with option_env!("RUST_LOG")."""
    world.write("src/lib.rs", f'pub const S: Option<&str> = option_env!("{name}");\n')
    world.changes_env(name, "/tmp/.", "/tmp", *lib(world))


def test_an_ignored_variable_counts_without_dep_info_too(make_world):
    """Whoever asks rustc for no dep-info is told no less of the truth."""
    world = make_world()
    world.write("src/lib.rs", 'pub const S: Option<&str> = option_env!("RUST_LOG");\n')
    args = ("--crate-name", "x", "--crate-type", "lib", "--emit=metadata", *world.out, "src/lib.rs")
    world.changes_env("RUST_LOG", "warn", "info", *args)


def test_the_terminals_variables_change_nothing(world):
    """TERM and RUST_BACKTRACE differ from terminal to terminal, tools set CI for what they run, and rustc itself asks for them."""
    world.write("src/lib.rs", "pub fn f() {}\n")
    world.compile_twice(*lib(world), env={"TERM": "xterm", "RUST_BACKTRACE": "1"})
    world.expect("hit", *lib(world), env={"TERM": "dumb", "RUST_BACKTRACE": "0", "CI": "true"})


ARGUMENTS = [
    (("--cfg", "a"), ()),
    (("--cfg", "a"), ("--cfg", "b")),
    (("--cfg", 'feature="a"'), ("--cfg", 'feature="b"')),
    (("-Copt-level=0",), ("-Copt-level=3",)),
    (("-g",), ("-Cdebuginfo=1",)),
    (("--edition=2018",), ("--edition=2021",)),
    (("-Cmetadata=1",), ("-Cmetadata=2",)),
    (("--cap-lints", "warn"), ("--cap-lints", "allow")),
    (("-Cpanic=abort",), ("-Cpanic=unwind", "-Copt-level=1")),
    (("-Coverflow-checks=yes", "-Copt-level=1"), ("-Coverflow-checks=no", "-Copt-level=1")),
    (("-Ccodegen-units=1",), ("-Ccodegen-units=4",)),
    (("-Ctarget-cpu=x86-64",), ("-Ctarget-cpu=x86-64-v3",)),
    (("-Ctarget-feature=+avx2",), ("-Ctarget-feature=-avx2",)),
]


def test_an_argument_that_changes_the_crate_is_in_the_key(world):
    """Features, optimisation, debug info: with each its own entry."""
    features = '#[cfg(feature = "a")] pub const A: u8 = 1;\n#[cfg(a)] pub fn g() {}\n'
    world.write("src/lib.rs", features + "pub fn f(x: u32) -> u32 { let unused = 1; x * 3 }\n")
    told = [arguments for pair in ARGUMENTS for arguments in pair]
    for arguments in dict.fromkeys(told):
        world.expect("miss", *lib(world, *arguments))
    for arguments in dict.fromkeys(told):
        world.expect("hit", *lib(world, *arguments))


def test_a_touched_source_hits(world):
    """git checkout touches files; their content is what counts."""
    source = world.write("src/lib.rs", "mod a;\n")
    module = world.write("src/a.rs", "pub fn f() {}\n")
    world.compile_twice(*lib(world))
    os.utime(source)
    os.utime(module, (1, 1))
    world.expect("hit", *lib(world))


@pytest.mark.parametrize("name", ["lib.rs", "a.rs", "s.txt"])
def test_a_source_replaced_by_rename_with_its_old_mtime_misses(world, name):
    """mv keeps the mtime, and so do unpackers: an mtime says nothing about a content."""
    texts = {"lib.rs": 'pub mod a;\npub const S: &str = include_str!("s.txt");\n', "a.rs": "pub fn f() -> u32 { 1 }\n", "s.txt": "one 1\n"}
    for file, text in texts.items():
        world.write(f"src/{file}", text)
    path = world.p / "src" / name
    mtime = path.stat().st_mtime_ns
    new = world.write("new", texts[name].replace("1", "2") if "1" in texts[name] else texts[name] + "pub fn g() {}\n")

    def swap() -> None:
        os.rename(path, world.p / "old")
        os.rename(new, path)
        os.utime(path, ns=(mtime, mtime))

    def back() -> None:
        os.rename(world.p / "old", path)

    world.changes(swap, back, *lib(world))


def test_a_source_overwritten_in_place_with_the_same_size_and_mtime_misses(world):
    """Size, mtime and inode are all as they were; only ctime tells."""
    world.write("src/lib.rs", "pub mod a;\n")
    path = world.write("src/a.rs", "pub fn f() -> u32 { 1 }\n")
    mtime = path.stat().st_mtime_ns

    def put(digit: bytes) -> None:
        with open(path, "r+b") as f:
            f.seek(20)
            f.write(digit)
        os.utime(path, ns=(mtime, mtime))

    world.changes(lambda: put(b"2"), lambda: put(b"1"), *lib(world))


def test_an_input_written_in_the_very_tick_of_the_start_is_never_confused_with_its_next_content(world):
    """Two contents within one tick of the clock have the same timestamps: neither may be stored under the other's name."""
    world.write("src/lib.rs", 'pub const S: &str = include_str!("s.txt");\n')
    path = world.write("src/s.txt", "0\n")
    world.compile_twice(*lib(world))
    for number in range(12):
        content = f"{number % 3}\n"
        with open(path, "r+") as f:
            f.write(content)
        # Not World.cached, which waits for the next tick.
        ran = world.run([str(world.client), world.compiler, *lib(world)], None, world.server_env)
        assert ran.returncode == 0
        got = (world.o / "libx.rmeta").read_bytes()
        assert content.strip() == str(number % 3)
        expected = world.uncached(*lib(world)).file("libx.rmeta")
        assert got == expected


@pytest.mark.parametrize("place", ["src/lib.rs", "src/m.rs"])
def test_what_the_kernel_says_at_the_moment_is_not_kept(world, place):
    """Each answer of this file is another; compilers ask for some like it themselves, so these are no inputs."""
    world.write("src/lib.rs", "pub mod m;\n")
    world.write("src/m.rs", "")
    with open(world.p / place, "a") as f:
        f.write('pub const S: &[u8] = include_bytes!("/proc/sys/kernel/random/uuid");\n')
    made = set()
    for _ in range(2):
        ran = world.run([str(world.client), world.compiler, *lib(world)], None, world.server_env)
        assert (ran.returncode, ran.stderr) == (0, b"")
        made.add((world.o / "libx.rmeta").read_bytes())
    assert len(made) == 2


def test_another_module_file_beside_the_first_is_the_compilers_error(world):
    """foo.rs beside foo/mod.rs is error E0761, with every listed input unchanged."""
    world.write("src/lib.rs", "pub mod foo;\n")
    world.write("src/foo/mod.rs", "pub fn f() {}\n")
    world.compile_twice(*lib(world))
    other = world.write("src/foo.rs", "pub fn g() {}\n")
    failed = world.expect("fail", *lib(world))
    assert b"E0761" in failed.stderr
    other.unlink()
    world.expect("hit", *lib(world))


def test_a_module_directory_beside_a_module_file_is_the_compilers_error(world):
    """The same the other way round."""
    world.write("src/lib.rs", "pub mod foo;\n")
    world.write("src/foo.rs", "pub fn f() {}\n")
    world.compile_twice(*lib(world))
    world.write("src/foo/mod.rs", "pub fn g() {}\n")
    assert b"E0761" in world.expect("fail", *lib(world)).stderr
    shutil.rmtree(world.p / "src/foo")
    world.expect("hit", *lib(world))


def test_a_retargeted_source_directory_misses(world):
    """The path is the same, the directory behind it is not."""
    for name in ("one", "two"):
        world.write(f"{name}/lib.rs", "pub mod a;\n")
        world.write(f"{name}/a.rs", f"pub fn {name}() {{}}\n")
    link = world.p / "src"
    link.symlink_to("one")

    def point(name: str) -> None:
        link.unlink()
        link.symlink_to(name)

    world.changes(lambda: point("two"), lambda: point("one"), *lib(world))


# -- other crates ---------------------------------------------------------------------------------------------------


def make_crate(world, name: str, text: str, *more: str, directory: str = "deps") -> Path:
    """A dependency, compiled without the cache."""
    source = world.write(f"{name}-src/lib.rs", text)
    made = world.p / directory
    made.mkdir(exist_ok=True)
    subprocess.run(
        [
            world.compiler, "--crate-name", name, "--crate-type", "lib", "--out-dir", made, f"-Cmetadata={name}", "--edition=2021",
            *more, source,
        ],
        check=True, env=world.env, cwd=world.p, timeout=60,
    )  # fmt: skip
    return made / f"lib{name}.rlib"


def test_swapped_extern_names_miss(world):
    """--extern a=X --extern b=Y and --extern a=Y --extern b=X read the same two files; sccache took them for one."""
    one = make_crate(world, "one", "pub const N: u8 = 1;\n")
    two = make_crate(world, "two", "pub const N: u8 = 2;\n")
    world.write("src/lib.rs", "pub const D: [u8; 2] = [a::N, b::N];\n")
    straight = lib(world, "--extern", f"a={one}", "--extern", f"b={two}")
    swapped = lib(world, "--extern", f"a={two}", "--extern", f"b={one}")
    first = world.compile_twice(*straight)
    assert world.expect("miss", *swapped) != first
    world.expect("hit", *straight)
    world.expect("hit", *swapped)


def test_the_order_of_externs_decides_nothing(world):
    """cargo's order is its own affair; rustc sorts them."""
    one = make_crate(world, "one", "pub const N: u8 = 1;\n")
    two = make_crate(world, "two", "pub const N: u8 = 2;\n")
    world.write("src/lib.rs", "pub const D: [u8; 2] = [a::N, b::N];\n")
    world.expect("miss", *lib(world, "--extern", f"a={one}", "--extern", f"b={two}"))
    world.expect("hit", *lib(world, "--extern", f"b={two}", "--extern", f"a={one}"))


def test_a_changed_dependency_misses(world):
    """Same name, same place, other content."""
    old = make_crate(world, "one", "pub const N: u8 = 1;\n").read_bytes()
    path = world.p / "deps/libone.rlib"
    world.write("src/lib.rs", "pub const D: u8 = one::N;\n")
    args = lib(world, "--extern", f"one={path}")
    world.changes(lambda: make_crate(world, "one", "pub const N: u8 = 2;\n"), lambda: path.write_bytes(old), *args)


def test_a_changed_dependency_of_a_dependency_misses(world):
    """It is found by search in -L, and no argument names it."""
    make_crate(world, "deep", "#[inline] pub fn n() -> u8 { 1 }\n")
    one = make_crate(world, "one", "pub use deep::n;\n", "-L", "dependency=deps", "--extern", "deep=deps/libdeep.rlib")
    world.write("src/lib.rs", "pub fn f() -> u8 { one::n() }\n")
    args = lib(world, "-L", f"dependency={world.p}/deps", "--extern", f"one={one}", "--edition=2021")
    world.compile_twice(*args)
    make_crate(world, "deep", "#[inline] pub fn n() -> u8 { 2 }\n")
    make_crate(world, "one", "pub use deep::n;\n", "-L", "dependency=deps", "--extern", "deep=deps/libdeep.rlib")
    world.expect("miss", *args)


def test_a_crate_found_by_search_is_another_when_another_is_found_first(make_world):
    """--extern name without a path takes what the -L directories hold; a directory before the first one wins or collides."""
    world = make_world()
    make_crate(world, "one", "pub const N: u8 = 1;\n", directory="second")
    (world.p / "first").mkdir()
    world.write("src/lib.rs", "pub const D: u8 = one::N;\n")
    args = lib(world, "-L", "first", "-L", "second", "--extern", "one", "--edition=2021")
    first = world.compile_twice(*args)
    make_crate(world, "one", "pub const N: u8 = 2;\n", directory="first")
    before = world.counts()
    cached = world.cached(*args)
    verdict = world.verdict_since(before)
    assert verdict in ("miss", "fail")
    uncached = world.uncached(*args)
    assert (cached.status, cached.stderr, cached.files) == (uncached.status, uncached.stderr, uncached.files)
    shutil.rmtree(world.p / "first")
    (world.p / "first").mkdir()
    assert world.expect("hit", *args) == first


def test_a_search_directory_with_an_equals_sign_is_that_directory(make_world):
    """`-L a=b` is no kind of search but a directory `a=b`: `a=c` is another."""
    world = make_world()
    make_crate(world, "one", "pub const N: u8 = 1;\n", directory="a=b")
    make_crate(world, "one", "pub const N: u8 = 2;\n", directory="a=c")
    world.write("src/lib.rs", "pub const D: u8 = one::N;\n")
    one, two = (lib(world, "-L", d, "--extern", "one", "--edition=2021") for d in ("a=b", "a=c"))
    first = world.compile_twice(*one)
    assert world.expect("miss", *two) != first


def static_library(world, value: int) -> Path:
    world.write("c/n.c", f"int n(void) {{ return {value}; }}\n")
    made = world.p / "native" / "libn.a"
    made.parent.mkdir(exist_ok=True)
    made.unlink(missing_ok=True)
    subprocess.run(["cc", "-c", "c/n.c", "-o", "c/n.o"], cwd=world.p, check=True)
    subprocess.run(["ar", "crsD", made, "c/n.o"], cwd=world.p, check=True)
    return made


@pytest.mark.parametrize("how", ["argument", "source"])
def test_a_changed_static_library_that_is_bundled_misses(world, how):
    """Its objects are in the rlib; neither an argument's text nor dep-info names the file.  sccache missed that."""
    old = static_library(world, 1).read_bytes()
    link = '#[link(name = "n", kind = "static", modifiers = "+bundle")]\n' if how == "source" else ""
    world.write("src/lib.rs", link + 'unsafe extern "C" { fn n() -> i32; }\npub fn f() -> i32 { unsafe { n() } }\n')
    more = ("-l", "static:+bundle=n") if how == "argument" else ()
    args = lib(world, "--edition=2024", "-L", f"native={world.p}/native", *more)
    if not world.observed:
        world.refused("libraries found by search without observation", *args)
        return
    path = world.p / "native/libn.a"
    world.changes(lambda: static_library(world, 2), lambda: path.write_bytes(old), *args)


def test_a_static_library_that_appears_earlier_on_the_search_path_misses(make_world):
    """The first -L that has it wins."""
    world = make_world()
    static_library(world, 1)
    shutil.copytree(world.p / "native", world.p / "late")
    shutil.rmtree(world.p / "native")
    (world.p / "native").mkdir()
    world.write("src/lib.rs", 'unsafe extern "C" { fn n() -> i32; }\npub fn f() -> i32 { unsafe { n() } }\n')
    args = lib(world, "--edition=2024", "-L", "native=native", "-L", "native=late", "-l", "static:+bundle=n")
    world.changes(lambda: static_library(world, 2), lambda: (world.p / "native/libn.a").unlink(), *args)


def test_changed_profile_data_misses(world, sysroot):
    """-C profile-use reads a file that no source names."""
    profdata = next(iter(sysroot.glob("lib/rustlib/*/bin/llvm-profdata")), None) or shutil.which("llvm-profdata")
    if profdata is None:
        pytest.skip("no llvm-profdata to make a profile with")
    world.write("src/lib.rs", "pub fn f(x: u32) -> u32 { if x > 3 { x * 2 } else { x } }\n")
    path = world.p / "p.profdata"

    def make(count: int) -> None:
        text = world.write("p.proftext", f"_ZN1x1f\n1\n2\n{count}\n1\n\n")
        subprocess.run([profdata, "merge", text, "-o", path], check=True)

    make(1)
    old = path.read_bytes()
    world.changes(lambda: make(1000), lambda: path.write_bytes(old), *lib(world, "-O", f"-Cprofile-use={path}"), visible=False)


def test_a_changed_target_description_misses(world, sysroot):
    """A target may be a JSON file, which decides everything and is no source."""
    spec = subprocess.run(
        [world.compiler, "-Zunstable-options", "--print", "target-spec-json", "--target", "x86_64-unknown-none"],
        check=True, capture_output=True, text=True, env={**world.env, "RUSTC_BOOTSTRAP": "1"},
    ).stdout  # fmt: skip
    path = world.write("mine.json", spec)
    world.write("src/lib.rs", "#![no_core]\n#![feature(no_core)]\n#![allow(internal_features)]\n")
    args = lib(world, "-Zunstable-options", "--target", "mine.json")
    other = spec.replace('"max-atomic-width": 64', '"max-atomic-width": 32')
    assert other != spec
    world.changes(lambda: path.write_text(other), lambda: path.write_text(spec), *args, env={"RUSTC_BOOTSTRAP": "1"})


def test_native_cpu_is_cached_for_this_processor(world):
    """-C target-cpu=native means another thing on another machine: what this one can do is in the key."""
    world.write("src/lib.rs", "pub fn f(x: &[f32]) -> f32 { x.iter().sum() }\n")
    world.compile_twice(*lib(world, "-Ctarget-cpu=native", "-O"))
    world.expect("miss", *lib(world, "-Ctarget-cpu=x86-64", "-O"))


def test_files_that_the_caller_adds_are_conditions(world):
    """SCCACHE_EXTRAFILES is the README's promise: every compile depends on them."""
    world.write("src/lib.rs", "pub fn f() {}\n")
    extra = world.write("extra", "one\n")
    world.compile_twice(*lib(world))
    env = {"SCCACHE_EXTRAFILES": str(extra)}
    world.changes(lambda: extra.write_text("two\n"), lambda: extra.write_text("one\n"), *lib(world), env=env, visible=False)


def test_two_checkouts_compiling_different_sources_at_the_same_moment_get_their_own(world):
    """Equal command lines meet in the server: who waits for the other must not be given the other's crate."""
    processes = []
    expected = []
    for number in range(4):
        where = world.root / f"checkout{number}"
        (where / "src").mkdir(parents=True)
        (where / "o").mkdir()
        (where / "src/lib.rs").write_text("pub mod a;\n")
        (where / "src/a.rs").write_text(f"pub fn f() -> u32 {{ {number % 2} }}\n")
        expected.append(number % 2)
    now = time.time_ns()
    while coarse_ns() <= now:
        os.sched_yield()
    # A prefix map makes the cwd no part of the key: now all four are one recipe.
    for number in range(4):
        where = world.root / f"checkout{number}"
        args = (*LIB, "--out-dir", "o", "--remap-path-prefix", f"{where}=/src", "src/lib.rs")
        processes.append(subprocess.Popen([world.client, world.compiler, *args], cwd=where, env={**world.env, **world.server_env}))
    for process in processes:
        assert process.wait(60) == 0
    world.note_server()
    for number in range(4):
        where = world.root / f"checkout{number}"
        got = {p.name: p.read_bytes() for p in (where / "o").iterdir()}
        shutil.rmtree(where / "o")
        (where / "o").mkdir()
        args = (*LIB, "--out-dir", "o", "--remap-path-prefix", f"{where}=/src", "src/lib.rs")
        subprocess.run([world.compiler, *args], cwd=where, env=world.env, check=True)
        assert got == {p.name: p.read_bytes() for p in (where / "o").iterdir()}
