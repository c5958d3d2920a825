"""What a program file is, judged from real ones."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from sccache_py.elf import (
    ACCESSED,
    ARGUMENTS,
    CREATED,
    Image,
    exports_any,
    hides_text,
    links_in,
    may_walk,
    needed,
    read_image,
    takes_environment,
    tells_age,
    walk_shows,
)


def head(path: str | Path) -> Image:
    return image_of(Path(path).read_bytes())


def image_of(data: bytes) -> Image:
    return read_image(lambda length, offset: data[offset : offset + length])


def test_a_dynamic_program_names_its_interpreter():
    """It decides whether our library can be preloaded."""
    image = head("/bin/sh")
    assert image.elf_class in (32, 64)
    assert "ld" in image.interpreter
    assert image.script == ""


def test_an_interpreters_name_is_found_wherever_it_stands():
    """patchelf puts it behind all else: the program was taken for a static one, of which nobody asked what libraries it starts with."""
    segment = struct.pack("<IIQQQQQQ", 3, 4, 50_000, 0, 0, 6, 6, 1)
    header = b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack("<QQIHHH", 60_000, 0, 0, 64, 56, 1) + bytes(6)
    assert image_of((header.ljust(50_000, b"\0") + b"/l.so\0").ljust(60_000, b"\0") + segment) == Image(64, "/l.so", "")


def test_a_static_program_names_none(tmp_path):
    """ld.so never runs for it, so nothing is preloaded."""
    (tmp_path / "x.c").write_text("int main(void) { return 0; }\n")
    if subprocess.run(["cc", "-static", tmp_path / "x.c", "-o", tmp_path / "x"], capture_output=True, check=False).returncode:
        pytest.skip("no static C library")
    assert head(tmp_path / "x").interpreter == ""


@pytest.mark.parametrize(("text", "script"), [(b"#!/bin/sh -e\n", "/bin/sh"), (b"#! /usr/bin/env python\n", "/usr/bin/env"), (b"#!\n", "")])
def test_a_script_names_its_program(text, script):
    """Its bytes are not ELF; who runs it may be."""
    assert image_of(text) == Image(0, "", script)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(100), b"\x7fELF\x02\x01" + b"\xff" * 100, b"MZ" + bytes(100)])
def test_garbage_is_no_program_and_no_error(data):
    """A file that is being written may have any length."""
    assert image_of(data).interpreter == ""
    assert not takes_environment(data) or data[4:5] == b"\x02"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "takes"), [("1", False), ("std::env::vars().count()", True), ('std::env::var("A").is_ok() as usize', False)]
)
def test_a_macro_library_tells_whether_it_can_see_all_variables(tmp_path, body, takes):
    """It imports libc's `environ`, or it does not."""
    rustc = shutil.which("rustc")
    if rustc is None:
        pytest.skip("no rustc")
    code = "extern crate proc_macro;\n#[proc_macro] pub fn a(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n"
    (tmp_path / "m.rs").write_text(code + f'format!("{{}}", {body}).parse().unwrap() }}\n')
    subprocess.run([rustc, "--crate-type", "proc-macro", "m.rs"], cwd=tmp_path, check=True)
    with open(tmp_path / "libm.so", "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as library:
        assert takes_environment(library) == takes


@pytest.mark.slow
@pytest.mark.parametrize(("strip", "source", "shows"), [("debuginfo", "", True), ("symbols", "", False), ("none", "x.c", False)])
def test_a_macro_library_with_c_in_it_may_walk_the_environment_unseen(tmp_path, strip, source, shows):
    """Rust measures each entry of `environ` by strlen; C may compare them letter by letter."""
    rustc = shutil.which("rustc")
    if rustc is None:
        pytest.skip("no rustc")
    body = 'std::process::Command::new("x").output().is_ok()'
    words = []
    if source:
        (tmp_path / source).write_text("int walk(void) { return 0; }\n")
        subprocess.run(["cc", "-c", "-o", "x.o", source], cwd=tmp_path, check=True)
        body = '{ extern "C" { fn walk() -> i32; } unsafe { walk() } }'
        words = ["-Clink-arg=x.o"]
    code = "extern crate proc_macro;\n#[proc_macro] pub fn a(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n"
    (tmp_path / "m.rs").write_text(code + f'format!("{{}}", {body}).parse().unwrap() }}\n')
    subprocess.run([rustc, "--crate-type=proc-macro", f"-Cstrip={strip}", *words, "m.rs"], cwd=tmp_path, check=True)
    with open(tmp_path / "libm.so", "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as library:
        assert walk_shows(library) == shows


@pytest.mark.parametrize("name", ["environ", "__environ", "others"])
def test_a_library_says_what_it_needs_and_whether_it_may_walk_the_environment(tmp_path, name):
    """libpython does, behind a macro that is written in Python."""
    (tmp_path / "x.c").write_text(f"extern char **{name};\nint puts(const char *);\nint x(void) {{ return puts(*{name}); }}\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "libx.so", "x.c"], cwd=tmp_path, check=True)
    library = memoryview((tmp_path / "libx.so").read_bytes())
    assert may_walk(library) == (name != "others")
    assert any(name.startswith("libc.") for name in needed(library))


@pytest.mark.slow
@pytest.mark.parametrize("level", ["0", "3"])
@pytest.mark.parametrize(
    ("body", "strip", "tells"),
    [
        ('std::fs::read("A").unwrap().len()', "debuginfo", False),
        ('std::fs::read("A").unwrap().len()', "symbols", True),
        ('std::fs::File::open("A").unwrap().metadata().is_ok()', "debuginfo", True),
        ('{ extern "C" { fn statx(d: i32, p: *const u8, f: i32, m: u32, to: *mut u8) -> i32; }'
         " unsafe { statx(0, std::ptr::null(), 0, 0, std::ptr::null_mut()) } }", "debuginfo", True),
    ],
)  # fmt: skip
def test_a_macro_library_tells_whether_it_can_know_the_age_of_an_open_file(tmp_path, body, strip, tells, level):
    """std asks for an open file's size and age at once; only std::fs::File::metadata hands the age on."""
    rustc = shutil.which("rustc")
    if rustc is None:
        pytest.skip("no rustc")
    code = "extern crate proc_macro;\n#[proc_macro] pub fn a(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n"
    (tmp_path / "m.rs").write_text(code + f'format!("{{}}", {body}).parse().unwrap() }}\n')
    subprocess.run([rustc, "--crate-type=proc-macro", f"-Copt-level={level}", f"-Cstrip={strip}", "m.rs"], cwd=tmp_path, check=True)
    with open(tmp_path / "libm.so", "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as library:
        assert tells_age(library) == tells


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "function"),
    [
        ('std::fs::metadata("A").unwrap().created().is_ok()', CREATED),
        ('std::fs::metadata("A").unwrap().accessed().is_ok()', ACCESSED[0]),
        ("std::env::args().count()", ARGUMENTS[0]),
        ("std::env::args_os().count()", ARGUMENTS[1]),
    ],
)
def test_a_macro_library_tells_which_of_stds_functions_it_has(tmp_path, body, function):
    """That it may call them; without symbols nobody knows."""
    rustc = shutil.which("rustc")
    if rustc is None:
        pytest.skip("no rustc")
    code = "extern crate proc_macro;\n#[proc_macro] pub fn a(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n"
    told = {}
    for text, strip in ((body, "debuginfo"), (body, "symbols"), ("1", "debuginfo")):
        (tmp_path / "m.rs").write_text(code + f'format!("{{}}", {text}).parse().unwrap() }}\n')
        subprocess.run([rustc, "--crate-type=proc-macro", "-Copt-level=3", f"-Cstrip={strip}", "m.rs"], cwd=tmp_path, check=True)
        with open(tmp_path / "libm.so", "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as library:
            told[text, strip] = links_in(memoryview(library), function)
    assert told == {(body, "debuginfo"): True, (body, "symbols"): None, ("1", "debuginfo"): False}


def test_a_library_that_is_no_crate_does_not_count():
    """The linker reads libc.so, which has `environ`, for another purpose."""
    libc = next(iter(Path("/lib").glob("*-linux-gnu/libc.so.6")), None)
    if libc is None:
        pytest.skip("libc is elsewhere")
    assert not takes_environment(libc.read_bytes())


@pytest.mark.parametrize(
    ("options", "hidden"),
    [
        ("", False),
        ("-g", False),
        ("-gz", False),
        ("-g -gz", True),
        ("-g -gz=zlib-gnu", True),
        ("-g -gz -m32", True),
        ("-g -m32", False),
        ("-g -Wa,--compress-debug-sections", True),
        ("-flto", False),
    ],
)
def test_compressed_sections_hide_what_is_in_them(tmp_path, options, hidden):
    """A path in them is not found by a search, so they must be noticed, whichever option made them."""
    (tmp_path / "x.c").write_text("int f(int x) { return x + 1; }\n")
    subprocess.run(["gcc", *options.split(), "-c", "x.c"], cwd=tmp_path, check=True)
    data = (tmp_path / "x.o").read_bytes()
    assert hides_text(memoryview(data)) == hidden
    assert hides_text(memoryview(data[:-64]))  # what cannot be understood is not said to be plain


def test_what_is_no_elf_file_hides_nothing():
    """Depfiles, assembly, Rust's metadata."""
    assert not hides_text(memoryview(b""))
    assert not hides_text(memoryview(b"x.o: x.c\n" * 10))


def test_a_library_tells_what_it_defines_for_others(tmp_path):
    """What it only calls, or keeps to itself, is not among that."""
    (tmp_path / "x.c").write_text("#include <unistd.h>\nstatic int own(void) { return close(3); }\nint open(void) { return own(); }\n")
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "x.c", "-o", tmp_path / "x.so"], check=True)
    library = memoryview((tmp_path / "x.so").read_bytes())
    assert exports_any(library, frozenset((b"open",)))
    assert not exports_any(library, frozenset((b"close", b"own", b"openat")))
