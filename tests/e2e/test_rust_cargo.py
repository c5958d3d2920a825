"""cargo with the cache as its wrapper, on a small workspace without the network: a build script, a macro, two libraries, a program."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FILES = {
    "Cargo.toml": '[workspace]\nmembers = ["base", "shapes", "tool"]\nresolver = "2"\n',
    "base/Cargo.toml": '[package]\nname = "base"\nversion = "1.2.3"\nedition = "2021"\nauthors = ["A. Uthor"]\n[features]\nloud = []\n',
    "base/build.rs": r"""
fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    std::fs::write(format!("{out}/made.rs"), "pub const MADE: &str = \"by a build script\";\n").unwrap();
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=FROM_SCRIPT=value");
    println!("cargo:rustc-cfg=scripted");
    println!("cargo:rustc-check-cfg=cfg(scripted)");
    println!("cargo:rustc-check-cfg=cfg(flagged)");
}
""",
    "base/src/lib.rs": r"""
include!(concat!(env!("OUT_DIR"), "/made.rs"));
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const SCRIPT: &str = env!("FROM_SCRIPT");
#[cfg(feature = "loud")] pub fn loud() {}
#[cfg(flagged)] pub fn flagged() {}
#[cfg(scripted)] pub fn largest<T: PartialOrd + Copy>(of: &[T]) -> Option<T> {
    let unused = 1;
    of.iter().copied().fold(None, |m, x| match m { Some(y) if y > x => m, _ => Some(x) })
}
""",
    "shapes/Cargo.toml": '[package]\nname = "shapes"\nversion = "0.1.0"\nedition = "2021"\n[lib]\nproc-macro = true\n',
    "shapes/src/lib.rs": r"""
use proc_macro::TokenStream;
#[proc_macro] pub fn corners(_: TokenStream) -> TokenStream { std::fs::read_to_string("tool/corners.txt")
    .or_else(|_| std::fs::read_to_string("corners.txt")).unwrap().trim().parse().unwrap() }
""",
    "tool/Cargo.toml": '[package]\nname = "tool"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nbase = { path = "../base" }\n'
    'shapes = { path = "../shapes" }\n',
    "tool/corners.txt": "4\n",
    "tool/src/lib.rs": "pub mod deep;\npub const CORNERS: u32 = shapes::corners!();\n",
    "tool/src/deep.rs": "pub fn answer() -> u32 { if base::largest(&[1, 2]) == Some(2) { return 42; } else { return 0; } }\n",
    "tool/src/main.rs": 'fn main() { println!("{} {} {}", tool::deep::answer(), tool::CORNERS, base::VERSION); }\n',
}


@pytest.fixture
def workspace(world):
    for name, text in FILES.items():
        world.write(name, text)
    world.target = world.p / "target"
    return world


def cargo(world, *words: str, env: dict[str, str] | None = None, wrapped: bool = True) -> subprocess.CompletedProcess[str]:
    """One run of cargo; it must succeed."""
    wrappers = {"RUSTC_WRAPPER": str(world.client)} if wrapped else {}
    done = subprocess.run(
        [world.sysroot / "bin" / "cargo", *words],
        cwd=world.p,
        env={**world.env, **world.server_env, "CARGO_INCREMENTAL": "0", **wrappers, **(env or {})},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if wrapped or env:
        world.note_server()
    return done


def grown(world, before: dict[str, int]) -> tuple[int, int]:
    """(hits, compilations) since `before`."""
    after = world.counts()
    return tuple(after.get(n, 0) - before.get(n, 0) for n in ("cache_hits", "compilations"))


def tree(target: Path) -> dict[str, bytes]:
    return {str(p.relative_to(target)): p.read_bytes() for p in sorted(target.rglob("*")) if p.is_file() and not p.is_symlink()}


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What cargo said, less how long it took and what depends on which of two crates ended first, in an order of its own."""
    left_out = ("Finished", "Blocking", "generated")
    return sorted(line for line in done.stderr.splitlines() if not any(word in line for word in left_out))


@pytest.mark.parametrize("command", [["build"], ["build", "--release"], ["check"], ["clippy"], ["test", "--no-run"]])
def test_a_clean_build_is_answered_from_the_cache_and_the_next_run_is_fresh(workspace, command):
    """What cargo finds after a warm build must satisfy it: sccache once left files that were older than their sources."""
    world = workspace
    if command[0] == "clippy" and not (world.sysroot / "bin" / "cargo-clippy").exists():
        pytest.skip("no clippy in this toolchain")
    cold = cargo(world, *command)
    # cargo links and touches a crate while others that use it are compiled already; one that saw this is stored the next time.
    for _ in range(2):
        before = world.counts()
        shutil.rmtree(world.target)
        warm = cargo(world, *command)
        hits, compilations = grown(world, before)
        if compilations == 0:
            break
    assert hits >= 3 if world.observed else hits >= 1
    if world.observed:
        assert compilations == 0
    assert lines(warm) == lines(cold)
    before = world.counts()
    third = cargo(world, *command)
    assert grown(world, before) == (0, 0)
    assert "Compiling" not in third.stderr
    assert "Checking" not in third.stderr


# What two plain builds of one workspace do not have in common, even in one place: moments in time.
NOT_REPRODUCED = ("invoked.timestamp", "root-output", ".cargo-lock", ".rustc_info.json")


def test_a_target_directory_is_byte_for_byte_what_it_is_without_the_cache(workspace):
    """Uncached, cold and warm: three builds in one place, file by file."""
    world = workspace
    cargo(world, "build", wrapped=False)
    plain = tree(world.target)
    shutil.rmtree(world.target)
    cargo(world, "build", wrapped=False)
    again = tree(world.target)
    unstable = {name for name in plain.keys() | again.keys() if plain.get(name) != again.get(name)}
    assert all(os.path.basename(name) in NOT_REPRODUCED or name.startswith("debug/.fingerprint/") for name in unstable), unstable

    def compared(found: dict[str, bytes]) -> dict[str, bytes]:
        # cargo's own notes of how it built name the wrapper: they are about rustc's command, not from rustc.
        return {n: c for n, c in found.items() if ".fingerprint/" not in n and os.path.basename(n) not in NOT_REPRODUCED}

    for _ in range(2):
        shutil.rmtree(world.target)
        cargo(world, "build")
        found, expected = compared(tree(world.target)), compared(plain)
        assert found.keys() == expected.keys()
        assert [name for name in found if found[name] != expected[name]] == []


def test_wrappers_in_any_combination_are_one_cache(workspace):
    """RUSTC_WRAPPER, RUSTC_WORKSPACE_WRAPPER, both: cargo then runs `sccache-py sccache-py rustc`, which must not loop."""
    world = workspace
    client = str(world.client)
    output = set()
    for wrappers in (
        {"RUSTC_WRAPPER": client},
        {"RUSTC_WORKSPACE_WRAPPER": client},
        {"RUSTC_WRAPPER": client, "RUSTC_WORKSPACE_WRAPPER": client},
    ):
        cargo(world, "build", env=wrappers, wrapped=False)
        ran = subprocess.run([world.target / "debug" / "tool"], capture_output=True, text=True, check=True)
        output.add(ran.stdout)
        shutil.rmtree(world.target)
    assert output == {"42 4 1.2.3\n"}


def test_a_workspaces_own_wrapper_is_part_of_the_compiler(workspace):
    """cargo-auditable and the like: cargo calls `sccache-py wrapper rustc …`."""
    world = workspace
    world.needs_observation("what a wrapper reads is on no list")
    wrapper = world.p / "wrapper"

    def build(flag: str, wrapped: bool = True) -> tuple[bytes, int, int]:
        """A library of the workspace; hits and compilations meanwhile."""
        wrapper.write_text(f'#!/bin/sh\nexec "$@" {flag}\n')
        wrapper.chmod(0o755)
        before = world.counts()
        cargo(world, "build", env={"RUSTC_WORKSPACE_WRAPPER": str(wrapper)}, wrapped=wrapped)
        (library,) = world.target.glob("debug/deps/libbase-*.rlib")
        made = library.read_bytes()
        shutil.rmtree(world.target)
        return made, *grown(world, before)

    world.cached("-vV")
    world.note_server()
    plain, _, _ = build("")
    again = next(found for found in (build(""), build("")) if found[2] == 0)  # the first may see how cargo touches what is compiled
    assert again[0] == plain
    assert again[1] >= 4
    flagged, _, compiled = build("--cfg flagged")
    assert compiled > 0
    assert flagged == build("--cfg flagged", wrapped=False)[0] != plain


@pytest.mark.parametrize(
    "change",
    [
        {"env": {"RUSTFLAGS": "--cfg flagged"}},
        {"words": ["--features", "base/loud"]},
        {"file": ("base/src/lib.rs", "1.iter", "2.iter")},
        {"file": ("base/Cargo.toml", "1.2.3", "1.2.4")},
        {"file": ("base/build.rs", "by a build", "from a build")},
        {"file": ("base/build.rs", "FROM_SCRIPT=value", "FROM_SCRIPT=other")},
        {"file": ("tool/src/deep.rs", "42", "43")},
    ],
)
def test_a_change_that_cargo_sees_is_built_and_its_undoing_hits(make_world, change):
    """Flags, features, versions, build scripts, sources: after each the program is the one that an uncached build makes."""
    world = make_world()
    for name, text in FILES.items():
        world.write(name, text)
    world.target = world.p / "target"
    world.write("base/src/lib.rs", FILES["base/src/lib.rs"].replace("let unused = 1;", "let _ = [1u8].iter(); // 1.iter"))
    words = ["build", *change.get("words", [])]
    env = change.get("env", {})

    def program(wrapped: bool, changed: bool) -> bytes:
        shutil.rmtree(world.target, ignore_errors=True)
        cargo(world, *(words if changed else ["build"]), env=env if changed else None, wrapped=wrapped)
        return (world.target / "debug" / "tool").read_bytes()

    first = program(True, False)
    if "file" in change:
        name, old, new = change["file"]
        text = (world.p / name).read_text()
        assert old in text
        (world.p / name).write_text(text.replace(old, new))
    before = world.counts()
    second = program(True, True)
    assert grown(world, before)[1] > 0
    assert second == program(False, True)
    if "file" in change:
        (world.p / name).write_text(text)
    before = world.counts()
    assert program(True, False) == first
    assert grown(world, before)[1] == 0


def test_a_macros_file_that_cargo_does_not_know_of_is_still_right_after_a_clean_build(make_world):
    """cargo does not see tool/corners.txt change; a clean build does, and the cache must not bring the old one back."""
    world = make_world()
    for name, text in FILES.items():
        world.write(name, text)
    world.target = world.p / "target"
    said = []
    for corners in ("4", "5", "4"):
        world.write("tool/corners.txt", corners)
        shutil.rmtree(world.target, ignore_errors=True)
        cargo(world, "build")
        said.append(subprocess.run([world.target / "debug" / "tool"], capture_output=True, text=True, check=True).stdout)
    assert said == ["42 4 1.2.3\n", "42 5 1.2.3\n", "42 4 1.2.3\n"]


HOLDING = """
use proc_macro::TokenStream;
#[proc_macro] pub fn corners(_: TokenStream) -> TokenStream {
    let hold = std::path::Path::new("hold");
    if hold.exists() { std::fs::write("begun", "").unwrap(); }
    while hold.exists() { std::thread::sleep(std::time::Duration::from_millis(5)); }
    "4".parse().unwrap()
}
"""


def test_ctrl_c_ends_cargo_and_leaves_nothing_half_written(make_world):
    """The terminal sends SIGINT to cargo, to us and to nobody else: the compiler is the server's child."""
    world = make_world()
    for name, text in {**FILES, "shapes/src/lib.rs": HOLDING, "hold": ""}.items():
        world.write(name, text)
    world.target = world.p / "target"
    env = {**world.env, "CARGO_INCREMENTAL": "0", "RUSTC_WRAPPER": str(world.client)}
    words = [world.sysroot / "bin" / "cargo", "build"]
    building = subprocess.Popen(
        words, cwd=world.p, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    limit = time.monotonic() + 60
    while not (world.p / "begun").exists():
        assert building.poll() is None, building.communicate()
        assert time.monotonic() < limit
        time.sleep(0.01)
    world.note_server()
    os.killpg(building.pid, signal.SIGINT)
    building.communicate(timeout=60)
    assert building.returncode == -signal.SIGINT
    # The compiler is gone, too, or it would go on when it is let go.
    while world.control("ping")["connections"] != 1 or world.control("stats")["surroundings"]["jobserver"]["in_use"]:
        assert time.monotonic() < limit
        time.sleep(0.01)
    left = [path for path in world.target.rglob("*") if path.name.startswith((".sccache", "libtool", "rmeta"))]
    assert left == []
    (world.p / "hold").unlink()
    made = []
    for wrapped in (True, False):
        cargo(world, "build", wrapped=wrapped)
        made.append({path.name: path.read_bytes() for path in (world.target / "debug" / "deps").iterdir()})
        shutil.rmtree(world.target)
    assert made[0] == made[1]
