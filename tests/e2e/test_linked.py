"""Crates that a linker makes: programs, proc-macros, shared libraries, test harnesses.  Observed only: without it they are left
to the client."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import pytest

pytestmark = pytest.mark.slow

EMIT = "--emit=dep-info,link"


@pytest.fixture
def w(make_world) -> Any:
    return make_world()


def build_dependency(w: Any, name: str, text: str, *args: str) -> str:
    """A library of the project, compiled without the cache."""
    directory = w.p / "deps"
    directory.mkdir(exist_ok=True)
    source = w.write(f"{name}.rs", text)
    ran = w.run([w.compiler, "--crate-name", name, "--crate-type", "lib", "--out-dir", str(directory), *args, str(source)], None, {})
    assert ran.returncode == 0, ran.stderr.decode()
    return str(directory / f"lib{name}.rlib")


MAIN = 'fn main() { println!("one"); }\n'


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("bin", MAIN),
        ("cdylib", '#[no_mangle] pub extern "C" fn f() -> u32 { 1 }\n'),
        ("dylib", "pub fn f() -> u32 { 1 }\n"),
        ("proc-macro", "extern crate proc_macro;\n#[proc_macro] pub fn m(t: proc_macro::TokenStream) -> proc_macro::TokenStream { t }\n"),
    ],
)
def test_each_linked_crate_type_hits_with_the_same_bytes(w: Any, kind: str, text: str) -> None:
    """sccache refuses them all; 34 of the 188 calls of a build are linked."""
    w.write("x.rs", text)
    done = w.compile_twice("--crate-name", "x", "--crate-type", kind, EMIT, *w.out, "x.rs")
    (linked,) = done.names() - {"x.d"}
    assert done.file(linked).startswith(b"\x7fELF")


def test_a_test_harness_hits(w: Any) -> None:
    """`cargo test --no-run` is mostly linking."""
    w.write("x.rs", "#[test] fn t() {}\n")
    w.compile_twice("--crate-name", "x", "--test", EMIT, *w.out, "x.rs")


def test_a_program_that_was_restored_runs(w: Any) -> None:
    """Mode bits come back, minus the caller's umask."""
    w.write("x.rs", MAIN)
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "x.rs")
    w.compile_twice(*args, umask=0o027)
    w.cached(*args, umask=0o027)
    program = w.o / "x"
    assert program.stat().st_mode & 0o777 == 0o750
    assert subprocess.run([program], check=True, capture_output=True).stdout == b"one\n"


def test_a_changed_transitive_rlib_is_a_miss(w: Any) -> None:
    """The direct dependency's own file need not change for the program to."""
    build_dependency(w, "base", "#[inline(never)] pub fn f() -> u32 { 1 }\n", "-Cmetadata=base")
    middle = build_dependency(w, "middle", "pub fn g() -> u32 { base::f() }\n", "--extern", f"base={w.p}/deps/libbase.rlib")
    w.write("x.rs", "fn main() { std::process::exit(middle::g() as i32) }\n")
    deps = f"dependency={w.p}/deps"
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "-L", deps, "--extern", f"middle={middle}", "x.rs")
    w.compile_twice(*args)
    base = w.p / "deps" / "libbase.rlib"
    old = base.read_bytes()
    # What an archiver does that writes dates: another file, the same meaning.
    base.write_bytes(old.replace(b"/               0", b"/               1", 1) if b"/               0" in old else old + b"\n")
    w.expect("miss", *args)
    base.write_bytes(old)
    w.expect("hit", *args)


def test_a_native_library_that_appears_earlier_on_the_path_is_a_miss(w: Any) -> None:
    """The linker looked for it there in vain; no list of files tells."""
    for directory, value in (("first", None), ("second", 1), ("spare", 2)):
        (w.p / directory).mkdir()
        if value is not None:
            source = w.write(f"{directory}.c", f"int n(void) {{ return {value}; }}\n")
            subprocess.run(["gcc", "-c", source, "-o", w.p / directory / "n.o"], check=True)
            subprocess.run(["ar", "rcsD", w.p / directory / "libn.a", w.p / directory / "n.o"], check=True)
    w.write("x.rs", 'extern "C" { fn n() -> i32; }\nfn main() { std::process::exit(unsafe { n() }) }\n')
    search = ("-L", f"native={w.p}/first", "-L", f"native={w.p}/second", "-C", "link-arg=-ln")
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, *search, "x.rs")
    w.changes(
        lambda: shutil.copy(w.p / "spare" / "libn.a", w.p / "first" / "libn.a"),
        lambda: (w.p / "first" / "libn.a").unlink(),
        *args,
    )


def test_a_library_that_a_library_needs_is_looked_for_along_this_callers_path(w: Any) -> None:
    """bfd's ld goes along LD_LIBRARY_PATH for it: what links in one terminal fails in another."""
    for name, text, more in (("b", "int b(void) { return 1; }\n", ()), ("a", "int b(void); int a(void) { return b(); }\n", ("-Lb", "-lb"))):
        source = w.write(f"{name}/{name}.c", text)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", w.p / name / f"lib{name}.so", source, *more], cwd=w.p, check=True)
    w.write("x.rs", '#[link(name = "a")] extern "C" { fn a() -> i32; }\nfn main() { unsafe { a() }; }\n')
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "-Lnative=a", "-Clink-arg=-fuse-ld=bfd", "x.rs")
    there = {"LD_LIBRARY_PATH": f"{w.p}/b"}
    w.compile_twice(*args, env=there)
    assert w.cached(*args).status != 0
    w.expect("hit", *args, env=there, asks=True)


def test_another_linker_in_path_is_a_miss(w: Any) -> None:
    """rustc finds `cc` in PATH: a new one in front makes another program."""
    tools = w.p / "tools"
    tools.mkdir()
    w.write("x.rs", MAIN)
    w.env["PATH"] = f"{tools}:{w.env['PATH']}"
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "x.rs")

    def put_in_front() -> None:
        (tools / "cc").write_text('#!/bin/sh\nexec /usr/bin/cc -Wl,--defsym=another_linker=1 "$@"\n')
        (tools / "cc").chmod(0o755)

    w.changes(put_in_front, (tools / "cc").unlink, *args)


def test_a_path_that_leads_to_the_same_programs_is_no_other_path(w: Any) -> None:
    """Another terminal, an activated virtual environment: directories come and go in which no compiler lies."""
    tools, venv = w.p / "tools", w.p / "venv"
    for directory in (tools, venv):
        directory.mkdir()
    (venv / "python").write_text("#!/bin/sh\n")
    (venv / "python").chmod(0o755)
    w.write("x.rs", MAIN)
    plain = w.env["PATH"]
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "x.rs")
    w.env["PATH"] = f"{plain}:{tools}"
    w.compile_twice(*args)
    for path in (plain, f"{venv}:{plain}", f"{plain}:{venv}:/nowhere"):
        w.expect("hit", *args, env={"PATH": path})
    tools.rmdir()
    w.expect("hit", *args, env={"PATH": plain})


def test_a_path_with_another_linker_in_front_is_another_path(w: Any) -> None:
    """The name is found elsewhere; and where PATH means another directory for everyone, nothing is known."""
    tools = w.p / "tools"
    tools.mkdir()
    (tools / "cc").write_text('#!/bin/sh\nexec /usr/bin/cc -Wl,--defsym=another_linker=1 "$@"\n')
    (tools / "cc").chmod(0o755)
    w.write("x.rs", MAIN)
    plain = w.env["PATH"]
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "x.rs")
    first = w.compile_twice(*args)
    assert w.expect("miss", *args, env={"PATH": f"{tools}:{plain}"}) != first
    w.expect("miss", *args, env={"PATH": f"tools:{plain}"})
    (tools / "cc").chmod(0o644)
    w.expect("hit", *args, env={"PATH": f"{tools}:{plain}"})


@pytest.mark.parametrize("kind", ["bin", "cdylib", "dylib", "proc-macro"])
def test_what_is_linked_over_an_older_one_is_stored(w: Any, kind: str) -> None:
    """The edit of every day: the last build's program is still there."""
    args = ("--crate-name", "x", "--crate-type", kind, EMIT, *w.out, "x.rs")
    text = MAIN if kind == "bin" else ""
    for n in (1, 2):
        w.write("x.rs", f"{text}// {n}\n")
        assert w.run([str(w.client), w.compiler, *args], None, {}).returncode == 0
    w.note_server()
    assert w.expect("hit", *args)
    assert not w.reasons()


@pytest.mark.parametrize(
    "how", [(), ("-o", "y"), ("--test", "-o", "y"), ("--crate-type=cdylib", "-o", "y.so")], ids=lambda how: " ".join(how) or "x"
)
def test_what_is_linked_over_an_older_one_by_another_name_is_stored(w: Any, how: tuple[str, ...]) -> None:
    """The same without cargo: lld opens what lies there, to remove it."""
    for n in (1, 2):
        w.write("x.rs", f"{MAIN}// {n}\n")
        assert w.run([str(w.client), w.compiler, *how, "x.rs"], None, {}).returncode == 0
    w.note_server()
    assert w.expect("hit", *how, "x.rs")
    assert not w.reasons()


def test_a_directory_whose_name_begins_like_the_output_is_searched_as_any(w: Any) -> None:
    """`-o m` and a library that appears in `m1`: the program would be another."""
    for directory, value in (("m1", None), ("m2", 2), ("spare", 1)):
        (w.p / directory).mkdir()
        if value is not None:
            w.write("n.c", f"int n(void) {{ return {value}; }}\n")
            subprocess.run(["gcc", "-c", "n.c"], cwd=w.p, check=True)
            subprocess.run(["ar", "rcsD", f"{directory}/libn.a", "n.o"], cwd=w.p, check=True)
    w.write(
        "x.rs", '#[link(name = "n", kind = "static")] extern "C" { fn n() -> i32; }\nfn main() { std::process::exit(unsafe { n() }) }\n'
    )
    args = ("-Lnative=m1", "-Lnative=m2", "-o", "m", "x.rs")
    w.compile_twice(*args)
    shutil.copy(w.p / "spare" / "libn.a", w.p / "m1" / "libn.a")
    w.expect("miss", *args)
    (w.p / "m").unlink()
    w.expect("hit", *args)
    (w.p / "m").unlink()
    assert w.cached(*args).status == 0
    assert subprocess.run([w.p / "m"], check=False).returncode == 1


@pytest.mark.parametrize("setting", ["rpath", "rpath=no"])
def test_where_the_standard_library_lies_from_a_program_is_of_its_place(w: Any, setting: str) -> None:
    """cargo's `rpath = true`: the program says `$ORIGIN/../../…`, which names no directory and is wrong in another."""
    w.write("x.rs", MAIN)
    far = w.root / "far" / "away"
    w.outs.append(far)
    args = ("--crate-name", "x", "--crate-type", "bin", "-Cprefer-dynamic", "-C", setting, EMIT, "x.rs")
    w.compile_twice(*args, *w.out)
    w.expect("miss" if setting == "rpath" else "hit", *args, "--out-dir", str(far))


def test_a_linker_script_is_an_input(w: Any) -> None:
    """Embedded projects change nothing else."""
    w.write("extra.ld", "one = 1;\n")
    w.write("x.rs", MAIN)
    script = f"link-arg=-Wl,--defsym=zero=0,{w.p}/extra.ld"
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "-C", script, "x.rs")
    w.changes_text("extra.ld", "two = 2;\n", *args)


@pytest.mark.parametrize(
    "flags",
    [
        ("-Cdebuginfo=2", "-Csplit-debuginfo=packed"),
        ("-Cdebuginfo=2", "-Csplit-debuginfo=unpacked"),
        ("-Cstrip=symbols",),
        ("-Copt-level=2", "-Clto=thin", "-Ccodegen-units=1"),
        ("-Copt-level=2", "-Clto=fat", "-Ccodegen-units=1"),
        ("-Cpanic=abort",),
        ("-Cprefer-dynamic",),
        ("-Clinker=clang",),
        ("-Clink-arg=-fuse-ld=bfd",),
        ("-Clink-arg=-fuse-ld=gold",),
        ("-Clinker=clang", "-Clink-arg=-fuse-ld=lld"),
    ],
    ids=" ".join,
)
def test_profiles_and_linkers_hit_with_the_same_files(w: Any, flags: tuple[str, ...]) -> None:
    """Each of these makes other files or runs other programs; no rule of ours names any of them."""
    needed = {"-Clinker=clang": "clang", "-Clink-arg=-fuse-ld=lld": "ld.lld"}
    for program in (needed[flag] for flag in flags if flag in needed):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    w.write("x.rs", MAIN)
    w.compile_twice("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, *flags, "x.rs")


def test_a_linker_that_loads_libraries_by_bare_name_is_not_stored(w: Any) -> None:
    """mold's thread library looks for libraries in places that only ld.so knows: what was absent there cannot be told."""
    if shutil.which("mold") is None:
        pytest.skip("mold is not installed")
    w.write("x.rs", MAIN)
    reason = "did what cannot be observed"
    w.not_stored(reason, "--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "-Clink-arg=-fuse-ld=mold", "x.rs")


def test_a_link_that_fails_is_told_as_it_is_and_not_stored(w: Any) -> None:
    """A missing library is the user's error, and its message has temporary names in it."""
    w.write("x.rs", MAIN)
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "-C", "link-arg=-lno-such-library", "x.rs")
    done = w.cached(*args)
    assert done.status == 1
    assert b"no-such-library" in done.stderr
    assert w.verdict_since({}) == "fail"
    assert "x" not in done.names()


def test_a_linker_that_is_killed_leaves_nothing_in_the_store(w: Any) -> None:
    """The out-of-memory killer takes linkers first."""
    linker = w.write("linker.sh", "#!/bin/sh\nkill -9 $$\n")
    linker.chmod(0o755)
    w.write("x.rs", MAIN)
    done = w.cached("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "-C", f"linker={linker}", "x.rs")
    assert done.status == 1
    assert w.verdict_since({}) == "fail"


def test_a_linker_script_with_an_error_is_told_as_it_is(w: Any) -> None:
    """The linker's message names line and file; corrected, it links."""
    w.write("extra.ld", "one = ;\n")
    w.write("x.rs", MAIN)
    script = f"link-arg=-Wl,-T,{w.p}/extra.ld"
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "-C", script, "x.rs")
    done = w.cached(*args)
    assert done.status == 1
    assert b"extra.ld" in done.stderr
    assert w.verdict_since({}) == "fail"
    assert "x" not in done.names()


def test_a_response_file_of_the_linker_is_an_input(w: Any) -> None:
    """The driver reads it: on rustc's command line only its name stands."""
    w.write("link.rsp", "-Wl,--defsym=one=1\n")
    w.write("x.rs", MAIN)
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "-C", f"link-arg=@{w.p}/link.rsp", "x.rs")
    w.changes_text("link.rsp", "-Wl,--defsym=two=2\n", *args)


def test_a_response_file_of_the_linker_that_is_not_there_fails_as_without_us(w: Any) -> None:
    """It is then taken for the name of an object."""
    w.write("x.rs", MAIN)
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "-C", f"link-arg=@{w.p}/link.rsp", "x.rs")
    done = w.cached(*args)
    assert done.status == 1
    assert b"link.rsp" in done.stderr
    assert w.verdict_since({}) == "fail"
    w.write("link.rsp", "-Wl,--defsym=one=1\n")
    w.compile_twice(*args)


def test_a_linker_that_is_killed_half_way_leaves_what_it_leaves_without_us(w: Any) -> None:
    """Half a program in the output directory is rustc's to remove, and no hit may bring it back."""
    linker = w.write("linker.sh", '#!/bin/sh\nfor a; do [ "$last" = -o ] && printf half > "$a"; last=$a; done\nkill -9 $$\n')
    linker.chmod(0o755)
    w.write("x.rs", MAIN)
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "-C", f"linker={linker}", "x.rs")
    done = w.cached(*args)
    assert w.verdict_since({}) == "fail"
    plain = w.uncached(*args)
    assert (done.status, done.names()) == (plain.status, plain.names()) == (1, done.names())
    before = w.counts()
    w.cached(*args)
    assert w.verdict_since(before) == "fail"


def test_two_crates_that_write_one_file_at_once_leave_one_of_them_and_store_no_other(w: Any) -> None:
    """Two packages with a program of the same name: which of them wins is chance, what it holds is not."""
    calls = []
    for name, text in (("one", MAIN), ("two", MAIN.replace("one", "two"))):
        w.write(f"{name}.rs", text)
        calls.append(("--crate-name", "x", "--crate-type", "bin", "--emit=link", *w.out, f"{name}.rs"))
    whole = {w.uncached(*call).file("x") for call in calls}
    for _ in range(4):
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        running = [subprocess.Popen([w.client, w.compiler, *call], cwd=w.p, env=w.env, **pipes) for call in calls]
        said = [process.communicate(timeout=60)[0] for process in running]
        # Without the cache, too, the one that comes second may find what it was about to link gone.
        if all(process.returncode == 0 for process in running):
            assert (w.o / "x").read_bytes() in whole, said
    w.note_server()
    w.counts()
    for call in calls:
        done, plain = w.cached(*call), w.uncached(*call)
        assert (done.status, done.files) == (plain.status, plain.files)


def test_the_fallback_leaves_linked_crates_to_the_client(make_world) -> None:
    """Without observation nobody knows what a linker read."""
    world = make_world("fallback")
    world.write("x.rs", MAIN)
    world.refused("crate-type", "--crate-name", "x", "--crate-type", "bin", EMIT, *world.out, "x.rs")


def test_incremental_crates_pass_through_unless_they_are_asked_for(w: Any) -> None:
    """Storing on every keystroke's build costs; whoever switches branches may want it."""
    w.write("x.rs", MAIN)
    incremental = w.root / "inc"
    args = ("--crate-name", "x", "--crate-type", "bin", EMIT, *w.out, "-C", f"incremental={incremental}", "x.rs")
    w.refused("incremental", *args)
    env = {"SCCACHE_INCREMENTAL": "1"}
    w.expect("miss", *args, env=env)
    shutil.rmtree(incremental)
    w.expect("hit", *args, env=env)
    assert not os.path.exists(incremental) or w.observed
