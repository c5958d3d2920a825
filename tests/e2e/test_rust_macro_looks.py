"""What a proc-macro sees of files that it does not read: kinds, sizes, times, and what a directory says of its names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from rust_macros import NO_MACRO_READS, point, using

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("macro", ["canonical", "target"])
def test_where_a_link_points_is_a_condition(world, macros, macro):
    """Two links to files of the same content are two paths."""
    world.needs_observation(NO_MACRO_READS)
    world.write("one", "same\n")
    world.write("two", "same\n")
    link = world.p / "q"
    link.symlink_to("one")
    world.changes(lambda: point(link, "two"), lambda: point(link, "one"), *using(world, macros, f'm::{macro}!("q")'))


def test_the_size_of_a_file_that_nobody_opened_is_a_condition(world, macros):
    """It was looked at, not read; that it is still there is not enough."""
    world.needs_observation(NO_MACRO_READS)
    path = world.write("asset", "one\n")

    def leave(text: str) -> None:
        path.write_text(text)
        os.utime(path, (1_600_000_000, 1_600_000_000))

    leave("one\n")
    world.changes(lambda: leave("three\n"), lambda: leave("one\n"), *using(world, macros, 'm::size!("asset")'))


@pytest.mark.parametrize("macro", ["m::modified", "m::modified_by_fstat", "o::modified"])
def test_when_a_file_was_changed_is_a_condition_where_a_macro_looked_at_it(world, macros, macro):
    """rust-embed makes a constant of it, which a server sends as Last-Modified; the file may be open by then."""
    world.needs_observation(NO_MACRO_READS)
    path = world.write("asset", "x")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    later, sooner = (lambda s=s: os.utime(path, (s, s)) for s in (1_700_000_000, 1_600_000_000))
    world.changes(later, sooner, *using(world, macros, f'{macro}!("asset")'))


def test_when_a_file_was_changed_decides_nothing_where_a_macro_only_asks_whether_it_is_there(world, macros):
    """A template in a fresh clone, or on a branch that was left and taken up again, has another time."""
    world.needs_observation(NO_MACRO_READS)
    path = world.write("asset", "one\n")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    args = using(world, macros, 'w::whether!("asset")')
    first = world.compile_twice(*args)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert world.expect("hit", *args) == first
    path.unlink()
    assert world.expect("miss", *args) != first
    path.mkdir()
    assert world.expect("miss", *args) != first


def test_when_a_file_was_created_is_a_condition_where_a_macro_asks(world, macros):
    """A file that was replaced may keep the old one's time of change: rsync, tar, a backup."""
    world.needs_observation(NO_MACRO_READS)
    path = world.write("asset", "one\n")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    args = using(world, macros, 'w::created!("asset")')
    first = world.compile_twice(*args)
    copy = world.write("copy", "one\n")
    os.utime(copy, (1_600_000_000, 1_600_000_000))
    copy.replace(path)
    assert world.expect("miss", *args) != first


@pytest.mark.parametrize("macro", ["w::accessed", "a::atime"])
def test_when_a_file_was_read_last_is_a_condition_where_a_macro_asks(world, macros, macro):
    """include_dir puts it into the program, if it is told to."""
    world.needs_observation(NO_MACRO_READS)
    path = world.write("asset", "one\n")

    def read(at: int) -> None:
        os.utime(path, (at, 1_600_000_000))

    read(1_600_000_000)
    world.changes(lambda: read(1_700_000_000), lambda: read(1_600_000_000), *using(world, macros, f'{macro}!("asset")'))


def test_what_may_be_done_with_a_file_is_a_condition_where_a_macro_asks(world, macros):
    """An archive that a macro makes has it."""
    world.needs_observation(NO_MACRO_READS)
    path = world.write("asset", "one\n")
    world.changes(lambda: path.chmod(0o600), lambda: path.chmod(0o644), *using(world, macros, 'm::permissions!("asset")'))


def test_when_a_link_was_made_is_a_condition_where_a_macro_asks(world, macros):
    """walkdir tells of a link, not of what it leads to."""
    world.needs_observation(NO_MACRO_READS)
    os.utime(world.write("asset", "one\n"), (1_600_000_000, 1_600_000_000))
    link = world.p / "link"
    link.symlink_to("asset")

    def touch(seconds: int) -> None:
        os.utime(link, (seconds, seconds), follow_symlinks=False)

    touch(1_600_000_000)
    args = using(world, macros, 'm::modified_of_link!("link")')
    world.changes(lambda: touch(1_700_000_000), lambda: touch(1_600_000_000), *args)


@pytest.mark.parametrize("strip", ["none", "symbols"])
def test_a_macro_that_sees_its_arguments_sees_every_directory(world, macros, strip):
    """It need not show in an output which one it was; `strip = true` in a profile holds for macros, too (toml-cfg)."""
    world.needs_observation("dep-info does not tell who asks for arguments")
    words = ("--crate-type=proc-macro", "--edition=2021", f"-Cstrip={strip}", str(macros / "w.rs"))
    subprocess.run([world.compiler, *words], cwd=world.p, env=world.env, check=True)
    args = using(world, world.p, "w::arguments!()")
    first = world.compile_twice(*args)
    other = world.root / "other"
    other.mkdir()
    world.outs.append(other)
    assert world.expect("miss", *(str(other) if word == str(world.o) else word for word in args)) != first


def test_a_file_that_a_macro_only_reads_may_have_been_touched(world, macros):
    """Else no clone would ever find what another one has stored."""
    world.needs_observation(NO_MACRO_READS)
    path = world.write("query.sql", "select 1\n")
    args = using(world, macros, 'm::content!("query.sql")')
    world.compile_twice(*args)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    world.expect("hit", *args)


def test_a_program_under_a_macro_sees_when_a_file_was_changed(world, macros):
    """git-version asks `git describe --dirty`, which takes a file for unchanged by its size and time, and reads it otherwise."""
    world.needs_observation(NO_MACRO_READS)
    path = world.write("tracked/file.txt", "one\n")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    git = ("git", "-C", str(path.parent), "-c", "user.name=x", "-c", "user.email=x@localhost")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message=first")):
        subprocess.run([*git, *words], env=world.env, check=True)

    def leave(text: str, seconds: int) -> None:
        path.write_text(text)
        os.utime(path, (seconds, seconds))

    args = using(world, macros, 's::says!("git|-C|tracked|--no-optional-locks|describe|--always|--dirty")')
    world.changes(lambda: leave("two\n", 1_700_000_000), lambda: leave("one\n", 1_600_000_000), *args)


def test_whether_a_name_is_a_file_or_a_directory_is_a_condition(world, macros):
    """Both exist."""
    world.needs_observation(NO_MACRO_READS)
    path = world.write("asset", "one\n")
    os.utime(path, (1_600_000_000, 1_600_000_000))

    def directory() -> None:
        path.unlink()
        path.mkdir()

    def file() -> None:
        path.rmdir()
        path.write_text("one\n")
        os.utime(path, (1_600_000_000, 1_600_000_000))

    world.changes(directory, file, *using(world, macros, 'm::kind!("asset")'))


@pytest.mark.parametrize("name", ["new", ".hidden"])
def test_a_new_file_in_a_directory_that_a_macro_lists_is_a_condition(world, macros, name):
    """rust-embed takes all that lies in a directory."""
    world.needs_observation(NO_MACRO_READS)
    world.write("assets/a", "a\n")
    new = world.p / "assets" / name
    world.changes(lambda: new.write_text("b\n"), new.unlink, *using(world, macros, 'm::names!("assets")'))


@pytest.mark.parametrize("into", ["directory", "link"])
def test_what_kind_each_name_of_a_listed_directory_is_of_is_a_condition(world, macros, into):
    """The directory says so: nobody looks at the names themselves."""
    world.needs_observation(NO_MACRO_READS)
    world.write("assets/b", "b\n")
    path = world.write("assets/a", "a\n")

    def another() -> None:
        path.unlink()
        path.mkdir() if into == "directory" else path.symlink_to("b")

    def file() -> None:
        path.rmdir() if into == "directory" else path.unlink()
        path.write_text("a\n")

    world.changes(another, file, *using(world, macros, 'm::kinds!("assets")'))


def test_a_new_file_in_a_listed_directory_that_is_also_a_search_path_is_a_condition(world, macros):
    """A build script may name OUT_DIR as -L native, and include_dir! the same OUT_DIR."""
    world.needs_observation(NO_MACRO_READS)
    world.write("assets/a", "a\n")
    new = world.p / "assets/b"
    args = using(world, macros, 'm::names!("assets")', "-L", f"native={world.p}/assets")
    world.changes(lambda: new.write_text("b\n"), new.unlink, *args)


@pytest.mark.parametrize("expression", ['w::whether!("/proc/no")', 'm::kind!("/dev/no")', 'm::names!("/proc/sys")'])
def test_a_macro_that_asks_which_names_the_kernel_has_is_not_stored(world, macros, expression):
    """A device, a process or a network card comes and goes, and no time of a directory tells."""
    world.needs_observation(NO_MACRO_READS)
    world.not_stored("read a special file", *using(world, macros, expression))
