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


def manifest(name: str, dependencies: str, more: str = "") -> str:
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

# Parsers that a build script and a macro make, and tests that start cargo: trybuild compiles each of its files as a crate of its own.
_GRAMMARS_NEED = """\
lalrpop-util = { version = "0.22", features = ["lexer"] }
logos = "0.15"
maud = "0.27"
[build-dependencies]
lalrpop = "0.22"
[dev-dependencies]
criterion = { version = "0.5", default-features = false }
trybuild = "1"
[[bench]]
name = "sums"
harness = false
"""

_GRAMMARS = {
    "build.rs": "fn main() { lalrpop::Configuration::new().use_cargo_dir_conventions().log_quiet().process().unwrap(); }\n",
    "src/sum.lalrpop": """\
grammar;
pub Sum: i32 = { <l:Sum> "+" <r:Number> => l + r, Number };
Number: i32 = <s:r"[0-9]+"> => s.parse().unwrap();
""",
    "src/lib.rs": r"""
use logos::Logos;
lalrpop_util::lalrpop_mod!(pub sum);
#[derive(Logos, Debug, PartialEq)] #[logos(skip " +")] pub enum Word { #[regex("[a-z]+")] Text, #[token("!")] Cry }
pub fn words(text: &str) -> usize { Word::lexer(text).count() }
pub fn page(name: &str) -> String { maud::html! { p { "hello " (name) } }.into_string() }
/// ```
/// assert_eq!(grammars::add("1+2"), 3);
/// ```
pub fn add(text: &str) -> i32 { sum::SumParser::new().parse(text).unwrap() }
#[macro_export] macro_rules! two { ($a:ident) => { [stringify!($a); 2] }; }
#[cfg(test)] mod tests { #[test] fn adds() { assert_eq!(super::add("1+2+3"), 6); } }
""",
    "benches/sums.rs": r"""
fn sums(c: &mut criterion::Criterion) { c.bench_function("sum", |b| b.iter(|| grammars::add("1+2"))); }
criterion::criterion_group!(benches, sums);
criterion::criterion_main!(benches);
""",
    "tests/ui.rs": r"""
#[test] fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/good.rs");
    cases.compile_fail("tests/ui/bad.rs");
}
""",
    "tests/ui/good.rs": "fn main() { assert_eq!(grammars::two!(a).len(), 2); }\n",
    "tests/ui/bad.rs": "fn main() { grammars::two!(1); }\n",
    "tests/ui/bad.stderr": """\
error: no rules expected `1`
 --> tests/ui/bad.rs:1:28
  |
1 | fn main() { grammars::two!(1); }
  |                            ^ no rules expected this token in macro call
  |
note: while trying to match meta-variable `$a:ident`
 --> src/lib.rs
  |
  | #[macro_export] macro_rules! two { ($a:ident) => { [stringify!($a); 2] }; }
  |                                     ^^^^^^^^
""",
}

# What a build script says of git, rustc and the day.
_STAMPS = {
    "build.rs": r"""
fn main() {
    vergen::Emitter::default().add_instructions(&vergen::RustcBuilder::all_rustc().unwrap()).unwrap()
        .add_instructions(&vergen::CargoBuilder::all_cargo().unwrap()).unwrap().emit().unwrap();
}
""",
    "src/main.rs": r"""
const HELP: &str = include_str!("../help.txt");
const RAW: &[u8] = include_bytes!("../raw.bin");
fn main() { println!("{} {} {HELP} {}", env!("VERGEN_RUSTC_SEMVER"), option_env!("CHECK_WORD").unwrap_or("none"), RAW.len()); }
""",
    "help.txt": "help\n",
    "raw.bin": "raw\n",
}

_WEB = {
    "src/main.rs": r"""
use axum::{routing::get, Json, Router};
#[derive(serde::Serialize, serde::Deserialize, Default)] struct Word { text: String }
#[tokio::main] async fn main() {
    let app: Router = Router::new().route("/", get(|| async { Json(Word::default()) }));
    let app = app.layer(tower_http::trace::TraceLayer::new_for_http());
    if std::env::args().len() > 5 { axum::serve(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(), app).await.unwrap(); }
}
""",
}

_SECRETS = {
    "src/main.rs": r"""
fn main() {
    let a = ring::digest::digest(&ring::digest::SHA256, b"x");
    let b = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"x");
    println!("{}", a.as_ref() == b.as_ref());
}
""",
}

_ECS = {
    "src/main.rs": r"""
use bevy_ecs::prelude::*;
#[derive(Component, Debug)] struct Place(f32);
fn moves(mut all: Query<&mut Place>) { for mut p in &mut all { p.0 += 1.0; } }
fn main() {
    let mut world = World::new();
    world.spawn(Place(0.0));
    let mut schedule = Schedule::default();
    schedule.add_systems(moves);
    schedule.run(&mut world);
    println!("{}", ndarray::arr1(&[1.0, 2.0]).sum());
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
    "ecs": Project(dependencies='bevy_ecs = "0.16"\nndarray = "0.16"\n', files=_ECS),
    "grammars": Project(dependencies=_GRAMMARS_NEED, files=_GRAMMARS),
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
    "secrets": Project(dependencies='aws-lc-rs = "1"\nring = "0.17"\n', files=_SECRETS),
    "sqlite": Project(
        dependencies='diesel = { version = "2", features = ["sqlite"] }\ndiesel_migrations = "2"\n'
        'libsqlite3-sys = { version = "0.35", features = ["bundled"] }\n',
        files=_SQLITE,
    ),
    "stamps": Project(dependencies='[build-dependencies]\nvergen = { version = "9", features = ["cargo", "rustc"] }\n', files=_STAMPS),
    "starters": Project(dependencies=_STARTERS_NEED, files=_STARTERS),
    "templates": Project(
        dependencies='askama = "0.14"\ninclude_dir = "0.7"\nrust-embed = { version = "8", features = ["debug-embed"] }\n'
        '[build-dependencies]\nbuilt = "0.8"\n',
        files=_TEMPLATES,
    ),
    "wasm": Project(
        dependencies='wasm-bindgen = "0.2"\nweb-sys = { version = "0.3", features = ["console"] }\n', files=_WASM
    ),  # also with the verb of that name
    "web": Project(
        dependencies='axum = "0.8"\nserde = { version = "1", features = ["derive"] }\ntokio = { version = "1", features = ["full"] }\n'
        'tower-http = { version = "0.6", features = ["trace"] }\n',
        files=_WEB,
    ),
    "workspace": Project(files=_WORKSPACE),
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
    top = manifest(name, project.dependencies, project.files.get("Cargo.extra", ""))
    for path, text in {"Cargo.toml": top, **project.files}.items():
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
