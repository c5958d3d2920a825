"""What comes back: every kind of output, diagnostics byte for byte; and what is refused or never stored."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LIB = ("--crate-name", "x", "--crate-type", "lib", "--edition=2021")
JSON = ("--error-format=json", "--json=diagnostic-rendered-ansi,artifacts,future-incompat")

WARNS = "pub fn f() -> u32 { let unused = 1; 2 }\n"


@pytest.mark.parametrize(
    ("emit", "names"),
    [
        ("metadata", {"libx.rmeta"}),
        ("link", {"libx.rlib"}),
        ("metadata,link", {"libx.rmeta", "libx.rlib"}),
        ("dep-info,metadata", {"x.d", "libx.rmeta"}),
        ("dep-info,metadata,link", {"x.d", "libx.rmeta", "libx.rlib"}),
        ("dep-info,obj", {"x.d", "x.o"}),
        ("dep-info,asm", {"x.d", "x.s"}),
        ("dep-info,llvm-ir", {"x.d", "x.ll"}),
        ("dep-info,llvm-bc", {"x.d", "x.bc"}),
        ("dep-info,mir", {"x.d", "x.mir"}),
        ("dep-info,asm,llvm-ir,mir,obj,link", {"x.d", "x.s", "x.ll", "x.mir", "x.o", "libx.rlib"}),
        (None, {"libx.rlib"}),
    ],
)
def test_every_kind_of_output_comes_back(world, emit, names):
    """What was asked for is there, with the compiler's bytes."""
    world.write("src/lib.rs", WARNS)
    args = (*LIB, *world.out, *([f"--emit={emit}"] if emit else []), "src/lib.rs")
    if not world.observed and (emit is None or "dep-info" not in emit):
        world.refused("no dep-info without observation", *args)
        return
    if not world.observed and not {"dep-info", "metadata", "link"}.issuperset((emit or "").split(",")):
        world.refused("outputs that only observation knows", *args)
        return
    assert world.compile_twice(*args).names() == names


def test_outputs_with_names_of_their_own_come_back(world):
    """--emit=kind=path puts each where it likes."""
    world.write("src/lib.rs", WARNS)
    args = (*LIB, f"--emit=dep-info={world.o}/a.dep,metadata={world.o}/b.meta,link={world.o}/libc.rlib", "src/lib.rs")
    assert world.compile_twice(*args).names() == {"a.dep", "b.meta", "libc.rlib"}


def test_a_shared_library_that_the_target_does_not_know_may_be_missing(world):
    """A cdylib beside other kinds is dropped with a warning for musl, and where the C library is linked in."""
    world.needs_observation("what a link reads, dep-info does not name")
    world.write("src/lib.rs", '#[no_mangle] pub extern "C" fn f() {}\n')
    types = ("--crate-name", "x", "--crate-type=cdylib", "--crate-type=staticlib", "--crate-type=rlib", "--emit=dep-info,link")
    static = "-Ctarget-feature=+crt-static"
    done = world.compile_twice(*types, *world.out, static, "src/lib.rs")
    assert done.names() == {"x.d", "libx.a", "libx.rlib"}
    assert b"dropping unsupported crate type" in done.stderr
    assert world.compile_twice(*types, *world.out, "src/lib.rs").names() == {"x.d", "libx.a", "libx.rlib", "libx.so"}


def test_an_output_named_by_o_comes_back(world):
    """Plain rustc is used with -o."""
    world.write("src/lib.rs", WARNS)
    args = (*LIB, "-o", f"{world.o}/libmine.rlib", "src/lib.rs")
    if not world.observed:
        world.refused("no dep-info without observation", *args)
        return
    assert world.compile_twice(*args).names() == {"libmine.rlib"}
    world.expect("miss", *LIB, "-o", f"{world.o}/libother.rlib", "src/lib.rs")


def test_without_an_output_directory_the_outputs_are_in_the_cwd(world):
    """rustc's default."""
    (world.o / "src").mkdir()
    args = (*LIB, "--emit=dep-info,metadata,link", f"{world.p}/src/lib.rs")
    world.write("src/lib.rs", WARNS)
    world.compile_twice(*args, cwd=world.o)


def test_a_crate_without_a_name_is_named_by_its_file(world):
    """No --crate-name: rustc takes the file's."""
    world.write("some_name.rs", WARNS)
    args = ("--crate-type", "lib", "--emit=dep-info,metadata,link", *world.out, "some_name.rs")
    if not world.observed:
        world.expect("pass", *args)
        return
    assert world.compile_twice(*args).names() == {"some_name.d", "libsome_name.rmeta", "libsome_name.rlib"}


@pytest.mark.parametrize("types", [["staticlib"], ["lib", "staticlib"], ["rlib"], ["lib,rlib"]])
def test_library_types_come_back(world, types):
    """A static library has other crates' objects in it, which dep-info does not name."""
    world.write("src/lib.rs", WARNS)
    kinds = [word for t in types for word in ("--crate-type", t)]
    args = ("--crate-name", "x", *kinds, "--emit=dep-info,link", *world.out, "-Cpanic=abort", "src/lib.rs")
    if "staticlib" in types and not world.observed:
        world.refused("crate-type", *args)
        return
    names = world.compile_twice(*args).names()
    assert ("libx.a" in names) == ("staticlib" in types)


@pytest.mark.parametrize("types", ["bin", "proc-macro", "dylib", "cdylib", "lib,bin"])
def test_what_is_linked_is_refused_by_the_fallback(make_world, types):
    """What a linker read is in no list."""
    world = make_world("fallback")
    world.write("src/lib.rs", "pub fn f() {}\n")
    world.refused("crate-type", "--crate-name", "x", "--crate-type", types, "--emit=dep-info,metadata", *world.out, "src/lib.rs")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("-Cincremental=inc",), "incremental"),
        (("-C", "incremental=inc"), "incremental"),
        (("-Csave-temps",), "save-temps"),
        (("-Csave-temps=yes",), "save-temps"),
        (("-o", "-"), "output to stdout"),
        (("--emit=metadata=-",), "output to stdout"),
    ],
)
def test_what_cannot_be_cached_is_refused_by_sccaches_name(world, more, reason):
    """The reason is the line in --show-stats."""
    world.write("src/lib.rs", "pub fn f() {}\n")
    world.cached(*LIB, *world.out, *more, "src/lib.rs")
    world.note_server()
    assert world.reasons() == {reason: 1}


@pytest.mark.parametrize("words", [("--emit=asm", "-o", "-"), ("--emit=llvm-ir=-",), ("--emit=mir=-,dep-info,metadata",)])
def test_text_on_standard_output_is_an_output(make_world, words):
    """Build scripts and people ask for assembly so; what is no text rustc does not write to a terminal, and the server has none."""
    world = make_world()
    text = '#[no_mangle] pub extern "C" fn fun() -> u32 {{ {} }}\n'
    world.write("src/lib.rs", text.format(1))
    args = ("--crate-name", "x", "--crate-type", "lib", *words, *world.out, "src/lib.rs")
    assert b"fun" in world.compile_twice(*args).stdout
    world.changes_text("src/lib.rs", text.format(2), *args, "-Copt-level=1")


@pytest.mark.parametrize("how", ["off", "packed", "unpacked"])
def test_split_debug_info_comes_back_whole(world, how):
    """Unpacked, there are .dwo files; their names are in the objects."""
    world.write("src/lib.rs", WARNS)
    args = (*LIB, "--emit=dep-info,link", "-g", f"-Csplit-debuginfo={how}", *world.out, "src/lib.rs")
    if how == "off" or world.observed:
        world.compile_twice(*args)
    else:
        world.refused("outputs that only observation knows", *args)


def test_split_debug_info_keeps_output_directories_apart(make_world):
    """An object names its .dwo: another output directory is another object."""
    world = make_world()
    world.write("src/lib.rs", WARNS)
    other = world.root / "other"
    world.outs.append(other)
    for _ in range(2):
        for out in (world.o, other):
            args = (*LIB, "--emit=dep-info,link", "-g", "-Csplit-debuginfo=unpacked", "--out-dir", str(out), "src/lib.rs")
            assert world.cached(*args) == world.uncached(*args)
            world.note_server()
            world.counts()


# -- what the compiler says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), JSON, ("--error-format=short",), ("--color=always",), ("--diagnostic-width=40",), ("-v",)])
def test_warnings_are_replayed_byte_for_byte(world, more):
    """A warning that is only seen on the first build is a warning that is not seen.  `expect` compares the bytes."""
    world.write("src/lib.rs", WARNS)
    done = world.compile_twice(*LIB, "--emit=dep-info,metadata,link", *world.out, *more, "src/lib.rs")
    assert b"unused" in done.stderr


def test_warnings_with_strange_bytes_are_replayed_byte_for_byte(world):
    """The stored form has marks of its own; a source's text must not be taken for one."""
    text = '#[deprecated(note = "a\\0b \\u{1} $out \\\\x00 é\u202f")] pub fn old() {}\npub fn f() { old() }\n'
    world.write("src/lib.rs", text)
    for more in ((), JSON):
        world.compile_twice(*LIB, "--emit=dep-info,metadata,link", *world.out, *more, "src/lib.rs")


def test_notices_of_unused_crates_are_replayed(world):
    """cargo asks for them with --json=unused-externs."""
    world.write("dep.rs", "pub fn f() {}\n")
    subprocess.run([world.compiler, "--crate-type", "lib", "dep.rs"], cwd=world.p, check=True, env=world.env)
    world.write("src/lib.rs", "pub fn f() {}\n")
    args = (
        *LIB, "--emit=dep-info,metadata", *world.out, "-Zunstable-options", "--error-format=json", "--json=unused-externs",
        "-Wunused-crate-dependencies", "--extern", "dep=libdep.rlib", "src/lib.rs",
    )  # fmt: skip
    done = world.compile_twice(*args, env={"RUSTC_BOOTSTRAP": "1"})
    assert b"unused_extern" in done.stderr


@pytest.mark.parametrize("more", [(), JSON])
def test_a_compile_error_is_relayed_byte_for_byte_and_not_stored(world, more):
    """An error may be gone the next time: it is the compiler's to say again."""
    world.write("src/lib.rs", "pub fn f() -> u32 { nothing }\n")
    args = (*LIB, "--emit=dep-info,metadata,link", *world.out, *more, "src/lib.rs")
    world.expect("fail", *args)
    assert world.expect("fail", *args).status == 1
    assert world.counts().get("cache_writes", 0) == 0


def test_an_error_that_is_mended_outside_the_sources_is_mended(world):
    """The first result was not stored, so nothing of it is left."""
    world.write("src/lib.rs", 'pub const S: &str = include_str!("s.txt");\n')
    args = (*LIB, "--emit=dep-info,metadata,link", *world.out, "src/lib.rs")
    world.expect("fail", *args)
    world.write("src/s.txt", "here\n")
    world.compile_twice(*args)


def test_a_jobserver_warning_is_never_stored(make_world, macros):
    """It is about the build that ran then, and would be replayed for ever."""
    world = make_world()
    text = "warning: failed to connect to jobserver from environment variable"
    world.write("src/lib.rs", f'#[deprecated(note = "{text}")] pub fn old() {{}}\npub fn f() {{ old() }}\n')
    world.not_stored("jobserver warning on stderr", *LIB, "--emit=metadata", *world.out, "src/lib.rs")


def test_a_crate_that_is_called_jobserver_is_cached(make_world):
    """cargo's notices name its files on stderr; half of all builds have that crate."""
    world = make_world()
    world.write("src/lib.rs", WARNS)
    args = ("--crate-name", "jobserver", "--crate-type", "lib", "--emit=dep-info,metadata,link", *JSON, *world.out, "src/lib.rs")
    world.compile_twice(*args)


def test_the_notice_of_metadata_comes_before_the_compiler_has_ended(world):
    """cargo starts dependents on that line; a cache that holds it back makes cold builds slower."""
    # Long enough in code generation that the two moments cannot be mistaken for one another.
    body = "\n".join(f"pub fn f{n}(v: &mut Vec<u64>) {{ v.sort(); v.dedup(); v.retain(|x| x % {n + 2} != 0); }}" for n in range(150))
    world.write("src/lib.rs", body)
    args = (*LIB, "--emit=dep-info,metadata,link", "-Copt-level=3", *JSON, *world.out, "src/lib.rs")
    process = subprocess.Popen(
        [world.client, world.compiler, *args], cwd=world.p, env={**world.env, **world.server_env}, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    with process, process.stderr:
        notices = []
        for line in process.stderr:
            notice = json.loads(line)
            if notice.get("emit") == "metadata":
                assert process.poll() is None
                assert not (world.o / "libx.rlib").exists(), "the notice came when all was done"
            notices.append(notice.get("emit"))
    world.note_server()
    assert "metadata" in notices
    assert "link" in notices


def test_no_program_at_all_runs_on_a_hit(world):
    """strace's word for it, beside the kernel's counts that every hit here is held to."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace")
    world.write("src/lib.rs", WARNS)
    args = (*LIB, "--emit=dep-info,metadata,link", *world.out, "src/lib.rs")
    world.compile_twice(*args)
    log = world.root / "trace"
    pids = [word for pid in sorted(world.server_pids()) for word in ("-p", str(pid))]
    tracer = subprocess.Popen(
        [strace, "-f", "-e", "trace=execve,execveat,fork,vfork,clone,clone3", "-o", log, *pids], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    with tracer, tracer.stderr:
        first = tracer.stderr.readline()
        if "attached" not in first:
            pytest.skip(f"strace may not attach here: {first}")
        # It says so for each process; the rest may still be on its way, so wait until all have a tracer.
        while any("TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text() for pid in world.server_pids()):
            os.sched_yield()
        before = world.counts()
        ran = world.run([str(world.client), world.compiler, *args], None, {})
        tracer.terminate()
    assert ran.returncode == 0
    assert world.verdict_since(before) == "hit"
    assert "exec" not in log.read_text()


# -- clippy ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def clippy(sysroot) -> str:
    path = sysroot / "bin" / "clippy-driver"
    if not path.exists():
        pytest.skip("no clippy-driver in this toolchain")
    return str(path)


def test_clippy_is_cached_apart_from_rustc(world, clippy):
    """Its metadata and its warnings are its own."""
    world.write("src/lib.rs", "pub fn f(x: u32) -> bool { if x == 3 { return true; } else { return false; } }\n")
    args = (*LIB, "--emit=dep-info,metadata", *world.out, "src/lib.rs")
    world.expect("miss", *args)
    done = world.expect("miss", "rustc", *args, rustc=clippy)
    assert b"clippy::" in done.stderr
    world.expect("hit", "rustc", *args, rustc=clippy)
    world.expect("hit", *args)


@pytest.mark.parametrize("name", ["clippy.toml", ".clippy.toml"])
def test_clippys_settings_that_appear_and_change_are_conditions(world, clippy, name):
    """clippy looks for them upwards from the package."""
    world.needs_observation("clippy names its settings file in dep-info, but not where it looked for one in vain")
    world.write("src/lib.rs", "pub fn f(a: u8, b: u8, c: u8) -> u8 { a + b + c }\n")
    args = ("rustc", *LIB, "--emit=dep-info,metadata", *world.out, "src/lib.rs")
    path = world.p / name
    env = {"CARGO_MANIFEST_DIR": str(world.p)}
    how = {"rustc": clippy, "env": env}
    world.changes(lambda: path.write_text("too-many-arguments-threshold = 2\n"), path.unlink, *args, **how)
    path.write_text("too-many-arguments-threshold = 2\n")
    world.expect("hit", *args, **how)
    path.write_text("too-many-arguments-threshold = 9\n")
    world.expect("miss", *args, **how)


def test_clippys_arguments_are_a_condition(world, clippy):
    """cargo clippy -- -D … passes them in a variable."""
    world.write("src/lib.rs", "pub fn f(x: u32) -> bool { if x == 3 { return true; } else { return false; } }\n")
    args = ("rustc", *LIB, "--emit=dep-info,metadata", *world.out, "src/lib.rs")
    one = {"CLIPPY_ARGS": "-Wclippy::all__CLIPPY_HACKERY__"}
    two = {"CLIPPY_ARGS": "-Aclippy::all__CLIPPY_HACKERY__"}
    first = world.compile_twice(*args, rustc=clippy, env=one)
    assert world.expect("miss", *args, rustc=clippy, env=two) != first
    world.expect("hit", *args, rustc=clippy, env=one)
