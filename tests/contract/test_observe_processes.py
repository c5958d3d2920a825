"""The preload library and processes: exec, fork, vfork, spawn, threads, signals, and programs that close every descriptor."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

from observe_fixture import (
    Observer,
    Record,
    library,
    observer,
    probe,
    read_records,
    without_startup,
)

__all__ = ["library", "observer", "probe"]  # fixtures

NO = errno.ENOENT


def without_searching(records: list[Record]) -> list[Record]:
    return [r for r in records if r.kind != "S"]


def test_an_exec_that_fails_is_taken_back(observer: Observer, probe: Path) -> None:
    """Every X without an x must become an image that announces itself; else the compile is refused."""
    observer.prepare()
    done = observer.run(probe, "failing-exec", env={"PATH": "/absent:/usr/bin:/bin"})
    assert done.stderr.splitlines() == [
        "execv: No such file or directory",
        "execvp: No such file or directory",
        "execve: Permission denied",
    ]
    records = observer.records()
    assert [r.what for r in records[1:]] == [
        ("X", 0, "/absent/a"),
        ("x", NO, "/absent/a"),
        ("E", 0, "PATH"),
        ("S", NO, "/absent/absent-from-path"),
        ("S", NO, "/usr/bin/absent-from-path"),
        ("S", NO, "/bin/absent-from-path"),
        ("X", 0, "/"),
        ("x", errno.EACCES, "/"),
        ("S", NO, "/absent/true"),
        ("X", 0, "/usr/bin/true"),
        ("P", 0, os.path.realpath("/usr/bin/true")),
    ]
    assert len({r.pid for r in records}) == 1
    assert records[-1].text2 == "/usr/bin/true", "what was executed: the sign that nothing unseen came in between"


def test_a_child_of_vfork_records_under_its_own_number(observer: Observer, probe: Path) -> None:
    """gcc starts cc1 so: the child shares its parent's memory, and a number remembered there."""
    observer.prepare()
    done = observer.run(probe, "vfork")
    records = without_searching(observer.records())
    child = int(done.stdout)
    assert [(r.kind, r.pid == child, r.text) for r in records if r.kind != "E"] == [
        ("P", False, str(probe)),
        ("X", True, "/absent/a"),
        ("x", True, "/absent/a"),
        ("X", True, shutil.which("true")),
        ("P", True, os.path.realpath("/usr/bin/true")),
    ]


def test_a_spawned_process_is_named_with_its_number(observer: Observer, probe: Path) -> None:
    """rustc starts the linker so: libc execs inside; only the number ties the new image to who wanted it."""
    observer.prepare()
    done = observer.run(probe, "spawn", env={"PATH": "/absent:/usr/bin"})
    first, second, third = done.stdout.splitlines()
    assert (first, second) == ("No such file or directory",) * 2
    child = third.removeprefix("Success ")
    records = observer.records()
    parent = records[0].pid
    assert [(r.kind, r.error, r.text, r.text2) for r in records[1:] if r.pid == parent][:-1] == [
        ("S", NO, "/absent/a", ""),
        ("E", 0, "PATH", "search"),
        ("S", NO, "/absent/absent-from-path", ""),
        ("S", NO, "/usr/bin/absent-from-path", ""),
        ("S", NO, "/absent/true", ""),
        ("Y", 0, "/usr/bin/true", child),
    ]
    begun = [r.pid for r in records if r.kind == "P"]
    assert begun[0] == parent
    assert sorted(begun[1:]) == sorted(int(r.text2) for r in records if r.kind == "Y")


def test_threads_and_processes_at_once_lose_nothing(observer: Observer, probe: Path) -> None:
    """A record overwritten by another thread's would be a file that no hit checks."""
    records = observer.observe(probe, "crowd", "2000")
    looked = {r.text for r in records if r.kind == "S"}
    assert len(looked) == 2 * 2 * 2000
    assert len([r for r in records if r.kind == "S"]) == len(looked)
    assert {r.text.split("/")[2].split("-")[0] for r in records if r.kind == "S"} == {str(r.pid) for r in records if r.kind == "S"}


def test_what_does_not_fit_is_counted_and_harms_nobody(observer: Observer, probe: Path) -> None:
    """The compile then is not cached; the compiler must not notice."""
    observer.prepare(size=4096)
    done = observer.run(probe, "crowd", "500")
    assert (done.returncode, done.stderr) == (0, "")
    assert observer.lost() > 1000
    data = observer.file.read_bytes()
    assert len(data) == 4096
    kept = len(list(without_startup(read_records(data))))
    assert kept > 40
    assert kept + observer.lost() == 1 + 4 * 500


def test_a_program_that_closes_every_descriptor_is_still_seen(observer: Observer, probe: Path) -> None:
    """Daemons and shells do; the record needs no descriptor."""
    records = observer.observe(probe, "closed")
    assert [r.what for r in records[1:]] == [("S", NO, "/absent/when-closed"), ("R", 0, "/dev/null")]


def test_a_signal_handler_on_a_small_stack_may_record(observer: Observer, probe: Path) -> None:
    """gcc removes its temporary files in one."""
    records = observer.observe(probe, "handler")
    here = observer.directory
    assert [r.text for r in records[1:]] == ["/absent/in-handler", f"{here}/relative-in-handler"]


def test_an_interrupted_gcc_still_ends_by_the_signal(observer: Observer) -> None:
    """Ctrl-C must leave neither temporary files nor a changed exit."""
    (observer.directory / "tmp").mkdir()
    os.mkfifo(observer.directory / "in.c")
    observer.prepare()
    env = {**os.environ, **observer.variables(), "TMPDIR": str(observer.directory / "tmp")}
    with (
        subprocess.Popen(["gcc", "-c", "in.c"], env=env, cwd=observer.directory, process_group=0) as gcc,
        # Opening returns when cc1 reads: it has begun, and now waits.
        open(observer.directory / "in.c", "wb"),
    ):
        # To all of the group, as a terminal does: a cc1 that lives on would write its output again.
        os.killpg(gcc.pid, signal.SIGTERM)
        gcc.wait()
    assert gcc.returncode == -signal.SIGTERM
    assert list((observer.directory / "tmp").iterdir()) == []
