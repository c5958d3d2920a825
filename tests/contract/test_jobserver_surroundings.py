"""What the jobserver asks of the machine: which build a process belongs to, how much memory there is, what a make understands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sccache_py.client.jobserver_wrapper import style_for, without_jobs
from sccache_py.server.jobs.builds import Build, build_of
from sccache_py.server.jobs.memory import Memory, Peaks
from sccache_py.tokens import Need


def called_by(*command: str, cwd: Path) -> tuple[int, Build]:
    """The build that a process belongs to which `command` starts: it says its number and waits."""
    with subprocess.Popen(command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        client = int(process.stdout.readline())
        build = build_of(client)
        process.stdin.close()
    return process.pid, build


CLIENT = "echo $$; read nothing; :"


def under_a_build_tool() -> bool:
    """Whether the tests themselves run so: then all that they start is part of that build."""
    return build_of(os.getpid()).name.partition(" ")[0] in ("make", "gmake", "cargo", "ninja", "cmake")


def test_a_build_is_the_topmost_tool(tmp_path: Path) -> None:
    """make runs a shell, which runs make, which runs the compiler: one build, one place in the turns."""
    if under_a_build_tool() or shutil.which("make") is None:
        pytest.skip("no make, or one above us")
    (tmp_path / "Makefile").write_text(f"all:\n\t@sh -c '$(MAKE) -s inner; :'\ninner:\n\t@{CLIENT.replace('$', '$$')}\n")
    pid, build = called_by("make", "-s", cwd=tmp_path)
    assert build.name == f"make {pid}"
    assert build.key.startswith(f"{pid}:")


def test_without_a_build_tool_the_caller_is_the_build(tmp_path: Path) -> None:
    """Two editors' checks, started by programs that we do not know, must not stand in one queue."""
    if under_a_build_tool():
        pytest.skip("one is above us")
    tool = [sys.executable, "-c", f"import subprocess; subprocess.run(['/bin/sh', '-c', {CLIENT!r}])"]
    (pid, build), (other_pid, other) = (called_by(*tool, cwd=tmp_path) for _ in range(2))
    assert build.key.startswith(f"{pid}:")
    assert other.key.startswith(f"{other_pid}:")


def test_a_process_that_is_gone_belongs_to_nobody() -> None:
    """Its client was killed in the same moment."""
    assert build_of(2**22 + 1) == Build("", "?")


def test_memory_is_what_the_tightest_limit_leaves(tmp_path: Path) -> None:
    """In a container with 1 GiB, the host's 64 are no help."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (cgroups / "a" / "b").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable:   8000000 kB\n")
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    assert Memory(str(proc), str(cgroups)).available_kib() == 8_000_000
    (cgroups / "a" / "b" / "memory.max").write_text("max\n")
    (cgroups / "a" / "b" / "memory.current").write_text("1\n")
    (cgroups / "a" / "memory.max").write_text(f"{1 << 30}\n")
    (cgroups / "a" / "memory.current").write_text(f"{900 << 20}\n")
    (cgroups / "a" / "memory.stat").write_text(f"anon 1\ninactive_file {300 << 20}\nactive_file {100 << 20}\n")
    assert Memory(str(proc), str(cgroups)).available_kib() == (1024 - 900 + 400) * 1024


def test_where_the_system_does_not_say_memory_does_not_matter(tmp_path: Path) -> None:
    """No /proc: everything is admitted."""
    assert Memory(str(tmp_path), str(tmp_path)).available_kib() is None


def test_this_machine_has_memory() -> None:
    """The real files have the form that we read."""
    found = Memory().available_kib()
    assert found is not None
    assert found > 1024


def test_small_compiles_are_known_to_be_small() -> None:
    """They need not be looked up in the store again, and never wait."""
    peaks = Peaks()
    assert peaks.expect("x") is None
    peaks.note("x", 10_000, 0.1)
    assert peaks.expect("x") == Need()
    peaks.note("x", 4_000_000, 30.0)
    assert peaks.expect("x") == Need(4_000_000, 30.0)


def test_the_style_follows_what_the_make_says_of_itself(tmp_path: Path) -> None:
    """A FIFO's name is fatal to make 4.3."""
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    make = tmp_path / "make"
    make.write_text("#!/bin/sh\necho target-specific jobserver jobserver-fifo\n")
    make.chmod(0o755)
    assert style_for(["cargo", "build"], path, None) == "fifo"
    assert style_for([str(make)], path, None) == "fifo"
    make.write_text("#!/bin/sh\necho target-specific jobserver\n")
    assert style_for(["cargo", "build"], path, None) == "pair"
    assert style_for(["ninja"], path, None) == "pipe"
    assert style_for(["ninja"], path, "fifo") == "fifo"
    assert style_for(["cmake", "--build", str(tmp_path)], path, None) == "pair"
    (tmp_path / "build.ninja").touch()
    assert style_for(["cmake", "--build", str(tmp_path)], path, None) == "pipe"


def test_a_number_of_jobs_of_its_own_is_taken_from_a_make_or_ninja() -> None:
    """They would leave the pool ("-j8 forced in submake: resetting jobserver mode"); cargo's means something else."""
    assert without_jobs(["make", "-j8", "-k", "all"]) == ["make", "-k", "all"]
    assert without_jobs(["gmake", "-j", "8", "all"]) == ["gmake", "all"]
    assert without_jobs(["make", "-j", "all"]) == ["make", "all"]
    assert without_jobs(["/usr/bin/ninja", "--jobs=3", "-C", "out"]) == ["/usr/bin/ninja", "-C", "out"]
    assert without_jobs(["make", "--", "-j8"]) == ["make", "--", "-j8"]
    assert without_jobs(["cargo", "build", "-j1"]) == ["cargo", "build", "-j1"]
