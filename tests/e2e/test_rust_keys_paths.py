"""Where things are: cwd, output directories, prefix maps; what is cached must be right wherever it is brought back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BASE = ("--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata,link", "--edition=2021")
JSON = ("--error-format=json", "--json=diagnostic-rendered-ansi,artifacts,future-incompat")

WARNS = "pub fn f() -> u32 { let unused = 1; 2 }\n"


def lib(*more: str) -> tuple[str, ...]:
    return (*BASE, *more, "src/lib.rs")


def test_two_output_directories_share_an_entry_and_each_gets_its_own_names(world):
    """A clean checkout's target directory is another; depfile and cargo's notices must name this one."""
    world.write("src/lib.rs", WARNS)
    other = world.root / "elsewhere" / "deps"
    world.outs.append(other)
    world.expect("miss", *lib("--out-dir", str(world.o), *JSON))
    done = world.expect("hit", *lib("--out-dir", str(other), *JSON))
    assert str(other).encode() in done.file("x.d")
    notices = [json.loads(line) for line in done.stderr.splitlines()]
    assert str(other / "libx.rmeta") in [n.get("artifact") for n in notices]


STRANGE = ["with space", 'quo"te', "apos'trophe", "ünïcödé", "colon:colon", "dollar$out", "back\\slash", "percent%41", "hash#", "a=b"]


def test_any_name_of_an_output_directory_is_written_as_rustc_writes_it(world):
    """Quotes are escaped in JSON, spaces in one half of a depfile; a name with nothing to escape looks the same everywhere."""
    plain = world.root / "plain"
    for name in STRANGE:
        strange = world.root / name
        world.outs[:] = [strange, plain]
        for one, other in ((plain, strange), (strange, plain)):
            world.write("src/lib.rs", WARNS + f"// {name} after {one.name}\n")
            world.expect("miss", *lib("--out-dir", str(one), *JSON))
            world.expect("hit", *lib("--out-dir", str(other), *JSON))


def test_a_newline_in_an_output_directory_is_no_ones_undoing(make_world):
    """A depfile cannot tell it from the end of a rule: whatever comes back, it is what rustc writes."""
    world = make_world()
    world.write("src/lib.rs", WARNS)
    strange, plain = world.root / "new\nline", world.root / "plain"
    world.outs += [strange, plain]
    for out in (strange, plain, strange, plain):
        args = lib("--out-dir", str(out), *JSON)
        assert world.cached(*args) == world.uncached(*args)
        world.note_server()
        world.counts()


def test_an_output_directory_behind_a_link_is_cached(make_world):
    """People put `target` on another disk."""
    world = make_world()
    world.write("src/lib.rs", WARNS)
    (world.root / "disk").mkdir()
    (world.p / "target").symlink_to(world.root / "disk")
    world.outs.append(world.root / "disk" / "deps")
    world.compile_twice(*lib("--out-dir", f"{world.p}/target/deps", *JSON))


SPELLINGS = [".", "./o", "o/", "o//", "./o/.", "../o", "{p}/o", "{p}/./o", "{p}//o", "{p}/../p/o", None]


@pytest.mark.parametrize(("first", "spelling"), [("{root}/first", s) for s in SPELLINGS] + [("relative", "o"), ("relative", ".")])
def test_every_spelling_of_an_output_directory_is_answered_in_that_spelling(make_world, first, spelling):
    """rustc writes the directory into depfile and notices as it was spelled."""
    world = make_world()
    (world.p / "o").mkdir()
    world.write("src/lib.rs", WARNS)
    world.outs += [world.root / "first", world.p / "relative", world.p / "o"]

    def at(text: str | None) -> tuple[str, ...]:
        return () if text is None else ("--out-dir", text.format(p=world.p, root=world.root))

    def both_ways() -> str:
        """Whether it hits is one question; that it is right is what counts."""
        before = world.counts()
        for stray in (*world.p.glob("*x.*"), *world.root.glob("*x.*")):
            stray.unlink()
        args = lib(*at(spelling), *JSON)
        verdict = ""
        results = []
        for compile in (world.cached, world.uncached):
            done = compile(*args)
            strays = {p: p.read_bytes() for p in (*world.p.glob("*x.*"), *world.root.glob("*x.*"))}
            results.append((done, strays))
            for stray in strays:
                stray.unlink()
            verdict = verdict or world.verdict_since(before)
        assert results[0] == results[1]
        return verdict

    world.expect("miss", *lib(*at(first), *JSON))
    both_ways()
    assert both_ways() == "hit"


def test_an_output_directory_behind_a_link_and_dots_is_where_the_kernel_finds_it(world):
    """`link/../o` is beside the link's target."""
    world.write("src/lib.rs", "pub fn f() -> u32 { 1 }\n")
    real = world.root / "far" / "o"
    decoy = world.p / "o"
    (world.root / "far" / "away").mkdir(parents=True)
    (world.p / "link").symlink_to(world.root / "far" / "away")
    world.outs += [real, decoy]
    args = lib("--out-dir", "link/../o")
    # What lies in the decoy is from another compile: it must never be taken for this one's output.
    world.expect("miss", *lib("--out-dir", "o", "--cfg", "decoy"))
    first = world.expect("miss", *args)
    world.write("src/lib.rs", "pub fn f() -> u32 { 2 }\n")
    assert world.expect("miss", *args) != first
    world.write("src/lib.rs", "pub fn f() -> u32 { 1 }\n")
    assert world.expect("hit", *args) == first


def test_outputs_of_an_earlier_compile_are_not_taken_for_this_ones(make_world):
    """The fallback knows outputs by name; in a decoy directory lie some of that name."""
    world = make_world("fallback")
    world.write("src/lib.rs", "pub fn f() -> u32 { 1 }\n")
    real = world.root / "far" / "o"
    real.mkdir(parents=True)
    (world.root / "far" / "away").mkdir()
    (world.p / "link").symlink_to(world.root / "far" / "away")
    (world.p / "o").mkdir()
    decoy = world.run([world.compiler, *lib("--out-dir", "o", "--cfg", "decoy")], None, {})
    assert decoy.returncode == 0
    world.outs.append(real)
    world.expect("miss", *lib("--out-dir", "link/../o"))
    world.outs.append(world.p / "o")
    for _ in range(2):
        done = world.cached(*lib("--out-dir", "link/../o"))
        assert done.files == world.uncached(*lib("--out-dir", "link/../o")).files
        world.note_server()


def test_a_short_output_directory_is_not_replaced_in_the_compilers_words(make_world):
    """`--out-dir unused` and a warning about a variable `unused`: the word in the warning is no path."""
    world = make_world()
    world.write("src/lib.rs", WARNS)
    world.outs += [world.p / "unused", world.p / "other"]
    world.expect("miss", *lib("--out-dir", "unused"))
    for name in ("other", "unused"):
        cached = world.cached(*lib("--out-dir", name))
        assert cached == world.uncached(*lib("--out-dir", name))


def test_an_output_directory_named_like_the_sources_is_not_replaced_in_the_depfile(make_world):
    """`--out-dir src`: in the depfile src/lib.rs is a source, src/libx.rlib an output."""
    world = make_world()
    world.write("src/lib.rs", "pub fn f() {}\n")
    world.outs.append(world.p / "other")

    def compile(by, name: str):
        for stray in world.p.glob("src/*x.*"):
            stray.unlink()
        done = by(*lib("--out-dir", name))
        return done, {p.name: p.read_bytes() for p in world.p.glob("src/*x.*")}

    assert compile(world.cached, "src") == compile(world.uncached, "src")
    world.note_server()
    world.counts()
    for name in ("other", "src", "other"):
        assert compile(world.cached, name) == compile(world.uncached, name)
        world.counts()


def test_an_output_directory_in_the_compilers_words_is_right_or_a_miss(world):
    """A search path may be the directory that a warning is about."""
    generated = world.root / "generated"
    generated.mkdir()
    (generated / "g.rs").write_text(WARNS)
    world.write("src/lib.rs", 'include!(concat!(env!("OUT_DIR"), "/g.rs"));\n')
    env = {"OUT_DIR": str(generated)}
    search = world.root / "other"
    search.mkdir()
    one = lib(*world.out, "-L", f"native={generated}")
    two = lib(*world.out, "-L", f"native={search}")
    if not world.observed:
        world.expect("pass", *one, env=env)
        return
    world.compile_twice(*one, env=env)
    world.expect("miss", *two, env=env)
    world.expect("hit", *one, env=env)


def test_two_working_directories_have_results_of_their_own(world):
    """rustc writes its cwd into metadata and debug info."""
    world.write("src/lib.rs", "pub fn f() {}\n")
    other = world.root / "q"
    shutil.copytree(world.p, other)
    world.compile_twice(*lib(*world.out, "-g"))
    world.expect("miss", *lib(*world.out, "-g"), cwd=other)
    world.expect("hit", *lib(*world.out, "-g"), cwd=other)
    world.expect("hit", *lib(*world.out, "-g"))


@pytest.mark.parametrize("debug", ["-Cdebuginfo=0", "-Cdebuginfo=2"])
def test_two_checkouts_under_prefix_maps_share_an_entry(world, debug):
    """That is what --remap-path-prefix is for."""
    world.write("src/lib.rs", "pub mod a;\n" + WARNS)
    world.write("src/a.rs", 'pub fn g() { panic!("here") }\n')
    other = world.root / "some" / "where" / "else"
    shutil.copytree(world.p, other)
    world.expect("miss", *lib(*world.out, debug, "--remap-path-prefix", f"{world.p}=/src"))
    done = world.expect("hit", *lib(*world.out, debug, "--remap-path-prefix", f"{other}=/src"), cwd=other)
    assert str(other).encode() not in done.file("libx.rlib")
    # Each with its own files: an edit in one checkout is none in the other.
    (other / "src/a.rs").write_text("pub fn g() {}\n")
    world.expect("miss", *lib(*world.out, debug, "--remap-path-prefix", f"{other}=/src"), cwd=other)
    world.expect("hit", *lib(*world.out, debug, "--remap-path-prefix", f"{world.p}=/src"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["{p}=/a"], ["{q}=/b"]),
        (["{root}=/src"], ["{root}=/src"]),  # the directory's own name is left: /src/p and /src/q
        (["{root}/=/src"], ["{q}=/src"]),
        (["{p}=/src", "/=/all"], ["{q}=/src", "/=/all"]),  # the last that matches counts
        (["{p}=/src", "{root}=/all"], ["{q}=/src", "{root}=/all"]),
        (["{p}=/src"], ["{p}=/src"]),
        (["{p}/=/src"], ["{q}=/src"]),
    ],
)
def test_prefix_maps_mean_to_the_cache_what_they_mean_to_rustc(world, one, other):
    """Whatever hits, it hits with rustc's own bytes."""
    world.write("src/lib.rs", "pub fn f() { panic!() }\n")
    q = world.root / "q"
    shutil.copytree(world.p, q)

    def args(maps: list[str]) -> tuple[str, ...]:
        flags = [word for m in maps for word in ("--remap-path-prefix", m.format(p=world.p, q=q, root=world.root))]
        return lib(*world.out, "-g", *flags)

    for _ in range(2):
        for maps, where in ((one, world.p), (other, q)):
            cached = world.cached(*args(maps), cwd=where)
            uncached = world.uncached(*args(maps), cwd=where)
            assert {n: c for n, (_, c) in cached.files.items()} == {n: c for n, (_, c) in uncached.files.items()}
            world.note_server()
            world.counts()


@pytest.mark.parametrize(
    ("text", "emit"),
    [
        ('pub const S: &str = include_str!("{p}/a.txt");\n', "metadata,link"),
        ('#[path = "{p}/a.txt"] pub mod m;\n', "metadata,link"),
        ('pub const S: &str = m::content!("{p}/a.txt");\n', "dep-info,metadata,link"),  # which names what rustc itself opened
    ],
)
def test_a_source_that_spells_a_checkout_out_means_that_checkout(make_world, macros, text, emit):
    """The copy of the source in another checkout reads the same file, not its own."""
    world = make_world()
    world.write("a.txt", "pub fn g() -> u32 { 1 }\n")
    world.write("src/lib.rs", text.format(p=world.p))
    other = world.root / "q"
    shutil.copytree(world.p, other)

    def args(where: Path) -> tuple[str, ...]:
        words = ("--crate-name", "x", "--crate-type", "lib", f"--emit={emit}", "--edition=2021", *world.out)
        return (*words, "--extern", f"m={macros}/libm.so", "--remap-path-prefix", f"{where}=/src", "src/lib.rs")

    world.compile_twice(*args(world.p))
    world.write("a.txt", "pub fn g() -> u32 { 2 }\n")
    world.expect("miss", *args(other), cwd=other)


@pytest.fixture
def registry(make_world):
    """(world, how to compile a crate of the registry for a checkout with its own target directory, whose map is in RUSTFLAGS)."""
    world = make_world()
    world.write("src/lib.rs", 'include!("generated.rs");\npub fn f() { panic!() }\n')
    world.write("src/generated.rs", 'pub const DIR: Option<&str> = option_env!("DIR");\n')
    for name in ("one", "two"):
        (world.root / name / "target").mkdir(parents=True)

    def words(name: str, *more: str) -> tuple[str, ...]:
        out = world.root / name / "target"
        world.outs[:] = [out]
        return lib("--out-dir", str(out), "-g", "--remap-path-prefix", f"{world.root / name}=/src", "-L", f"dependency={out}", *more)

    return world, words


def test_the_map_of_a_checkout_does_not_keep_crates_of_the_registry_apart(registry):
    """RUSTFLAGS go to all crates, and those of the registry have nothing in the checkout."""
    world, words = registry
    world.expect("miss", *words("one"))
    world.expect("hit", *words("two"))


@pytest.mark.parametrize("how", ["another map", "a variable", "a nested map", "a library from elsewhere"])
def test_the_map_of_a_checkout_counts_where_it_may_show(registry, how):
    """What is mapped to something else, or names the directory, or may be a path of another crate."""
    world, words = registry
    (world.root / "elsewhere").mkdir()
    more = {
        "a nested map": ("--remap-path-prefix", f"{world.root}/one/target/debug=/debug"),
        "a library from elsewhere": ("-L", f"dependency={world.root}/elsewhere"),
    }.get(how, ())
    for name in ("one", "two"):
        args = list(words(name, *more))
        if how == "another map":
            args = [word.replace("=/src", f"=/{name}") for word in args]
        env = {"DIR": f"{world.root}/{name}/x"} if how == "a variable" else {}
        world.expect("miss", *args, env=env)
        world.expect("hit", *args, env=env)


def test_a_scope_that_leaves_debug_info_unmapped_keeps_checkouts_apart(make_world):
    """--remap-path-scope=diagnostics maps what is printed and not what is written."""
    world = make_world()
    world.write("src/lib.rs", "pub fn f() { panic!() }\n")
    q = world.root / "q"
    shutil.copytree(world.p, q)
    for where in (world.p, q):
        args = lib(*world.out, "-g", "--remap-path-prefix", f"{where}=/src", "--remap-path-scope=diagnostics")
        cached = world.cached(*args, cwd=where)
        uncached = world.uncached(*args, cwd=where)
        assert (cached.status, cached.stderr, cached.files) == (uncached.status, uncached.stderr, uncached.files)
        world.note_server()
        world.counts()


def test_another_out_dir_variable_misses(world):
    """A crate that includes generated code names its directory, in panic locations and metadata."""
    for name in ("one", "two"):
        (world.root / name).mkdir()
        (world.root / name / "g.rs").write_text("pub fn f() { panic!() }\n")
    world.write("src/lib.rs", 'include!(concat!(env!("OUT_DIR"), "/g.rs"));\n')
    world.changes_env("OUT_DIR", str(world.root / "one"), str(world.root / "two"), *lib(*world.out))


def test_an_output_directory_that_was_deleted_is_what_it_is_to_the_compiler(world):
    """rustc makes it for some outputs and complains for others; what a hit cannot write, the compiler says better."""
    world.write("src/lib.rs", "pub fn f() {}\n")
    deep = world.root / "a" / "b"
    args = lib("--out-dir", str(deep))
    world.outs.append(deep)
    world.compile_twice(*args)
    found = []
    for command in ([str(world.client), world.compiler], [world.compiler]):
        shutil.rmtree(world.root / "a", ignore_errors=True)
        ran = world.run([*command, *args], None, {})
        found.append((ran.returncode, ran.stderr, deep.exists()))
    assert found[0] == found[1]


def test_an_output_directory_that_cannot_be_written_is_the_compilers_error(world):
    """Its own words, by running it."""
    world.write("src/lib.rs", "pub fn f() {}\n")
    world.compile_twice(*lib(*world.out))
    shutil.rmtree(world.o)
    world.o.write_text("a file where the directory was")
    args = lib(*world.out)
    cached = world.run([str(world.client), world.compiler, *args], None, {})
    uncached = world.run([world.compiler, *args], None, {})
    assert cached.returncode == uncached.returncode != 0
    assert cached.stderr == uncached.stderr
    world.o.unlink()
    world.o.mkdir()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o000, 0o027])
def test_files_have_the_modes_that_this_callers_umask_gives(world, umask):
    """A shared target directory depends on it.  `expect` compares modes."""
    world.write("src/lib.rs", "pub fn f() {}\n")
    world.expect("miss", *lib(*world.out))
    world.expect("hit", *lib(*world.out), umask=umask)


@pytest.mark.parametrize(
    ("output", "files", "other"),
    [
        (("-o", "m"), {"x.rs": "mod macros;", "macros.rs": ""}, "macros/mod.rs"),
        (("-o", "m.x"), {"x.rs": "mod m;", "m/mod.rs": ""}, "m.rs"),
        (("--emit=metadata=m,dep-info",), {"x.rs": "mod macros;", "macros.rs": ""}, "macros/mod.rs"),
        (("--crate-name=m", "--emit=metadata", "--out-dir=."), {"x.rs": "mod m;", "m/mod.rs": ""}, "m.rs"),
        (
            ("--crate-name=m", "--emit=metadata", "--out-dir=."),
            {"x.rs": '#[path = "libm.d/y.rs"] mod y;', "libm.d/y.rs": "mod z;", "libm.d/z.rs": ""},
            "libm.d/z/mod.rs",
        ),
    ],
)
def test_a_source_whose_name_begins_like_an_output_is_an_input(world, output, files, other):
    """What lies where a unit's outputs go decides nothing; a source is none of them, whatever it is called."""
    world.needs_observation("outputs that only observation knows")
    for name, text in files.items():
        world.write(name, text)
    args = ("--crate-type=lib", *output, "x.rs")
    world.compile_twice(*args)
    world.write(other, "")
    assert b"E0761" in world.expect("fail", *args).stderr


def test_outputs_replace_what_lies_there_and_are_new(world):
    """A hit's files are as young as a compile's: cargo would build again otherwise."""
    world.write("src/lib.rs", "pub fn f() {}\n")
    world.compile_twice(*lib(*world.out))
    rlib = world.o / "libx.rlib"
    rlib.unlink(missing_ok=True)
    hard = world.root / "uplifted.rlib"
    rlib.write_text("an older one")
    os.link(rlib, hard)
    source = Path(world.p / "src/lib.rs")
    ran = world.run([str(world.client), world.compiler, *lib(*world.out)], None, {})
    assert ran.returncode == 0
    assert hard.read_text() == "an older one"
    assert rlib.stat().st_nlink == 1
    assert rlib.stat().st_mtime_ns > source.stat().st_mtime_ns


def test_it_does_not_matter_where_we_are_installed(make_world, tmp_path):
    """In another virtual environment, or where a space has the library preloaded by a link that goes with its server."""
    world = make_world()
    world.write("src/lib.rs", "pub fn f() {}\n")
    args = ("--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata,link", *world.out, "src/lib.rs")
    built = world.client
    for place in (tmp_path / "first", tmp_path / "a place", tmp_path / "a place"):
        shutil.copytree(built.parent, place, dirs_exist_ok=True)
        world.client = place / built.name
        assert world.cached(*args).status == 0
        world.note_server()
        assert world.counts()["compilations"] == 1
        world.stop()
        shutil.rmtree(place)


def test_a_file_that_a_macro_opened_for_writing_and_left_as_it_was_is_an_input(world, macros):
    """sqlx opens a database, cargo metadata takes a lock; a hit need not write what was not written."""
    world.needs_observation("dep-info names nothing that a macro opens")
    world.write("words.db", "one\n")
    world.write("src/lib.rs", 'pub const S: &str = m::locked_content!("words.db");\n')
    world.changes_text("words.db", "two\n", *lib(*world.out, "--extern", f"m={macros}/libm.so"))


@pytest.mark.parametrize("call", ['append!("words.db")', 'locked_content!("new.db")', 'make_directory!("made/here")'])
def test_what_a_macro_did_write_or_make_prevents_storing(world, macros, call):
    """A hit would write nothing: the next macro would read another text, or look for the directory in vain."""
    world.needs_observation("dep-info names nothing that a macro opens")
    world.write("words.db", "one\n")
    world.write("src/lib.rs", f"pub const S: &str = m::{call};\n")
    args = lib(*world.out, "--extern", f"m={macros}/libm.so")
    world.cached(*args)
    world.note_server()
    assert world.reasons() == {"wrote outside its output directories": 1}
