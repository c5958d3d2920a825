"""Generated code that is included from OUT_DIR, where a prefix map covers that directory: serde, and so all that is built on it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow

LIB = ("--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata,link", "--edition=2021", "-g")
INCLUDES = 'include!(concat!(env!("OUT_DIR"), "/g.rs"));\n'


class Checkouts:
    """Two target directories, `one` and `two`, of a crate whose source is elsewhere; the map is in RUSTFLAGS."""

    def __init__(self, world) -> None:
        self.world = world
        world.write("src/lib.rs", INCLUDES)
        for name in ("one", "two"):
            self.generate(name, "pub fn f() -> &'static str { file!() }\n")

    def generate(self, name: str, text: str) -> None:
        directory = self.world.root / name / "target" / "build" / "x" / "out"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "g.rs").write_text(text)

    def expect(self, verdict: str, name: str, *more: str, out_dir: str = "{root}/{name}/target/build/x/out") -> None:
        root = self.world.root
        out = root / name / "target" / "deps"
        self.world.outs[:] = [out]
        words = ("--out-dir", str(out), "--remap-path-prefix", f"{root / name}=/src", "-L", f"dependency={out}")
        env = {"OUT_DIR": out_dir.format(root=root, name=name)}
        self.world.expect(verdict, *LIB, *words, *(word.format(root=root, name=name) for word in more), "src/lib.rs", env=env)


@pytest.fixture
def checkouts(make_world) -> Checkouts:
    return Checkouts(make_world())


@pytest.mark.parametrize(
    "source",
    [
        INCLUDES,
        'pub mod private { ::core::include! { concat! ( env!["OUT_DIR",], "/g", ".rs" ) } }\n',
        'pub const S: &str = include_str!(concat!(env!("OUT_DIR"), "\\x2fg.rs"));\n',
    ],
)
def test_what_is_included_from_out_dir_is_shared_by_checkouts_under_a_map(checkouts, source):
    """The file's path is mapped, and the variable says nothing but which file."""
    checkouts.world.write("src/lib.rs", source)
    checkouts.expect("miss", "one")
    checkouts.expect("hit", "two")
    checkouts.generate("two", 'pub fn f() -> &\'static str { "another" }\n')
    checkouts.expect("miss", "two")
    checkouts.expect("hit", "two")
    checkouts.expect("hit", "one")


@pytest.mark.parametrize("place", ["source", "generated", "dependency", "macro_rules", "another form"])
def test_a_value_of_out_dir_that_may_be_in_the_result_keeps_checkouts_apart(checkouts, place):
    """A byte of it is in no way to be found in an output."""
    world = checkouts.world
    byte = f'env!("OUT_DIR").as_bytes()[{len(str(world.root)) + 1}]'
    more: tuple[str, ...] = ()
    if place == "source":
        world.write("src/lib.rs", f"{INCLUDES}pub const B: u8 = {byte};\n")
    elif place == "generated":
        for name in ("one", "two"):
            checkouts.generate(name, f"pub const B: u8 = {byte};\n")
    elif place == "dependency":
        world.write("dep.rs", f"#[macro_export] macro_rules! byte {{ () => {{ {byte} }}; }}\n")
        for name in ("one", "two"):
            words = ("--crate-type=lib", "--out-dir", f"{world.root}/{name}/target", "dep.rs")
            subprocess.run([world.compiler, *words], cwd=world.p, env=world.env, check=True)
        world.write("src/lib.rs", f"{INCLUDES}pub const B: u8 = dep::byte!();\n")
        more = ("--extern", "dep={root}/{name}/target/libdep.rlib")
    elif place == "macro_rules":
        macro = f"macro_rules! include {{ ($($x:tt)*) => {{ pub const B: u8 = {byte.replace('env!', 'own!')}; }}; }}\n"
        own = "macro_rules! own { ($x:literal) => { env!($x) }; }\n"
        world.write("src/lib.rs", own + macro + INCLUDES)
    else:
        macro = 'macro_rules! of { ($d:literal) => { include!(concat!(env!($d), "/g.rs")); }; }\n'
        world.write("src/lib.rs", f'{macro}of!("OUT_DIR");\npub const B: u8 = {byte};\n')
    checkouts.expect("miss", "one", *more)
    checkouts.expect("hit", "one", *more)
    checkouts.expect("miss", "two", *more)
    checkouts.expect("hit", "two", *more)


def test_a_dependency_that_includes_its_own_generated_code_keeps_nothing_apart(checkouts):
    """serde_core hands its macro on in its metadata, where nobody sees what is done with the name."""
    world = checkouts.world
    world.write("src/lib.rs", f"macro_rules! root {{ () => {{ {INCLUDES} }}; }}\nroot!();\n")
    checkouts.expect("miss", "one")
    for name in ("one", "two"):
        if name == "two":
            checkouts.expect("hit", "two")
        shutil.copytree(world.root / name / "target" / "deps", world.root / name / "target" / "kept")
    world.write("src/lib.rs", f"pub use x::f as g;\n{INCLUDES}")
    more = ("--extern", "x={root}/{name}/target/kept/libx.rlib", "-Cmetadata=y")
    checkouts.expect("miss", "one", *more)
    checkouts.expect("hit", "two", *more)


def test_an_out_dir_that_no_map_covers_keeps_builds_apart(checkouts):
    """Its path is in the metadata."""
    for name in ("one", "two"):
        (checkouts.world.root / f"{name}-out").mkdir()
        (checkouts.world.root / f"{name}-out" / "g.rs").write_text("pub fn f() {}\n")
    for name in ("one", "two"):
        for verdict in ("miss", "hit"):
            checkouts.expect(verdict, name, out_dir="{root}/{name}-out")


@pytest.mark.parametrize("nested", [False, True])
def test_the_map_of_the_working_directory_covers_its_out_dir(make_world, nested):
    """Unless something in it is mapped by a map of its own."""
    world = make_world()
    world.write("src/lib.rs", INCLUDES)
    world.write("target/out/g.rs", "pub fn f() -> &'static str { file!() }\n")
    other = world.root / "q"
    shutil.copytree(world.p, other)
    for where, verdict in ((world.p, "miss"), (other, "miss" if nested else "hit")):
        maps = ("--remap-path-prefix", f"{where}=/src", *(("--remap-path-prefix", f"{world.p}/target=/made") if nested else ()))
        world.expect(verdict, *LIB, *world.out, *maps, "src/lib.rs", cwd=where, env={"OUT_DIR": f"{where}/target/out"})
