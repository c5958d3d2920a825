"""Another compiler is another cache: behind links, behind rustup's proxy, overwritten in place.

A toolchain is copied by hard links, which takes no room, and one file of the copy is made different.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LIB = ("--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata,link", "--edition=2021")


def copy_toolchain(sysroot: Path, where: Path) -> Path:
    """Hard links to every file that a compile may need."""
    for part in ("bin", "lib"):
        shutil.copytree(sysroot / part, where / part, copy_function=os.link, symlinks=True)
    return where


def std(toolchain: Path) -> Path:
    """A library of the toolchain that every crate here reads, but of whose content rustc takes little into the crate."""
    (found,) = toolchain.glob("lib/rustlib/*-linux-gnu/lib/libcore-*.rlib")
    return found


def differ(path: Path) -> None:
    """The same library with other bytes: an archive may have something behind its members."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b"\n")


@pytest.fixture
def toolchain(sysroot, make_world):
    """A world with a toolchain of its own, on the same file system if that is possible."""

    def make(world, name: str) -> Path:
        try:
            return copy_toolchain(sysroot, world.root / name)
        except OSError:
            shutil.rmtree(world.root / name, ignore_errors=True)
            pytest.skip("the toolchain is on another file system, and too large to copy")

    return make


def lib(world) -> tuple[str, ...]:
    return (*LIB, *world.out, "src/lib.rs")


def test_another_toolchain_behind_the_same_link_misses(make_world, toolchain):
    """`current -> 1.94` becomes `current -> 1.95`: the path of the compiler is what it was.

    The copies share bin/rustc as one inode, so nothing about the program itself tells them apart.
    """
    world = make_world()
    one, two = toolchain(world, "one"), toolchain(world, "two")
    differ(std(two))
    link = world.root / "current"
    link.symlink_to(one)
    rustc = str(link / "bin" / "rustc")
    world.write("src/lib.rs", "pub fn f() -> u32 { 1 }\n")

    def point(target: Path) -> None:
        new = world.root / "new"
        new.symlink_to(target)
        os.rename(new, link)

    world.expect("miss", *lib(world), rustc=rustc)
    world.expect("hit", *lib(world), rustc=rustc)
    point(two)
    world.expect("miss", *lib(world), rustc=rustc)
    point(one)
    world.expect("hit", *lib(world), rustc=rustc, asks=True)


def test_a_library_of_the_toolchain_that_is_overwritten_in_place_misses(make_world, toolchain):
    """Whoever builds rustc copies a new std over the old one."""
    world = make_world()
    mine = toolchain(world, "mine")
    rustc = str(mine / "bin" / "rustc")
    path = std(mine)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    mtime = path.stat().st_mtime_ns
    world.write("src/lib.rs", "pub fn f() -> u32 { 1 }\n")

    def put(extra: bytes) -> None:
        with open(path, "r+b") as f:
            f.seek(len(content))
            f.write(extra)
            f.truncate()
        os.utime(path, ns=(mtime, mtime))

    put(b"\n")
    world.expect("miss", *lib(world), rustc=rustc)
    world.expect("hit", *lib(world), rustc=rustc)
    put(b" ")
    world.expect("miss", *lib(world), rustc=rustc)
    put(b"\n")
    world.expect("hit", *lib(world), rustc=rustc, asks=True)


def test_a_link_of_the_toolchain_that_leads_nowhere_is_part_of_it(make_world, toolchain):
    """Debian's rustc comes with links to lld, which is in another package; with that one it is another toolchain."""
    world = make_world()
    one = toolchain(world, "one")
    rustc = str(one / "bin" / "rustc")
    (place,) = one.glob("lib/rustlib/*-linux-gnu/bin")
    (place / "gcc-ld").mkdir(exist_ok=True)
    (place / "gcc-ld" / "ld64").symlink_to("../no-lld")
    world.write("src/lib.rs", "pub fn f() -> u32 { 1 }\n")
    world.compile_twice(*lib(world), rustc=rustc)
    shutil.copy("/bin/true", place / "no-lld")
    world.expect("miss", *lib(world), rustc=rustc)
    (place / "no-lld").unlink()
    world.expect("hit", *lib(world), rustc=rustc, asks=True)


def test_a_change_of_the_toolchain_right_after_a_hit_is_seen(make_world, toolchain):
    """Nothing may be taken for unchanged because it was looked at a moment ago."""
    world = make_world()
    one, two = toolchain(world, "one"), toolchain(world, "two")
    differ(std(two))
    link = world.root / "current"
    new = world.root / "new"
    link.symlink_to(one)
    world.write("src/lib.rs", "pub fn f() -> u32 { 1 }\n")
    args = [str(world.client), str(link / "bin" / "rustc"), *lib(world)]
    world.expect("miss", *lib(world), rustc=args[1])
    world.expect("hit", *lib(world), rustc=args[1])
    before = world.counts()
    assert world.run(args, None, {}).returncode == 0
    new.symlink_to(two)
    os.rename(new, link)
    assert world.run(args, None, {}).returncode == 0
    after = world.counts()
    assert (after["cache_hits"] - before["cache_hits"], after["cache_misses"] - before["cache_misses"]) == (1, 1)


def test_a_project_inside_the_compilers_prefix_is_looked_at(make_world, toolchain):
    """A distribution's rustc has the sysroot /usr, and containers build in /usr/src/app."""
    world = make_world()
    mine = toolchain(world, "usr")
    rustc = str(mine / "bin" / "rustc")
    project = mine / "src" / "app"
    project.mkdir(parents=True)
    module = project / "a.rs"
    (project / "lib.rs").write_text("pub mod a;\n")
    module.write_text("pub fn f() -> u32 { 1 }\n")
    args = (*LIB, *world.out, "lib.rs")
    first = world.compile_twice(*args, rustc=rustc, cwd=project)
    module.write_text("pub fn f() -> u32 { 2 }\n")
    assert world.expect("miss", *args, rustc=rustc, cwd=project) != first
    module.write_text("pub fn f() -> u32 { 1 }\n")
    assert world.expect("hit", *args, rustc=rustc, cwd=project) == first


# -- behind rustup --------------------------------------------------------------------------------------------------


@pytest.fixture
def rustup_world(make_world, toolchain):
    """A world with a rustup of its own: two custom toolchains that differ in one library, and the proxy."""
    rustup = shutil.which("rustup")
    if rustup is None:
        pytest.skip("no rustup")
    world = make_world()
    home = world.root / "rustup"
    bin_ = world.root / "bin"
    bin_.mkdir()
    shutil.copy(os.path.realpath(rustup), bin_ / "rustup")
    (bin_ / "rustc").symlink_to("rustup")
    one, two = toolchain(world, "one"), toolchain(world, "two")
    differ(std(two))
    world.env["RUSTUP_HOME"] = str(home)
    world.env["PATH"] = f"{bin_}:/usr/bin:/bin"
    for name, path in (("one", one), ("two", two)):
        subprocess.run([bin_ / "rustup", "toolchain", "link", name, path], env=world.env, check=True, capture_output=True)
    subprocess.run([bin_ / "rustup", "default", "one"], env=world.env, check=True, capture_output=True)
    world.write("src/lib.rs", "pub fn f() -> u32 { 1 }\n")
    world.proxy = str(bin_ / "rustc")
    world.rustup = str(bin_ / "rustup")
    return world


def ways_to_choose(world):
    """What makes rustup choose `two` here, and what takes it back; then a hit again."""

    def rustup(*words: str) -> None:
        subprocess.run([world.rustup, *words], env=world.env, cwd=world.p, check=True, capture_output=True)

    def relink(target: str) -> None:
        link = world.root / "rustup" / "toolchains" / "one"
        link.unlink()
        link.symlink_to(world.root / target)

    toml = world.p / "rust-toolchain.toml"
    above = world.root / "rust-toolchain"
    return {
        "default": (lambda: rustup("default", "two"), lambda: rustup("default", "one")),
        "override": (lambda: rustup("override", "set", "two"), lambda: rustup("override", "unset")),
        "file": (lambda: toml.write_text('[toolchain]\nchannel = "two"\n'), toml.unlink),
        "file above": (lambda: above.write_text("two\n"), above.unlink),
        "link": (lambda: relink("two"), lambda: relink("one")),
    }


@pytest.mark.parametrize("way", ["default", "override", "file", "file above", "link"])
def test_whatever_makes_rustup_choose_another_toolchain_misses(rustup_world, way):
    """The proxy is the same program always; what it runs depends on settings, files and links."""
    world = rustup_world
    choose, take_back = ways_to_choose(world)[way]
    world.expect("miss", *lib(world), rustc=world.proxy)
    world.expect("hit", *lib(world), rustc=world.proxy)
    choose()
    world.expect("miss", *lib(world), rustc=world.proxy)
    take_back()
    world.expect("hit", *lib(world), rustc=world.proxy, asks=True)


def test_the_variable_that_makes_rustup_choose_another_toolchain_misses(rustup_world):
    """cargo +two sets it for all that it starts."""
    world = rustup_world
    for name in ("one", "two"):
        world.expect("miss", *lib(world), rustc=world.proxy, env={"RUSTUP_TOOLCHAIN": name})
    for name in ("one", "two"):
        world.expect("hit", *lib(world), rustc=world.proxy, env={"RUSTUP_TOOLCHAIN": name})


def test_what_the_proxy_would_have_set_is_set(rustup_world):
    """A crate that asks for RUSTUP_TOOLCHAIN compiles under the proxy, so it must compile here."""
    world = rustup_world
    world.write("src/lib.rs", 'pub const T: &str = env!("RUSTUP_TOOLCHAIN");\n')
    world.compile_twice(*lib(world), rustc=world.proxy)


# -- copies ---------------------------------------------------------------------------------------------------------


def test_two_copies_of_a_toolchain_share_results_and_each_has_libraries_of_its_own(make_world, toolchain):
    """`stable` and `1.95.0` are the same; what one of them has for another target need not be the other's."""
    world = make_world()
    world.needs_observation("dep-info names no library of the toolchain")
    one, two = toolchain(world, "one"), toolchain(world, "two")
    target = next((d.name for d in (one / "lib" / "rustlib").glob("wasm32-*")), None)
    world.write("src/lib.rs", "pub fn f() -> u32 { 1 }\n")
    world.expect("miss", *lib(world), rustc=str(one / "bin" / "rustc"))
    world.expect("hit", *lib(world), rustc=str(two / "bin" / "rustc"), asks=True)
    if target is None:
        pytest.skip("rustc for this machine alone")
    other = (*lib(world), "--target", target)
    (core,) = two.glob(f"lib/rustlib/{target}/lib/libcore-*.rlib")
    world.expect("miss", *other, rustc=str(one / "bin" / "rustc"))
    world.expect("hit", *other, rustc=str(two / "bin" / "rustc"))
    differ(core)
    world.expect("miss", *other, rustc=str(two / "bin" / "rustc"))
    world.expect("hit", *other, rustc=str(one / "bin" / "rustc"))


@pytest.mark.parametrize("what", ["sysroot", "target-libdir"])
def test_each_copy_of_a_toolchain_says_where_it_is(make_world, toolchain, what):
    """clippy, cargo and build scripts ask for it, and look there for more."""
    world = make_world()
    one, two = (str(toolchain(world, name) / "bin" / "rustc") for name in ("one", "two"))
    first = world.compile_twice("--print", what, rustc=one)
    assert world.expect("miss", "--print", what, rustc=two) != first
    assert world.expect("hit", "--print", what, rustc=one) == first
    world.expect("miss", "-vV", rustc=one)
    world.expect("hit", "-vV", rustc=two, asks=True)


def test_a_macro_may_tell_in_which_toolchain_it_runs(make_world, toolchain, macros):
    """The program's path is in no variable and no argument that a macro would have to ask for."""
    world = make_world()
    world.write("src/lib.rs", "pub const S: &str = m::program!();\n")
    args = (*lib(world), "--extern", f"m={macros}/libm.so")
    one, two = (str(toolchain(world, name) / "bin" / "rustc") for name in ("one", "two"))
    first = world.compile_twice(*args, rustc=one)
    assert world.expect("miss", *args, rustc=two) != first
    assert world.expect("hit", *args, rustc=one) == first


def test_a_message_that_names_a_toolchains_sources_is_this_toolchains(make_world, toolchain):
    """With rust-src installed rustc tells where a macro of the standard library stands, on this disk."""
    world = make_world()
    world.needs_observation("dep-info does not tell whether the sources are there")
    one, two = toolchain(world, "one"), toolchain(world, "two")
    world.write("src/lib.rs", 'pub fn f() -> u32 { return 1; println!("x"); }\n')
    args = (*lib(world), "--error-format=json")
    for copy in (one, two):
        sources = copy / "lib" / "rustlib" / "src" / "rust" / "library" / "std" / "src"
        world.expect("miss" if copy == one else "hit", *args, rustc=str(copy / "bin" / "rustc"), asks=True)
        sources.mkdir(parents=True)
        (sources / "lib.rs").touch()
        said = world.compile_twice(*args, rustc=str(copy / "bin" / "rustc"))
        assert f"{copy}/lib/rustlib/src/rust".encode() in said.stderr


def test_a_changed_library_of_another_target_misses(world, toolchain):
    """Somebody who builds the standard library for his board by himself."""
    mine = toolchain(world, "mine")
    found = next(iter(mine.glob("lib/rustlib/wasm32-*/lib/libcore-*.rlib")), None)
    if found is None:
        pytest.skip("rustc for this machine alone")
    old, new = mine / "old", mine / "new"
    shutil.copy(found, old)
    shutil.copy(found, new)
    differ(new)
    world.write("src/lib.rs", "pub fn f() -> u32 { 1 }\n")
    args = (*lib(world), "--target", found.parent.parent.name)
    world.compile_twice(*args, rustc=str(mine / "bin" / "rustc"))
    for path, verdict in ((new, "miss"), (old, "hit")):
        os.rename(path, found)
        world.expect(verdict, *args, rustc=str(mine / "bin" / "rustc"), asks=True)
