"""Questions to the compiler, and crates on standard input: every fresh target directory begins with dozens."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def w(make_world) -> Any:
    return make_world()


def ask(w: Any, *args: str, stdin: bytes = b"", cached: bool = True, env: dict[str, str] | None = None) -> tuple[int, bytes, bytes]:
    program = [str(w.client), w.compiler] if cached else [w.compiler]
    ran = subprocess.run([*program, *args], cwd=w.p, env={**w.env, **(env or {})}, input=stdin, capture_output=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def hits(w: Any) -> int:
    w.note_server()
    found: int = w.counts()["cache_hits"]
    return found


CARGO_ASKS = (
    "-",
    "--crate-name",
    "___",
    "--print=file-names",
    "--crate-type",
    "bin",
    "--crate-type",
    "rlib",
    "--print=sysroot",
    "--print=cfg",
)


@pytest.mark.parametrize("question", [("-vV",), ("--version",), ("--print=cfg",), ("--print", "target-list"), CARGO_ASKS], ids=" ".join)
def test_questions_are_answered_without_rustc(w: Any, question: tuple[str, ...]) -> None:
    """cargo asks `-vV` up to four times, and a rustup proxy takes 17 ms each."""
    plain = ask(w, *question, cached=False)
    assert ask(w, *question) == plain
    assert ask(w, *question) == plain
    assert hits(w) == 1


def test_a_crate_on_standard_input_hits_by_its_text(w: Any) -> None:
    """autocfg compiles dozens of one-line crates so."""
    args = ("--crate-name", "probe", "--crate-type", "lib", "--emit=metadata", *w.out, "-")
    for text in (b"pub fn f() {}\n", b"pub fn g() {}\n"):
        plain = ask(w, *args, stdin=text, cached=False)
        content = (w.o / "libprobe.rmeta").read_bytes()
        for _ in range(2):
            (w.o / "libprobe.rmeta").unlink()
            assert ask(w, *args, stdin=text) == plain
            assert (w.o / "libprobe.rmeta").read_bytes() == content
    assert hits(w) == 2


def autocfg(w: Any, number: str, count: int = 0) -> tuple[str, ...]:
    name = f"autocfg_{number * 16}_{count}"
    return ("--crate-name", name, "--crate-type=lib", "--out-dir", str(w.o), "--emit=llvm-ir", "--target", "x86_64-unknown-linux-gnu", "-")


def taken_away(w: Any) -> list[str]:
    """What lies in the output directory, which autocfg removes."""
    names = sorted(path.name for path in w.o.iterdir())
    for name in names:
        (w.o / name).unlink()
    return names


def test_what_autocfg_tries_out_is_told_by_its_text_and_not_by_its_random_name(w: Any) -> None:
    """The crates with such build scripts would have each probe compiled in each build."""
    for text, status in ((b"", 0), (b"pub fn probe() { let _ = 1u32.wrapping_add(2); }", 0), (b"pub use std::no::such::thing;", 1)):
        for number in "37":
            plain = ask(w, *autocfg(w, number), stdin=text, cached=False)
            left = taken_away(w)
            assert (plain[0], left) == (status, [f"{autocfg(w, number)[1]}.ll"] if status == 0 else [])
            assert ask(w, *autocfg(w, number), stdin=text) == plain
            assert taken_away(w) == left
    assert hits(w) == 3


def test_a_probe_of_autocfgs_that_tells_its_name_is_of_that_name(w: Any) -> None:
    """A build script's messages are kept by cargo."""
    text = b"const _: () = panic!(module_path!());"
    for number in "377":
        plain = ask(w, *autocfg(w, number), stdin=text, cached=False)
        assert b"autocfg_" in plain[2]
        assert ask(w, *autocfg(w, number), stdin=text) == plain
    assert hits(w) == 1


def test_whether_a_probe_of_autocfgs_compiles_may_hang_on_its_name(w: Any) -> None:
    """Neither what it says nor what it leaves need show the name."""
    text = b"const _: () = assert!(module_path!().as_bytes()[8] == b'3');"
    for number, status in (("3", 0), ("7", 1), ("3", 0), ("7", 1)):
        ran = ask(w, *autocfg(w, number), stdin=text)
        assert ran == ask(w, *autocfg(w, number), stdin=text, cached=False)
        assert ran[0] == status
    assert hits(w) == 2


def test_a_verified_probe_of_autocfgs_is_no_difference(w: Any) -> None:
    """What it leaves has the hash of its name in it."""
    for number in "37":
        assert ask(w, *autocfg(w, number), stdin=b"pub fn probe() {}", env={"SCCACHE_VERIFY": "1"})[0] == 0
        w.note_server()
        counts = w.counts()  # when the first is stored
    assert (counts.get("verified"), counts.get("verify_differences", 0)) == (1, 0)


def test_a_probe_that_fails_is_an_answer_too(w: Any) -> None:
    """Half of all feature probes fail by design; rustc takes 30 ms to say so."""
    args = ("--crate-name", "probe", "--crate-type", "lib", "--emit=metadata", *w.out, "-")
    text = b"#![feature(no_such_feature)]\n"
    plain = ask(w, *args, stdin=text, cached=False)
    assert plain[0] == 1
    assert ask(w, *args, stdin=text) == plain
    assert ask(w, *args, stdin=text) == plain
    assert hits(w) == 1


def test_a_failing_probe_below_out_dir_is_remembered_and_asks_again_when_its_channel_changes(w: Any) -> None:
    """proc-macro2 compiles src/probe.rs into OUT_DIR/probe; RUSTC_BOOTSTRAP turns its answer around."""
    source = w.write("probe.rs", "#![feature(proc_macro_span)]\n#![allow(unused)]\npub fn f() {}\n")
    out = w.o / "probe"
    args = ("--crate-name", "p", "--crate-type", "lib", "--emit=dep-info,metadata", "--out-dir", str(out), str(source))
    env = {"OUT_DIR": str(w.o)}
    plain = ask(w, *args, cached=False, env=env)
    assert plain[0] == 1
    assert ask(w, *args, env=env) == plain
    assert ask(w, *args, env=env) == plain
    assert hits(w) == 1
    bootstrap = {**env, "RUSTC_BOOTSTRAP": "1"}
    assert ask(w, *args, env=bootstrap) == ask(w, *args, cached=False, env=bootstrap)
    assert hits(w) == 1


def test_a_crate_that_was_nowhere_is_found_when_it_is_there(w: Any) -> None:
    """What stands behind a dependency is looked for in `-L dependency` by listing it; rustc knows no name that would be absent."""
    for name, text, words in (
        ("far", "pub fn f() {}\n", ()),
        ("near", "pub fn f() { far::f() }\n", ("--extern", f"far={w.p}/deps/libfar-1.rlib", "-Cextra-filename=-2")),
    ):
        source = w.write(f"{name}.rs", text)
        made = ("--crate-type=lib", "--crate-name", name, "-Cextra-filename=-1", "-Cmetadata=1", *words, str(source))
        assert ask(w, *made, "--out-dir", f"{w.p}/deps", cached=False)[0] == 0
    library, kept = w.p / "deps" / "libfar-1.rlib", w.p / "kept"
    library.rename(kept)
    near = ("--extern", f"near={w.p}/deps/libnear-2.rlib", "-L", f"dependency={w.p}/deps")
    args = ("--crate-name=probe", "--crate-type=lib", "--emit=metadata", *w.out, *near, "-")
    text = b"pub fn g() { near::f() }\n"
    plain = ask(w, *args, stdin=text, cached=False)
    assert (plain[0], b"can't find crate" in plain[2]) == (1, True)
    assert ask(w, *args, stdin=text) == plain
    assert ask(w, *args, stdin=text) == plain
    assert hits(w) == 1
    kept.rename(library)
    assert ask(w, *args, stdin=text)[0] == 0


def test_a_large_standard_input_goes_to_the_compiler_whole(w: Any) -> None:
    """The protocol carries 1 MiB; what is more the client feeds to the compiler itself."""
    text = b"// " + b"x" * 80 + b"\n"
    text = text * (2 * 1024 * 1024 // len(text)) + b"pub fn last() {}\n"
    args = ("--crate-name", "probe", "--crate-type", "lib", "--emit=metadata", *w.out, "-")
    assert ask(w, *args, stdin=text)[0] == 0
    assert (w.o / "libprobe.rmeta").exists()


def test_a_target_specification_is_an_input_of_a_question(w: Any) -> None:
    """`--print=cfg` of a target of one's own is decided by a file in the cwd."""
    spec = ask(w, "-Zunstable-options", "--print=target-spec-json", cached=False, env={"RUSTC_BOOTSTRAP": "1"})[1]
    path = w.write("mine.json", spec)
    args = ("-Zunstable-options", "--target", "mine.json", "--print=cfg")
    env = {"RUSTC_BOOTSTRAP": "1"}
    plain = ask(w, *args, cached=False, env=env)
    assert ask(w, *args, env=env) == plain
    assert ask(w, *args, env=env) == plain
    assert hits(w) == 1
    path.write_bytes(spec.replace(b'"max-atomic-width": 64', b'"max-atomic-width": 32'))
    changed = ask(w, *args, cached=False, env=env)
    assert changed != plain
    assert ask(w, *args, env=env) == changed


def test_a_question_is_no_compile_in_the_statistics(w: Any) -> None:
    """cargo asks some before each build, and the hit rate tells of compiles; sccache counts them as non-compilation calls."""
    for _ in range(3):
        ask(w, "-vV")
    w.note_server()
    stats = w.control("stats")["stats"]
    counts = stats["counts"]
    assert (counts["compile_requests"], counts["requests_not_compile"]) == (3, 3)
    assert (counts["probe_misses"], counts["probe_hits"]) == (1, 2)
    assert not counts.get("requests_executed")
    assert not counts.get("compilations")
    assert not stats["languages"]
