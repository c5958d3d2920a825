"""The record of a process tree, read: records are made here as observe.c makes them (docs/protocol.md, section 4)."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from sccache_py.model import Observation, Reason
from sccache_py.observation import HEADER_BYTES, new_header, observe, plain, used_bytes

GONE = errno.ENOENT
ME, CHILD = 100, 101


class Tape:
    """A record in the making."""

    def __init__(self) -> None:
        self.body = b""
        self.lost = 0
        self.note("P", "/bin/rustc", "/bin/rustc")

    def note(self, kind: str, text1: str, text2: str = "", error: int = 0, pid: int = ME, done: int = 1) -> Tape:
        texts = os.fsencode(text1) + b"\0" + os.fsencode(text2) + b"\0"
        length = (12 + len(texts) + 7) // 8 * 8
        self.body += (struct.pack("<IBBHI", length, done, ord(kind), error, pid) + texts).ljust(length, b"\0")
        return self

    def bytes(self) -> bytes:
        size = 1 << 20
        header = struct.pack("<4sIQQI", b"SCOB", 1, size, HEADER_BYTES + len(self.body), self.lost).ljust(HEADER_BYTES, b"\0")
        return header + self.body

    def seen(self, **how) -> Observation:
        found = observe(self.bytes(), **how)
        assert isinstance(found, Observation), found
        return found


def test_reads_looks_and_questions_are_told_apart():
    """Each becomes another kind of condition."""
    tape = Tape().note("R", "/a").note("R", "/b", error=GONE).note("S", "/c").note("S", "/d", error=GONE)
    seen = tape.note("D", "/e").note("E", "PATH").note("E", "NO", error=GONE).seen()
    assert (seen.read, seen.present, seen.absent, seen.listed) == (["/a"], ["/c"], ["/b", "/d"], ["/e"])
    assert seen.asked == ["NO", "PATH"]


def test_what_could_not_be_read_but_is_there_is_present():
    """EACCES is not ENOENT."""
    seen = Tape().note("R", "/a", error=errno.EACCES).note("R", "/b/c", error=errno.ENOTDIR).seen()
    assert (seen.present, seen.absent) == (["/a"], ["/b/c"])


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/p/l", ["/p/d"]),
        ("/p/l/a", ["/p/d/a"]),
        ("/p/ll/a", ["/p/ll/a"]),
        ("/p/m/l2/a", ["/p/d/a"]),
        ("/p/moved/a", ["/p/d/a"]),
        ("/p/m/../a", ["/p/a"]),
        ("/p/m/..", ["/p"]),
        ("/p/m/n/../../a", ["/p/a"]),
        ("/p/m/..a", []),
        ("/p/m/l3", []),
        ("/p/gone", []),
        ("/p/round", []),
    ],
)
def test_what_lies_behind_the_trees_own_links_and_directories_is_not_its_own(path, read):
    """A temporary link to a file of the user's leads to an input."""
    tape = Tape().note("L", "/p/l", "d").note("K", "/p/m").note("K", "/p/m/n").note("L", "/p/m/l2", "../l").note("W", "/p/m/x")
    tape.note("L", "/p/m/l3", "x").note("L", "/p/before", "/p/d").note("M", "/p/before", "/p/moved")
    tape.note("L", "/p/gone", "/p/d").note("U", "/p/gone").note("L", "/p/round", "round")
    assert tape.note("R", path).seen().read == read


def test_directories_that_are_left_are_those_that_were_not_removed():
    """A temporary one goes with all that is in it; one may go by another name than it came."""
    tape = Tape().note("K", "/p/t").note("K", "/p/t/s").note("U", "/p/t").note("K", "/p/a").note("K", "/p/a/b").note("M", "/p/a", "/p/c")
    assert tape.note("K", "/p/d", error=errno.EEXIST).seen().directories == ["/p/c", "/p/c/b"]


def test_what_is_written_by_a_link_is_written_where_it_leads():
    """Not what is removed by its name."""
    seen = Tape().note("L", "/t/l", "/p/x").note("W", "/t/l").note("U", "/t/l").seen()
    assert seen.written == ["/p/x"]


def test_what_the_tree_wrote_first_is_no_input():
    """Temporary files have another name every time."""
    seen = Tape().note("W", "/t/x").note("R", "/t/x", pid=ME).seen()
    assert (seen.read, seen.written) == ([], ["/t/x"])


def test_what_the_tree_read_first_is_an_input_even_if_it_wrote_it_later():
    """An output that is also an input (a counter, a cache) makes the next compile another one."""
    seen = Tape().note("R", "/t/x").note("W", "/t/x").seen()
    assert (seen.read, seen.written) == (["/t/x"], ["/t/x"])


def test_opening_without_truncation_reads_what_was_there():
    """Appending keeps it."""
    assert Tape().note("B", "/t/x").seen().read == ["/t/x"]
    assert Tape().note("S", "/t/x", error=GONE).note("B", "/t/x").seen().read == []


def test_what_the_tree_made_where_nothing_was_is_told():
    """What it wrote over is not: that it was there decided nothing."""
    seen = Tape().note("S", "/t/x", error=GONE).note("W", "/t/x").note("W", "/t/y").note("S", "/t/z", error=GONE).seen()
    assert (seen.lacked, seen.absent) == (["/t/x"], ["/t/z"])


def test_what_is_written_without_truncation_may_show_what_was_there():
    """If it is left.  gcc's link-time optimiser opens its temporary files so, and renames one of touch's over them."""
    seen = Tape().note("b", "/t/x").note("R", "/t/x").note("M", "/t/x", "/t/y").note("W", "/t/z").note("b", "/t/z").seen()
    assert (seen.read, seen.shining) == ([], ["/t/x", "/t/y"])


def test_a_chain_of_renames_ends_at_the_output():
    """rustc: rmetaX/full.rmeta → libx.rmeta; ar: tmp.a → libx.rlib."""
    tape = Tape().note("K", "/o/tmp").note("W", "/o/tmp/a").note("M", "/o/tmp/a", "/o/tmp/b").note("M", "/o/tmp/b", "/o/libx.rlib")
    seen = tape.note("U", "/o/tmp").seen()
    assert seen.read == []
    assert "/o/libx.rlib" in seen.written
    assert seen.removed == []


def test_a_renamed_directory_takes_its_files_along():
    """Incremental compilation finishes its session so."""
    seen = Tape().note("K", "/o/w").note("W", "/o/w/a").note("M", "/o/w", "/o/done").note("R", "/o/done/a").seen()
    assert seen.read == []
    assert seen.written == ["/o/done/a"]


def test_what_was_there_before_and_is_renamed_away_is_an_input():
    """Its content is the output's."""
    assert Tape().note("M", "/in", "/o/x").seen().read == ["/in"]


def test_removing_what_was_there_before_is_remembered():
    """A hit would have to remove it too."""
    seen = Tape().note("U", "/o/old").note("W", "/o/new").note("U", "/o/new").seen()
    assert seen.removed == ["/o/old"]
    assert seen.written == []


def test_a_file_below_a_directory_that_the_tree_made_is_no_condition():
    """Looked for in vain in a directory of one's own."""
    seen = Tape().note("K", "/t/rustcAbc").note("S", "/t/rustcAbc/x", error=GONE).note("D", "/t/rustcAbc").seen()
    assert (seen.absent, seen.listed) == ([], [])


def test_a_directory_that_was_there_already_is_present():
    """mkdir said EEXIST."""
    assert Tape().note("K", "/o", error=errno.EEXIST).seen().present == ["/o"]


def test_paths_are_told_plainly_but_dots_that_may_mean_something_stay():
    """`..` behind a link is another directory."""
    assert plain("/a//b/./c/.") == "/a/b/c"
    assert plain("/a/../b") == "/a/../b"
    assert plain("/") == "/"
    assert plain("/a/") == "/a"


def test_what_was_made_through_a_link_and_removed_by_descriptor_is_one_thing():
    """remove_dir_all works with descriptors, and these are told by physical paths."""
    tape = Tape().note("K", "/p/link/tmp").note("W", "/p/link/tmp/a").note("U", "/disk/tmp/a").note("U", "/p/link/tmp")
    assert tape.seen(places=[("/disk", "/p/link")]).removed == []
    assert tape.seen().removed == ["/disk/tmp/a"]


def test_a_file_behind_the_output_directorys_link_that_the_tree_did_not_make_keeps_its_name():
    """It was named so by somebody; in another call the output directory is another."""
    assert Tape().note("R", "/disk/data").seen(places=[("/disk", "/p/link")]).read == ["/disk/data"]


# -- processes ------------------------------------------------------------------------------------------------------


def test_an_exec_that_shows_its_image_is_an_input():
    """Another program of that name is another result."""
    seen = Tape().note("X", "/usr/bin/cc").note("P", "/usr/bin/gcc-12", "/usr/bin/cc").seen()
    assert seen.read == ["/usr/bin/cc"]
    assert seen.images == ["/bin/rustc", "/usr/bin/gcc-12"]


def test_an_exec_that_failed_was_looked_for_in_vain():
    """execvp tries every directory of PATH."""
    seen = Tape().note("X", "/a/cc").note("x", "/a/cc", error=GONE).note("X", "/b/cc").note("P", "/b/cc", "/b/cc").seen()
    assert (seen.absent, seen.read) == (["/a/cc"], ["/b/cc"])


def test_an_exec_that_never_shows_an_image_makes_the_record_useless():
    """Static, setuid, another libc: it did things that nobody noted."""
    assert observe(Tape().note("X", "/bin/static").bytes()) is Reason.RECORD_FOREIGN


def test_a_static_program_that_becomes_an_observed_one_is_noticed():
    """The image that shows up is not the one that the exec named."""
    tape = Tape().note("X", "/bin/launcher").note("P", "/bin/echo", "/bin/echo")
    assert observe(tape.bytes()) is Reason.RECORD_FOREIGN


@pytest.mark.parametrize("first", ["P", "Y"])
def test_a_spawned_child_may_announce_itself_before_its_parent_has_said_so(first):
    """posix_spawn returns to the parent when it likes."""
    notes = {"P": ("P", "/usr/bin/ld", "/usr/bin/ld", 0, CHILD), "Y": ("Y", "/usr/bin/ld", str(CHILD), 0, ME)}
    tape = Tape().note(*notes.pop(first))
    tape.note(*next(iter(notes.values())))
    assert "/usr/bin/ld" in tape.seen().read


def test_a_spawned_child_that_stays_silent_makes_the_record_useless():
    """The same for posix_spawn."""
    assert observe(Tape().note("Y", "/bin/static", str(CHILD)).bytes()) is Reason.RECORD_FOREIGN


def test_an_image_that_nobody_was_seen_to_start_makes_the_record_useless():
    """Something unseen started it."""
    assert observe(Tape().note("P", "/bin/echo", "/bin/echo", pid=CHILD).bytes()) is Reason.RECORD_FOREIGN


def test_a_script_is_announced_by_its_interpreter_under_its_own_name():
    """The kernel's AT_EXECFN stays the script."""
    seen = Tape().note("X", "/p/tool").note("P", "/usr/bin/dash", "/p/tool").seen()
    assert seen.read == ["/p/tool"]


def test_a_socket_makes_the_record_useless():
    """What came over it cannot be looked at again."""
    assert isinstance(observe(Tape().note("N", "socket").bytes()), Reason)


# -- not whole ------------------------------------------------------------------------------------------------------


def test_a_process_that_was_killed_while_it_wrote_makes_the_record_useless():
    """Its `done` was never set."""
    assert observe(Tape().note("R", "/a", done=0).note("R", "/b").bytes()) is Reason.RECORD_LOST


def test_lost_records_make_the_record_useless():
    """The file was full."""
    tape = Tape().note("R", "/a")
    tape.lost = 1
    assert observe(tape.bytes()) is Reason.RECORD_LOST


def test_a_tree_that_never_announced_itself_makes_the_record_useless():
    """The library was not loaded at all."""
    assert observe(new_header(4096)) is Reason.RECORD_LOST


@pytest.mark.parametrize("data", [b"", b"SCOB", bytes(64), new_header(4096)[:30], b"x" * 100])
def test_garbage_makes_the_record_useless(data):
    """Whatever a compiler did to the file."""
    assert observe(data) is Reason.RECORD_LOST


def test_a_cut_record_makes_the_record_useless():
    """At any byte."""
    data = Tape().note("R", "/some/file").note("W", "/o/x").bytes()
    for end in range(len(data)):
        assert observe(data[:end]) is Reason.RECORD_LOST


def test_an_empty_record_takes_its_header():
    """That is all that must be zeroed."""
    assert used_bytes(new_header(4096)) == HEADER_BYTES


def test_what_a_plugin_asked_is_told_apart():
    """Its questions may go into the output where the compiler's own do not."""
    seen = Tape().note("E", "TERM").note("E", "COLUMNS", "plugin").seen()
    assert (seen.asked, seen.plugins_asked, seen.plugin_clock) == (["COLUMNS", "TERM"], {"COLUMNS"}, False)
    assert Tape().note("C", "plugin").seen().plugin_clock


def test_whose_look_told_the_time_of_a_change_is_told_apart():
    """A proc-macro's, or that of a program that it starts; what the tree made itself has no time that could count."""
    tape = Tape().note("W", "/t/made").note("S", "/t/made", "plugin").note("S", "/t/gone", "plugin", error=errno.ENOENT)
    assert tape.note("S", "/t/a").note("S", "/t/b", "plugin").seen().dated == {"rustc": {"/t/a"}, "plugin": {"/t/b"}}


def test_an_open_file_whose_size_was_asked_for_is_told_apart():
    """Rust asks so for all that it reads whole; whether anyone looked at its time is for others to judge."""
    tape = Tape().note("W", "/t/made").note("S", "/t/made", "reader").note("R", "/t/a").note("S", "/t/a", "reader")
    seen = tape.seen()
    assert (seen.sized, seen.read, seen.present, seen.dated) == (["/t/a"], ["/t/a"], [], {})


def test_who_asked_for_path_is_told_apart():
    """Looking along it for a program is another use than taking its text."""
    tape = Tape().note("E", "PATH", "search").note("E", "PATH", "search", pid=CHILD)
    assert tape.seen().path_asked_by == set()
    assert tape.note("E", "PATH").note("E", "PATH", pid=CHILD).seen().path_asked_by == {"rustc", ""}


def test_what_was_executed_is_read_and_looked_at():
    """Whether it may be executed is none of its bytes."""
    seen = Tape().note("X", "/bin/cc", pid=CHILD).note("P", "/bin/gcc-12", "/bin/cc", pid=CHILD).seen()
    assert (seen.read, seen.present) == (["/bin/cc"], ["/bin/cc"])


def test_what_an_image_was_started_with_is_read_and_told_apart():
    """rustc's own driver is a library, too, and no macro."""
    seen = Tape().note("I", "/lib/librustc_driver.so").note("R", "/t/libm.so").seen()
    assert (seen.read, seen.linked) == (["/lib/librustc_driver.so", "/t/libm.so"], {"/lib/librustc_driver.so"})


def test_what_a_plugin_reads_of_the_machine_is_told_apart_from_the_time():
    """A compiler goes by the number of processors, a macro may write it down."""
    seen = Tape().note("C", "/proc/cpuinfo").note("C", "/sys/fs/cgroup/cpu.max").seen()
    assert (seen.machine, seen.plugin_clock) == ({"/proc/cpuinfo", "/sys/fs/cgroup/cpu.max"}, False)
