"""What cargo_check.py builds: published programs with their own lock files, and small projects around crates that are hard on a cache.

A published program is fetched as a dependency of an empty package, which downloads and verifies it, and copied from cargo's registry.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import tools


@dataclass(frozen=True, slots=True)
class Project:
    """published: a crate with a Cargo.lock; dependencies, files: a package of ours.  Neither: a directory of projects/."""

    published: str = ""
    dependencies: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def _manifest(name: str, dependencies: str, more: str = "") -> str:
    head = f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n'
    return f"{head}\n[dependencies]\n{dependencies}\n{more}\n[workspace]\n"


_TEMPLATES = {
    "build.rs": r"""
fn main() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // A day, so that two builds of one run agree.
    println!("cargo:rustc-env=BUILT_ON={}", now / 86400);
    println!("cargo:rustc-env=FLAVOUR={}", std::env::var("CHECK_FLAVOUR").unwrap_or("none".into()));
    println!("cargo:rerun-if-env-changed=CHECK_FLAVOUR");
    built::write_built_file().unwrap();
}
""",
    "src/main.rs": r"""
use askama::Template;
use rust_embed::RustEmbed;
#[derive(Template)] #[template(path = "hello.txt")] struct Hello<'a> { name: &'a str }
#[derive(RustEmbed)] #[folder = "assets/"] struct Assets;
static TREE: include_dir::Dir<'_> = include_dir::include_dir!("$CARGO_MANIFEST_DIR/tree");
mod built_info { include!(concat!(env!("OUT_DIR"), "/built.rs")); }
fn main() {
    println!("{}", Hello { name: "you" }.render().unwrap());
    for file in Assets::iter() { println!("{file} {}", Assets::get(&file).unwrap().data.len()); }
    for file in TREE.files() { println!("{} {:?}", file.path().display(), file.contents_utf8()); }
    println!("{} {} {}", env!("BUILT_ON"), env!("FLAVOUR"), built_info::PROFILE);
}
""",
    "templates/base.txt": "base {% block body %}{% endblock %}\n",
    "templates/hello.txt": '{% extends "base.txt" %}{% block body %}hello {{ name }}{% endblock %}\n',
    "assets/one.txt": "one\n",
    "assets/deep/two.txt": "two\n",
    "tree/three.txt": "three\n",
}

_PROBES_NEED = """\
anyhow = "1"
async-trait = "0.1"
crc32fast = "1"
num-bigint = "0.4"
rayon = "1"
rustversion = "1"
thiserror = "2"
wasm-bindgen = "0.2"
[build-dependencies]
autocfg = "1"
"""

_PROBES = {
    "build.rs": r"""
fn main() {
    let probe = autocfg::new();
    probe.emit_has_type("i128");
    probe.emit_has_path("std::num::Saturating");
    probe.emit_has_path("std::no::such::thing");
    probe.emit_expression_cfg("1u32.no_such_method()", "no_such");
    autocfg::rerun_path("build.rs");
}
""",
    "src/main.rs": r"""
use num_bigint::BigUint;
use rayon::prelude::*;
use thiserror::Error;
#[derive(Error, Debug)] enum Trouble { #[error("trouble {0}")] Number(u32) }
#[async_trait::async_trait] trait Asks { async fn ask(&self) -> u32; }
struct One;
#[async_trait::async_trait] impl Asks for One { async fn ask(&self) -> u32 { 1 } }
#[rustversion::since(1.60)] fn age() -> &'static str { "new" }
#[rustversion::before(1.60)] fn age() -> &'static str { "old" }
#[wasm_bindgen::prelude::wasm_bindgen] pub fn shown(x: u32) -> u32 { x + 1 }
fn main() -> anyhow::Result<()> {
    let product: BigUint = (1u32..50).into_par_iter().map(BigUint::from).reduce(|| BigUint::from(1u32), |a, b| a * b);
    println!("{product} {} {} {}", age(), shown(1), crc32fast::hash(b"x"));
    drop(One.ask());
    if std::env::args().len() > 5 { return Err(Trouble::Number(5).into()); }
    Ok(())
}
#[cfg(test)] mod tests { #[test] fn adds() { assert_eq!(super::shown(1), 2); } }
""",
}

_NATIVE = {
    "build.rs": r"""
fn main() {
    cxx_build::bridge("src/main.rs").file("src/add.cc").std("c++14").compile("adds");
    let made = bindgen::Builder::default().header("src/shape.h").generate().unwrap();
    made.write_to_file(std::path::Path::new(&std::env::var("OUT_DIR").unwrap()).join("shape.rs")).unwrap();
    println!("cargo:rerun-if-changed=src");
}
""",
    "src/add.h": "#pragma once\n#include <cstdint>\nstd::int32_t add(std::int32_t a, std::int32_t b);\n",
    "src/add.cc": '#include "native/src/add.h"\nstd::int32_t add(std::int32_t a, std::int32_t b) { return a + b; }\n',
    "src/shape.h": "struct shape { int corners; double size; };\n",
    "src/main.rs": r"""
#[global_allocator] static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[allow(non_camel_case_types)] mod shape { include!(concat!(env!("OUT_DIR"), "/shape.rs")); }
#[cxx::bridge] mod ffi { unsafe extern "C++" { include!("native/src/add.h"); fn add(a: i32, b: i32) -> i32; } }
fn main() { println!("{} {}", ffi::add(1, 2), shape::shape { corners: 4, size: 1.0 }.corners); }
""",
}

_RPC = {
    "build.rs": r"""
fn main() {
    // SAFETY: one thread.
    unsafe { std::env::set_var("PROTOC", protoc_bin_vendored::protoc_bin_path().unwrap()) };
    tonic_prost_build::compile_protos("hello.proto").unwrap();
}
""",
    "hello.proto": 'syntax = "proto3";\npackage hello;\nmessage Word { string text = 1; }\n'
    "service Hello { rpc Say (Word) returns (Word); }\n",
    "src/main.rs": 'pub mod hello { tonic::include_proto!("hello"); }\nfn main() { println!("{:?}", hello::Word { text: "x".into() }); }\n',
}

_PYTHON = {
    "Cargo.extra": '[lib]\ncrate-type = ["cdylib", "rlib"]\n',
    "src/lib.rs": r"""
use pyo3::prelude::*;
#[pyfunction] fn double(x: usize) -> usize { x * 2 }
#[pymodule] fn python(m: &Bound<'_, PyModule>) -> PyResult<()> { m.add_function(wrap_pyfunction!(double, m)?) }
""",
}

_SQLITE = {
    "src/main.rs": r"""
use diesel::prelude::*;
diesel::table! { words (id) { id -> Integer, text -> Text, } }
#[derive(Queryable, Selectable)] #[diesel(table_name = words)] struct Word { id: i32, text: String }
const MIGRATIONS: diesel_migrations::EmbeddedMigrations = diesel_migrations::embed_migrations!("migrations");
fn main() {
    use diesel_migrations::MigrationHarness;
    let mut db = SqliteConnection::establish(":memory:").unwrap();
    db.run_pending_migrations(MIGRATIONS).unwrap();
    let found: Vec<Word> = words::table.select(Word::as_select()).load(&mut db).unwrap();
    println!("{:?}", found.iter().map(|w| (w.id, &w.text)).collect::<Vec<_>>());
}
""",
    "migrations/2024-01-01-000000_words/up.sql": "CREATE TABLE words (id INTEGER PRIMARY KEY, text TEXT NOT NULL);\n"
    "INSERT INTO words VALUES (1, 'one');\n",
    "migrations/2024-01-01-000000_words/down.sql": "DROP TABLE words;\n",
}

# Their macros ask cargo where the workspace is, and git for the commit: what they take in whole is the environment.
_STARTERS_NEED = 'git-version = "0.3"\nnum_enum = "0.7"\n'

_STARTERS = {
    "src/main.rs": r"""
#[derive(num_enum::TryFromPrimitive, Debug)] #[repr(u8)] enum Level { Low = 1, High = 2 }
fn main() { println!("{:?} {}", Level::try_from(2u8), git_version::git_version!(fallback = "none")); }
""",
}

# For the browser: a macro that reads JavaScript, and two kinds of library.
_WASM = {
    "Cargo.extra": '[lib]\ncrate-type = ["cdylib", "rlib"]\n[profile.release]\nlto = true\npanic = "abort"\nstrip = true\n',
    "src/lib.rs": r"""
use wasm_bindgen::prelude::*;
#[wasm_bindgen(module = "/src/help.js")] extern "C" { fn help(x: u32) -> u32; }
#[wasm_bindgen] pub fn run(a: u32) -> u32 { web_sys::console::log_1(&"run".into()); help(a) }
""",
    "src/help.js": "export function help(x) { return x; }\n",
}

_MEMBER = '[package]\nname = "{}"\nversion = "0.1.0"\nedition = "2021"\n{}'

# A workspace: settings in .cargo, macros of its own that read a directory and the environment, code generated from a grammar and into
# OUT_DIR, and a library for C with a header by cbindgen and a C source.
_WORKSPACE = {
    "Cargo.toml": '[workspace]\nmembers = ["app", "capi", "grammar", "macros"]\nresolver = "2"\n'
    '[profile.release]\nlto = true\ncodegen-units = 1\npanic = "abort"\n',
    ".cargo/config.toml": '[build]\nrustflags = ["--cfg", "from_config"]\n'
    '[env]\nCHECK_DATA = { value = "data", relative = true }\nCHECK_WORD = "word"\n',
    "data/one.txt": "one\n",
    "app/Cargo.toml": _MEMBER.format(
        "app",
        '[dependencies]\ncapi = { path = "../capi" }\ngrammar = { path = "../grammar" }\nmacros = { path = "../macros" }\nphf = "0.11"\n'
        '[build-dependencies]\nphf_codegen = "0.11"\n',
    ),
    "app/build.rs": r"""
fn main() {
    let words = phf_codegen::Map::new().entry("if", "2").entry("loop", "1").build().to_string();
    let text = format!("static WORDS: phf::Map<&'static str, u32> = {words};\n");
    std::fs::write(format!("{}/words.rs", std::env::var("OUT_DIR").unwrap()), text).unwrap();
    println!("cargo:rustc-check-cfg=cfg(from_config)");
    println!("cargo:rerun-if-changed={}", std::env::var("CHECK_DATA").unwrap());
    println!("cargo:rerun-if-env-changed=CHECK_MORE");
}
""",
    "app/src/main.rs": r"""
include!(concat!(env!("OUT_DIR"), "/words.rs"));
fn main() {
    println!("{:?} {:?} {}", macros::files!(), macros::environment!(), cfg!(from_config));
    println!("{} {} {:?}", grammar::count("1,2,3"), capi::capi_less(3, 1), WORDS.get("if"));
}
""",
    "capi/Cargo.toml": _MEMBER.format(
        "capi",
        '[lib]\ncrate-type = ["cdylib", "staticlib", "rlib"]\n'
        '[build-dependencies]\ncbindgen = { version = "0.28", default-features = false }\ncc = "1"\n',
    ),
    "capi/build.rs": r"""
fn main() {
    let header = format!("{}/capi.h", std::env::var("OUT_DIR").unwrap());
    let made = cbindgen::Builder::new().with_crate(".").with_language(cbindgen::Language::C).generate().unwrap();
    made.write_to_file(header);
    cc::Build::new().file("src/less.c").compile("less");
    println!("cargo:rerun-if-changed=src");
}
""",
    "capi/src/less.c": "int less(int a, int b) { return a - b; }\n",
    "capi/src/lib.rs": r"""
extern "C" { fn less(a: i32, b: i32) -> i32; }
#[no_mangle] pub extern "C" fn capi_less(a: i32, b: i32) -> i32 { unsafe { less(a, b) } }
""",
    "grammar/Cargo.toml": _MEMBER.format("grammar", '[dependencies]\npest = "2"\npest_derive = "2"\n'),
    "grammar/src/list.pest": 'number = { ASCII_DIGIT+ }\nlist = { SOI ~ number ~ ("," ~ number)* ~ EOI }\n',
    "grammar/src/lib.rs": r"""
use pest::Parser;
#[derive(pest_derive::Parser)] #[grammar = "list.pest"] struct List;
pub fn count(text: &str) -> usize { List::parse(Rule::list, text).unwrap().next().unwrap().into_inner().count() }
""",
    "macros/Cargo.toml": _MEMBER.format("macros", "[lib]\nproc-macro = true\n"),
    "macros/src/lib.rs": r"""
use proc_macro::TokenStream;
#[proc_macro] pub fn files(_: TokenStream) -> TokenStream {
    let entries = std::fs::read_dir(std::env::var("CHECK_DATA").unwrap()).unwrap();
    let mut all: Vec<_> = entries.map(|e| std::fs::read_to_string(e.unwrap().path()).unwrap()).collect();
    all.sort();
    format!("{all:?}").parse().unwrap()
}
#[proc_macro] pub fn environment(_: TokenStream) -> TokenStream {
    let mut all: Vec<_> = std::env::vars().filter(|v| v.0.starts_with("CHECK_")).collect();
    all.sort();
    format!("{all:?}").parse().unwrap()
}
""",
}

PROJECTS = {
    "big170": Project(),
    "demo": Project(),
    # programs
    "fd-find": Project("fd-find"),  # jemalloc: configure and make in a build script
    "hyperfine": Project("hyperfine"),
    "just": Project("just"),
    "ripgrep": Project("ripgrep"),
    "tokei": Project("tokei"),  # a build script that renders templates
    # what is hard
    "native": Project(dependencies='cxx = "1"\nmimalloc = "0.1"\n[build-dependencies]\ncxx-build = "1"\nbindgen = "0.72"\n', files=_NATIVE),
    "openssl": Project(
        dependencies='openssl = { version = "0.10", features = ["vendored"] }\n',
        files={"src/main.rs": 'fn main() { println!("{}", openssl::version::version()); }\n'},
    ),
    "probes": Project(dependencies=_PROBES_NEED, files=_PROBES),
    "python": Project(dependencies='pyo3 = { version = "0.25", features = ["extension-module"] }\n', files=_PYTHON),
    "rpc": Project(
        dependencies='prost = "0.14"\ntonic = "0.14"\ntonic-prost = "0.14"\n[build-dependencies]\ntonic-prost-build = "0.14"\n'
        'protoc-bin-vendored = "3"\n',
        files=_RPC,
    ),
    "sqlite": Project(
        dependencies='diesel = { version = "2", features = ["sqlite"] }\ndiesel_migrations = "2"\n'
        'libsqlite3-sys = { version = "0.35", features = ["bundled"] }\n',
        files=_SQLITE,
    ),
    "starters": Project(dependencies=_STARTERS_NEED, files=_STARTERS),
    "templates": Project(
        dependencies='askama = "0.14"\ninclude_dir = "0.7"\nrust-embed = { version = "8", features = ["debug-embed"] }\n'
        '[build-dependencies]\nbuilt = "0.8"\n',
        files=_TEMPLATES,
    ),
    "wasm": Project(
        dependencies='wasm-bindgen = "0.2"\nweb-sys = { version = "0.3", features = ["console"] }\n', files=_WASM
    ),  # also with the verb of that name
    "workspace": Project(files=_WORKSPACE),
}


@dataclass(frozen=True, slots=True)
class Edit:
    """What a developer does between two builds.  files: path → its new text; None: removed; a number: only its time is set."""

    name: str
    files: Mapping[str, str | int | None] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


EDITS: dict[str, tuple[Edit, ...]] = {
    "native": (
        Edit("a C++ file of the build script", {"src/add.cc": _NATIVE["src/add.cc"].replace("a + b", "a - b")}),
        Edit("a header that bindgen reads", {"src/shape.h": "struct shape { double size; int corners; };\n"}),
        Edit("a flag for the C++ compiler", env={"CXXFLAGS": "-O1"}),
    ),
    "probes": (
        Edit("a feature", {"Cargo.toml": _manifest("probes", _PROBES_NEED.replace('"2"', '{ version = "2", default-features = false }'))}),
        Edit("flags", env={"RUSTFLAGS": "--cfg something"}),
        Edit("another toolchain", {"rust-toolchain.toml": '[toolchain]\nchannel = "nightly"\n'}),
    ),
    "starters": (
        Edit("another terminal", env={"SSH_TTY": "/dev/pts/7", "JOB_ID": "7"}),
        Edit(
            "a crate under another name",
            {
                "Cargo.toml": _manifest(
                    "starters", _STARTERS_NEED.replace('num_enum = "0.7"', 'numbers = { package = "num_enum", version = "0.7" }')
                ),
                "src/main.rs": _STARTERS["src/main.rs"].replace("num_enum::", "numbers::"),
            },
        ),
    ),
    "templates": (
        Edit("a template that another extends", {"templates/base.txt": "changed {% block body %}{% endblock %}\n"}),
        Edit("a new embedded file", {"assets/deep/new.txt": "new\n"}),
        Edit("an embedded file is gone", {"assets/one.txt": None}),
        Edit("an embedded file is another", {"assets/one.txt": "eno\n"}),
        Edit("an embedded file is touched", {"assets/one.txt": 1_600_000_000}),
        Edit("a new file in an included directory", {"tree/new.txt": "new\n"}),
        Edit("what a build script tells by cargo:rustc-env", env={"CHECK_FLAVOUR": "sweet"}),
        Edit("askama is configured", {"askama.toml": '[general]\ndirs = ["tree", "templates"]\n', "tree/hello.txt": "new {{ name }}\n"}),
    ),
    "workspace": (
        Edit("a file in a directory that a macro reads", {"data/two.txt": "two\n"}),
        Edit("a variable that a macro may meet", env={"CHECK_MORE": "more"}),
        Edit("a grammar", {"grammar/src/list.pest": 'number = { (ASCII_DIGIT | ",")+ }\nlist = { SOI ~ number ~ EOI }\n'}),
        Edit("a C file of the build script", {"capi/src/less.c": "int less(int a, int b) { return b - a; }\n"}),
    ),
}


def checkout(name: str, place: Path, env: Mapping[str, str]) -> None:
    """Its sources in a new directory `place`, its dependencies fetched.  Raises tools.Missing."""
    shutil.rmtree(place, ignore_errors=True)
    project = PROJECTS.get(name)
    if project is None:
        shutil.copytree(name, place, ignore=shutil.ignore_patterns("target"), symlinks=True)
    elif project.published:
        shutil.copytree(_published(project.published, place.with_name(f"{place.name}-fetched"), env), place)
    elif project.files:
        _write(place, name, project)
    else:
        source = tools.ROOT / "demo" if name == "demo" else tools.PROJECTS / name
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("target"))
    # Of a package that was published, cargo's lock file knows; of others it is made here.
    tools.run(["cargo", "fetch"], cwd=place, env=env, timeout_s=1800)


def _write(place: Path, name: str, project: Project) -> None:
    manifest = _manifest(name, project.dependencies, project.files.get("Cargo.extra", ""))
    for path, text in {"Cargo.toml": manifest, **project.files}.items():
        if path != "Cargo.extra":
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text)


def _published(crate: str, empty: Path, env: Mapping[str, str]) -> Path:
    shutil.rmtree(empty, ignore_errors=True)
    _write(empty, "fetches", Project(dependencies=f'{crate} = "*"\n', files={"src/lib.rs": ""}))
    tools.run(["cargo", "fetch"], cwd=empty, env=env, timeout_s=1800)
    sources = sorted(Path(env["CARGO_HOME"], "registry", "src").glob(f"*/{crate}-[0-9]*"))
    if not sources:
        raise tools.Missing(f"cargo brought no {crate}")
    shutil.rmtree(empty)
    return sources[-1]
